import copy
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lakehouse.tables import AUGMENTED_TEXTS
from tests.udfs.templates.chains import chinese_pairs, lost, mixed_pairs, pair, row
from udfs.config import build
from udfs.errors import ConfigError, DataError
from udfs.synthesis.formats import PairFormat
from udfs.templates.bank import Bank, load_bank
from udfs.templates.render import ModeWeights, RenderedText, RenderSettings, render_chain, render_rows

BANK = load_bank()
MODES = ("classic", "dialogue", "numbered", "inline", "next_turn")
BANK_OF = {"en": BANK, "zh": load_bank("zh")}
DOUBLED = re.compile(r"[.?!,;:…。．？！，、；：]{2}")
CHAIN = [row(0, mixed_pairs("a")), row(1, mixed_pairs("b"))]
CHAIN_OF = {
    "en": CHAIN,
    "zh": [row(i, chinese_pairs(tag), context=f"第{i}篇文章说了一些事。到此为止。") for i, tag in enumerate("甲乙")],
}


def only(mode: str, **changes: float) -> RenderSettings:
    weights = dict.fromkeys(MODES, 0.0) | {mode: 1.0}
    single = {name: weights[name] for name in ("classic", "dialogue")} if mode in ("classic", "dialogue") else {}
    return RenderSettings.model_validate({"weights": weights, "single_pair_weights": single, **changes})


def narrowed(section: str, bank: Bank = BANK) -> list[Bank]:
    """Banks that have one entry only in a section, one bank for each entry."""
    if section == "patterns":
        return [
            replace(bank, patterns={**bank.patterns, kind: (pattern,)})
            for kind, patterns in bank.patterns.items()
            for pattern in patterns
        ]
    return [replace(bank, **{section: (entry,)}) for entry in getattr(bank, section)]


SECTIONS = [field.name for field in fields(Bank) if field.name not in ("language", "version", "stock")]


@pytest.mark.parametrize("language", BANK_OF)
@pytest.mark.parametrize("section", SECTIONS)
def test_every_template_in_every_mode_keeps_everything(section: str, language: str) -> None:
    chain = CHAIN_OF[language]
    for bank in narrowed(section, BANK_OF[language]):
        digits = all(style.labels == "digit" for style in bank.option_styles)
        for mode in MODES:
            if mode == "numbered" and digits:  # never drawn there
                continue
            for inversion in (0.0, 1.0) if mode == "classic" else (0.0,):
                chosen = only(mode, inversion=inversion, plain_reading=0, plain_comprehension=0)
                (text,) = render_chain(chain, chosen, bank)
                assert text.mode == mode
                assert text.inverted == bool(inversion)
                assert lost(text.text, chain, language) == []
                assert not DOUBLED.search(text.text), text.text


STARTS = ["", "…", ".", "：", "！", "，"]
ENDS = ["", ".", "?", "!", ":", ";", ",", '."', ".)", "。", "？", "…", "；", "。”", "。」"]


@pytest.mark.parametrize("language", BANK_OF)
@pytest.mark.parametrize("mode", MODES)
def test_no_seam_doubles_punctuation(mode: str, language: str) -> None:
    """Whatever a value begins and ends with."""
    for seed in range(8 * len(STARTS) * len(ENDS)):
        start, end = STARTS[seed % len(STARTS)], ENDS[seed % len(ENDS)]
        options = [f"{start}north{end}", f"{start}south{end}", f"{start}west{end}"]
        pairs = [
            pair(f"{start}Which way{end}", f"{start}east{end}"),
            pair(f"{start}Which side{end}", options[1], options),
            pair(f"{start}Where to{end}", f"{start}east{end}", None, f"{start}The sun rises there{end}"),
            pair(f"{start}Where from{end}", options[2], options, f"{start}The wind said so{end}"),
            pair(f"{start}Which other{end}", f"{start}up{end}", options),
        ]
        chain = [row(i, pairs, context=f"{start}A text{end}") for i in range(2)]
        (text,) = render_chain(chain, only(mode, seed=seed, inversion=0.5), BANK_OF[language])
        assert not DOUBLED.search(text.text), text.text
        assert lost(text.text, chain) == []


some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
line = some_text.map(lambda text: " ".join(text.split())).filter(bool)


@st.composite
def pairs_of_any_kind(draw: st.DrawFn) -> dict[str, str]:
    options = draw(st.none() | st.lists(line, min_size=1, max_size=30))
    final = draw(st.sampled_from(options)) if options and draw(st.booleans()) else draw(some_text)
    return pair(draw(some_text), final, options, draw(st.none() | some_text))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(pairs_of_any_kind(), min_size=2, max_size=4), min_size=1, max_size=3),
    some_text,
    st.sampled_from(MODES),
    st.integers(0, 1 << 62),
    st.sampled_from(sorted(BANK_OF)),
)
def test_nothing_of_any_pair_is_lost(
    shots: list[list[dict[str, str]]], context: str, mode: str, seed: int, language: str
) -> None:
    chain = [row(i, pairs, context=context) for i, pairs in enumerate(shots)]
    (text,) = render_chain(chain, only(mode, seed=seed, inversion=0.3), BANK_OF[language])
    assert lost(text.text, chain, language) == []
    assert text.n_pairs == sum(len(pairs) for pairs in shots)
    assert text.n_shots == len(shots)


@pytest.mark.parametrize("mode", MODES)
def test_slots_in_the_corpus_stay_what_they_are(mode: str) -> None:
    pairs = [pair("What is {answer} and {question}?", "{context} {options}"), pair("{reasoning}?", "{pairs} %s \\1")]
    chain = [row(0, pairs, context="A {dialogue} with {answer}.")]
    (text,) = render_chain(chain, only(mode), BANK)
    assert lost(text.text, chain) == []


def test_rendering_is_pure() -> None:
    chain = copy.deepcopy(CHAIN)
    first = render_chain(chain, RenderSettings(), BANK)
    assert chain == CHAIN
    shuffled = chain[:]
    random.Random(3).shuffle(shuffled)
    assert render_chain(shuffled, RenderSettings(), BANK) == first
    assert render_chain(chain, RenderSettings(), load_bank()) == first


CHAINS = [
    [row(i, pairs(tag), chain=f"{language}-{tag}", context=context) for i in range(2)]
    for language, pairs, context in (("en", mixed_pairs, "A text."), ("zh", chinese_pairs, "这是一篇文章。"))
    for tag in "uvwxyz"
]
IN_ANOTHER_PROCESS = """
import json, sys
from udfs.templates.render import RenderSettings, render_rows
print(json.dumps([row["text"] for _, row in render_rows(json.load(sys.stdin), RenderSettings(seed=3), 2)]))
"""


def test_order_partitioning_and_process_change_nothing() -> None:
    def rendered(chains: list[list[dict]]) -> dict[str, dict]:
        return {entry["text_id"]: entry for _, entry in render_rows(chains, RenderSettings(seed=3), 2)}

    whole = rendered(CHAINS)
    assert len(whole) == 2 * len(CHAINS)
    assert {entry["template_version"][:3] for entry in whole.values()} == {"en-", "zh-"}
    for seed in range(5):
        order = random.Random(seed)
        chains = [order.sample(chain, len(chain)) for chain in order.sample(CHAINS, len(CHAINS))]
        cut = order.randrange(1, len(chains))
        assert rendered(chains[:cut]) | rendered(chains[cut:]) == whole
    # Strings hash differently in every process, so sets and dictionaries of them are in another order there.
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=json.dumps(CHAINS),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONHASHSEED": "17"},
    )
    assert json.loads(done.stdout) == [entry["text"] for entry in whole.values()]


@pytest.mark.parametrize("number", range(2))
def test_the_right_option_is_uniformly_placed_in_whole_texts(number: int) -> None:
    """For the first pair of a text as for the others, wherever the right option stood before."""
    options = ["north", "south", "west", "east"]
    chain = [row(0, [pair("Where to?", options[0], options), pair("Where from?", options[3], options)])]
    gold = options[3 * number]
    found: Counter[int] = Counter()
    for seed in range(4_000):
        (text,) = render_chain(chain, only("classic", seed=seed, inversion=0), BANK)
        asked = text.text[text.text.index("Where from?" if number else "Where to?") :]
        if "multiple_choice/options-first" in text.template_ids or any(
            name.startswith("multiple_choice/") and name.split("/")[1] in ("consider-options", "options-before")
            for name in text.template_ids
        ):
            continue  # the list stands before the question
        found[sorted(options, key=asked.index).index(gold)] += 1
    expected = found.total() / 4
    assert expected > 900
    assert sum((found[i] - expected) ** 2 / expected for i in range(4)) < 16.3  # 3 degrees of freedom, p = 0.001


def test_seeds_and_views_give_other_renderings_of_the_same_pairs() -> None:
    texts = [render_chain(CHAIN, RenderSettings(seed=seed), BANK, view)[0] for seed in range(20) for view in range(20)]
    assert len({text.text for text in texts}) == len({text.text_id for text in texts}) == 400
    assert all(lost(text.text, CHAIN) == [] for text in texts)


def test_columns_are_those_of_the_table() -> None:
    assert [field.name for field in fields(RenderedText)] == [column.name for column in AUGMENTED_TEXTS.columns]


def test_texts_without_pairs_go_on_as_they_are() -> None:
    chain = [row(0, mixed_pairs()), row(1, []), row(2, None), row(3, mixed_pairs())]
    together, *raw = render_chain(chain, RenderSettings(), BANK)
    assert together.doc_ids == ["doc-chain-0:0", "doc-chain-3:0"]
    assert together.n_shots == 2
    assert [(text.mode, text.doc_ids, text.text, text.n_pairs) for text in raw] == [
        ("raw", ["doc-chain-1:0"], chain[1]["context"], 0),
        ("raw", ["doc-chain-2:0"], chain[2]["context"], 0),
    ]
    assert len({text.text_id for text in (together, *raw)}) == 3
    # A second look at the pairs is no second copy of the texts that have none.
    assert [text.mode != "raw" for text in render_chain(chain, RenderSettings(), BANK, view=1)] == [True]
    assert render_chain([row(0, [])], RenderSettings(), BANK, view=1) == []


def share_of_modes(chain: list[dict], n: int = 6_000) -> Counter:
    return Counter(
        text.mode + ("-inverted" if text.inverted else "")
        for seed in range(n)
        for text in render_chain(chain, RenderSettings(seed=seed), BANK)
    )


def test_modes_and_inversion_have_the_published_weights() -> None:
    two = [pair("One?", "1"), pair("Two?", "2")]
    found = share_of_modes([row(0, two), row(1, two)])
    expected = {"classic": 76, "classic-inverted": 4, "dialogue": 5, "numbered": 5, "inline": 5, "next_turn": 5}
    assert set(found) == set(expected)
    chi_square = sum((found[name] - 60 * share) ** 2 / (60 * share) for name, share in expected.items())
    assert chi_square < 20.6  # 5 degrees of freedom, p = 0.001
    found = share_of_modes([row(0, two), row(1, two[:1])])
    expected = {"classic": 90.25, "classic-inverted": 4.75, "dialogue": 5}
    assert set(found) == set(expected)
    assert sum((found[name] - 60 * share) ** 2 / (60 * share) for name, share in expected.items()) < 13.9


def test_draws_do_not_depend_on_each_other() -> None:
    chosen = only("classic", inversion=0, plain_reading=0, plain_comprehension=0)
    chain = [row(0, [pair("Which?", "b", ["a", "b"])])]
    patterns = {**BANK.patterns, PairFormat.MULTIPLE_CHOICE: BANK.patterns[PairFormat.MULTIPLE_CHOICE][:20]}
    bank = replace(BANK, reading=BANK.reading[:20], patterns=patterns)
    found: Counter[tuple[str, str]] = Counter()
    for seed in range(8_000):
        (text,) = render_chain(chain, chosen.model_copy(update={"seed": seed}), bank)
        kinds = dict(name.rsplit("/", 1) for name in text.template_ids)
        found[kinds["classic/reading"], kinds["multiple_choice"]] += 1
    assert len(found) == 400
    assert sum((count - 20) ** 2 / 20 for count in found.values()) < 491  # 399 degrees of freedom, p = 0.001


def test_one_style_through_the_whole_text() -> None:
    """A shot is written the same whichever shots stand beside it, so the text is a row of like examples."""
    pairs = [pair("One?", "1"), pair("Two?", "2")]
    for mode in MODES:
        for seed in range(50):
            chain = [row(i, pairs, context="Same text.") for i in range(3)]
            (text,) = render_chain(chain, only(mode, seed=seed), BANK)
            shot = text.text[: text.text.rindex("Same text.")]
            before = [match.start() for match in re.finditer("Same text.", text.text)]
            assert before[1] - before[0] == before[2] - before[1], shot
            assert len(set(text.template_ids)) == len(text.template_ids)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0, [], chain="a"), row(1, [], chain="b")],
        [row(0, []), row(0, [])],
        [row(0, [], context="")],
        [row(0, [{"instruction": " ", "response": "yes"}])],
        [row(0, [{"instruction": "Why?", "response": None}])],
    ],
)
def test_what_is_no_chain_is_refused(rows: list[dict]) -> None:
    with pytest.raises(DataError):
        render_chain(rows, RenderSettings(), BANK)


def test_every_chain_becomes_texts_or_a_reject() -> None:
    chains = [
        [row(0, mixed_pairs(), chain="good"), row(1, [], chain="good")],
        [row(0, [{"instruction": "", "response": "yes"}], chain="bad")],
    ]
    found = list(render_rows(chains, RenderSettings(), views=2))
    assert [table for table, _ in found] == ["augmented_texts"] * 3 + ["rejects"]
    reject = found[-1][1]
    assert (reject["record_id"], reject["reason"]) == ("bad", "invalid_chain")
    assert "doc-bad-0:0" in reject["detail"] and "Text number 0" in reject["payload"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"weights": {"classic": 0, "dialogue": 0, "numbered": 0, "inline": 0, "next_turn": 0}}, "at least one weight"),
        ({"weights": {"dialog": 5}}, "Did you mean 'dialogue'"),
        ({"weights": {"classic": -1}}, "augment.weights.classic"),
        ({"inversion": 1.5}, "augment.inversion"),
        ({"seed": -1}, "augment.seed"),
    ],
)
def test_bad_settings_are_refused(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(RenderSettings, tree, "augment")
    assert message in str(raised.value)


def test_weights_change_one_by_one() -> None:
    assert build(RenderSettings, {"weights": {"classic": 10}}, "augment").weights == ModeWeights(classic=10)
