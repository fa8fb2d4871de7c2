import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.config import build as configured
from udfs.errors import ConfigError
from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.engines.rules import RulesConfig, mine_partition
from udfs.synthesis.engines.rules.bank import SLOTS, RuleBank, load_rules
from udfs.synthesis.engines.rules.mining import mine
from udfs.synthesis.formats import decompose
from udfs.synthesis.pairs import MARKERS, parse

BANK = load_rules("en")

TEXT = """The Harbour Lights of Norwick

The article deals with lighthouses on the northern coast. A fairway is defined as the part of a water that ships \
can use. Its international administration established comprehensive regulations for navigation.

The old tower was closed due to several storms, and it stood empty, cold and dark. The lamp needed more oil in \
every winter, in some years twice as much. Therefore, the council of the town decided to buy an electric one. \
The keepers were not asked what they thought about the change. However, Dr. Holm wrote that the electric lamp \
had no friends among them.

The lamp turns once in every twelve seconds of the night. In other words, a ship sees its light five times in \
every minute of the night. The fishermen knew the rhythm of the lamp by heart. In contrast, the summer guests \
never learned to tell it from others. The tower was painted white in the year of the great fair. Moreover, the \
steps were covered with thin plates of red copper."""


def mined(text: str = TEXT, name: str = "d:0", per_kind: int = 2) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for task in mine(text, name, BANK, per_kind):
        found.setdefault(task.kind, []).append((task.pair["instruction"], task.pair["response"]))
    return found


def ever(text: str = TEXT, names: int = 40) -> dict[str, set[tuple[str, str]]]:
    """What is mined under many names, that is with many draws."""
    found: dict[str, set[tuple[str, str]]] = {}
    for number in range(names):
        for kind, pairs in mined(text, f"d{number}:0").items():
            found.setdefault(kind, set()).update(pairs)
    return found


def test_every_kind_is_mined():
    found = ever()
    assert set(found) == set(SLOTS)

    def responses(kind: str) -> set[str]:
        return {response for _, response in found[kind]}

    assert responses("title") == {"The Harbour Lights of Norwick"}
    assert responses("topic") == {"lighthouses on the northern coast"}
    assert responses("definition") == {"The part of a water that ships can use."}
    assert responses("sentence_to_keywords") == {"international, administration, established"}
    assert responses("relation") == {"Yes", "Maybe", "No"}
    assert responses("contradiction") == {"Dr. Holm wrote that the electric lamp had no friends among them."}
    assert responses("similar") == {"A ship sees its light five times in every minute of the night."}
    assert responses("different") == {"The summer guests never learned to tell it from others."}
    council = "The council of the town decided to buy an electric one."
    oil = "The lamp needed more oil in every winter, in some years twice as much."
    assert responses("cause_to_effect") == {council} and responses("entailment") == {council}
    # The cause in the middle of a sentence, with commas around it, is found as well as the sentence before.
    assert responses("effect_to_cause") == {"Due to several storms, and it stood empty, cold and dark.", oil}
    (completion,) = responses("completion")
    assert completion in TEXT and completion.endswith("plates of red copper.")


def test_relations_are_a_choice():
    for instruction, response in ever()["relation"]:
        parts = decompose(instruction, response)
        assert parts.options == ("Yes", "Maybe", "No") and parts.final in parts.options
        connective = {"Yes": "council", "Maybe": "copper", "No": "Holm"}[response]
        assert connective in parts.question
        assert not any(word in parts.question for word in ("Therefore", "Moreover", "However"))  # would give it away


@pytest.mark.parametrize(
    "text",
    [
        "However hard the keepers tried in that winter. They could not keep the old lamp burning for the whole night.",
        "The delay of the ship to the islands was mostly due to the storm that came from the north that evening.",
        "The lamp is about twice as bright as the old one was. The tower is about 30 metres high with its iron rail.",
        "Short. Therefore, short. No, thanks. Yes. But why. Due to rain.",
        "He wrote in curly {braces} and {sentence} too",
    ],
)
def test_what_only_looks_like_a_task(text):
    assert mined(text) == {}


def test_the_text_is_no_template_and_no_markup():
    text = TEXT.replace("electric one", "{first} {0} %s one").replace("red copper", "red <ANS> copper")
    council = {answer for _, answer in ever(text)["cause_to_effect"]}
    assert council == {"The council of the town decided to buy an {first} {0} %s one."}
    assert not any(
        marker in side for pairs in ever(text).values() for pair in pairs for side in pair for marker in MARKERS
    )


def test_limits():
    many = " ".join(
        f"The lamp of tower number {n} burned for the whole of the night. Thus, ship number {n} came safely to the "
        "port of the island."
        for n in range(9)
    )
    for limit in (1, 3):
        counts = {kind: len(pairs) for kind, pairs in mined(many, per_kind=limit).items()}
        assert max(counts.values()) == counts["relation"] == limit


def test_the_same_whatever_the_hash_seed():
    code = (
        "import sys; from udfs.synthesis.engines.rules import load_rules, mine; "
        "print(mine(sys.argv[1], 'd', load_rules('en'), 9))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, TEXT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1 and "Harbour" in printed.pop()


WORDS = st.sampled_from(
    ["Therefore,", "However,", "due to", "is defined as", "The text is about", "lamp", "international", ".", "? ", "\n",
     "\n\n", " ", "{first}", "\x00", "🙂", "中文。", "النص", *MARKERS]
)  # fmt: skip


ROW = {"source": "s", "domain": "x", "chain_key": 1, "sample": 0}


@given(st.lists(WORDS, max_size=60).map(" ".join))
def test_any_text(text):
    row = {**ROW, "doc_id": "d", "chunk": 0, "text": text, "round": 0}
    ((table, out),) = mine_partition([row], RulesConfig(), CheckSettings())
    if not text.strip():
        assert (table, out["reason"]) == ("rejects", "empty_text")
        return
    assert out["context"] == text and out["status"] == ("ok" if out["pairs"] else "no_pairs")
    parsed = parse(out["completion"])
    assert len(parsed.pairs) == len(out["pairs"]) + len(out["rejected_pairs"]) and not parsed.rejected


def test_rows_of_a_chain():
    rows = [{**ROW, "doc_id": f"d{n}", "chunk": n, "text": TEXT, "round": n} for n in range(3)]
    outcomes = [row for _, row in mine_partition(rows, RulesConfig(), CheckSettings())]
    assert len({row["chain_id"] for row in outcomes}) == 1
    assert [(row["round"], row["chain_length"], row["carried"]) for row in outcomes] == [(n, 3, []) for n in range(3)]
    assert all(len(row["pairs"]) >= 10 and row["engine"]["revision"] == BANK.version for row in outcomes)
    # A document alone gives the same pairs.
    ((_, alone),) = mine_partition(rows[1:2], RulesConfig(), CheckSettings())
    assert alone["pairs"] == outcomes[1]["pairs"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wordings": {**BANK.wordings, "title": ("{text}",)}}, "slots"),
        ({"wordings": {**BANK.wordings, "similar": ()}}, "needs a wording"),
        ({"relations": {"entailment": "Yes"}}, "neutral"),
        ({"because": []}, "unknown key"),
    ],
)
def test_a_file_of_rules_is_checked(change, message):
    with pytest.raises(ConfigError, match=message):
        configured(RuleBank, {**BANK.model_dump(), **change}, "xx.yaml")


def test_a_language_without_rules():
    with pytest.raises(ConfigError, match="Languages: en"):
        configured(RulesConfig, {"language": "eo"}, "engine")
    with pytest.raises(ConfigError, match="Languages: en"):
        load_rules("../en")
