import copy
import random
import re
from collections import Counter
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lakehouse.tables import AUGMENTED_TEXTS
from tests.udfs.templates.chains import lost, mixed_pairs, pair, row
from udfs.config import build
from udfs.errors import ConfigError, DataError
from udfs.templates.bank import Bank, load_bank
from udfs.templates.render import ModeWeights, RenderedText, RenderSettings, render_chain, render_rows

BANK = load_bank()
MODES = ("classic", "dialogue", "numbered", "inline", "next_turn")
DOUBLED = re.compile(r"[.?!,;:]{2}")
CHAIN = [row(0, mixed_pairs("a")), row(1, mixed_pairs("b"))]


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


SECTIONS = [field.name for field in fields(Bank) if field.name not in ("language", "version")]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_template_in_every_mode_keeps_everything(section: str) -> None:
    for bank in narrowed(section):
        digits = all(style.labels == "digit" for style in bank.option_styles)
        for mode in MODES:
            if mode == "numbered" and digits:  # never drawn there
                continue
            for inversion in (0.0, 1.0) if mode == "classic" else (0.0,):
                chosen = only(mode, inversion=inversion, plain_reading=0, plain_comprehension=0)
                (text,) = render_chain(CHAIN, chosen, bank)
                assert text.mode == mode
                assert text.inverted == bool(inversion)
                assert lost(text.text, CHAIN) == []
                assert not DOUBLED.search(text.text), text.text


@pytest.mark.parametrize("end", ["", ".", "?", "!", ":", ";", ",", '."', ".)"])
@pytest.mark.parametrize("mode", MODES)
def test_no_seam_doubles_punctuation(mode: str, end: str) -> None:
    options = [f"north{end}", f"south{end}", f"west{end}"]
    pairs = [
        pair(f"Which way{end}", f"east{end}"),
        pair(f"Which side{end}", f"south{end}", options),
        pair(f"Where to{end}", f"east{end}", None, f"The sun rises there{end}"),
        pair(f"Where from{end}", f"west{end}", options, f"The wind said so{end}"),
        pair(f"Which other{end}", f"up{end}", options),
    ]
    chain = [row(i, pairs, context=f"A text{end}") for i in range(2)]
    for seed in range(300):
        (text,) = render_chain(chain, only(mode, seed=seed, inversion=0.5), BANK)
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
)
def test_nothing_of_any_pair_is_lost(shots: list[list[dict[str, str]]], context: str, mode: str, seed: int) -> None:
    chain = [row(i, pairs, context=context) for i, pairs in enumerate(shots)]
    (text,) = render_chain(chain, only(mode, seed=seed, inversion=0.3), BANK)
    assert lost(text.text, chain) == []
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
    found = set()
    for seed in range(8_000):
        (text,) = render_chain(chain, chosen.model_copy(update={"seed": seed}), BANK)
        kinds = dict(name.rsplit("/", 1) for name in text.template_ids)
        found.add((kinds["classic/reading"], kinds["multiple_choice"]))
    assert len(found) == len(BANK.reading) * len(BANK.patterns["multiple_choice"])


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
        {"chain_id": "good", "rows": [row(0, mixed_pairs(), chain="good"), row(1, [], chain="good")]},
        {"chain_id": "bad", "rows": [row(0, [{"instruction": "", "response": "yes"}], chain="bad")]},
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
