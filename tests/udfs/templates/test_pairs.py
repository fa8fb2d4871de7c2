import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.udfs.templates.chains import pair
from udfs.synthesis.formats import PairFormat, decompose
from udfs.templates.bank import OptionStyle, load_bank
from udfs.templates.draws import Draws
from udfs.templates.options import label
from udfs.templates.pairs import PairWriter, presentable
from udfs.templates.segments import STOPS

OPTIONS = ["Paris", "Oslo", "Rome", "Lima"]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("none", ["", "", ""]),
        ("lower", ["a", "b", "c"]),
        ("upper", ["A", "B", "C"]),
        ("digit", ["1", "2", "3"]),
        ("roman", ["i", "ii", "iii"]),
    ],
)
def test_labels(kind: str, labels: list[str]) -> None:
    assert [label(kind, i) for i in range(3)] == labels


def test_labels_do_not_end() -> None:
    assert [label("lower", i) for i in (25, 26, 27, 702)] == ["z", "aa", "ab", "aaa"]
    assert [label("roman", i) for i in (3, 8, 13, 48, 98)] == ["iv", "ix", "xiv", "xlix", "xcix"]
    for kind in ("lower", "upper", "digit", "roman"):
        assert len({label(kind, i) for i in range(300)}) == 300


def test_the_gold_option_is_uniformly_placed_for_each_pair_of_a_text() -> None:
    """Options shuffled by a hash of the pair: the first pair of a text is no exception."""
    bank = load_bank()
    for number in range(2):
        found: Counter[int] = Counter()
        for seed in range(4_000):
            writer = PairWriter(bank, Draws("chain", seed), "classic")
            turns = [writer.write("doc:0", pair(f"Question {i}?", "Paris", OPTIONS)) for i in range(number + 1)]
            ask = turns[number].ask
            found[sorted(OPTIONS, key=ask.index).index("Paris")] += 1
        assert sum((found[i] - 1_000) ** 2 / 1_000 for i in range(4)) < 16.3  # 3 degrees of freedom, p = 0.001


def test_the_answer_points_at_the_right_option() -> None:
    bank = load_bank()
    seen = set()
    for seed in range(1_500):
        draws = Draws("chain", seed)
        turn = PairWriter(bank, draws, "classic").write("doc:0", pair("Where?", "Paris", OPTIONS))
        style = next(style for style in bank.option_styles if style.id in draws.used)
        position = sorted(OPTIONS, key=turn.ask.index).index("Paris")
        answer = style.answer.fill({"label": label(style.labels, position), "option": "Paris"})
        assert answer in turn.reply
        assert style.item.fill({"label": label(style.labels, position), "option": "Paris"}) in turn.ask
        seen.add(style.id)
    assert len(seen) == len(bank.option_styles)


def test_numbered_questions_have_no_numbered_options() -> None:
    bank = load_bank()
    for seed in range(300):
        draws = Draws("chain", seed)
        PairWriter(bank, draws, "numbered").write("doc:0", pair("Where?", "Paris", OPTIONS))
        assert not any("/digit" in name for name in draws.used)


@pytest.mark.parametrize("final", ["None of the above.", "Oslo"])
def test_what_says_that_no_option_holds_is_true_wherever_it_is_put(final: str) -> None:
    bank = load_bank()
    options = [*OPTIONS, "None of the above."]
    places, wordings = Counter(), set()
    for seed in range(2_000):
        draws = Draws("chain", seed)
        turn = PairWriter(bank, draws, "classic").write("doc:0", pair("Where?", final, options))
        (drawn,) = (phrase.text for phrase in bank.none_of_these if phrase.id in draws.used)
        written = drawn[0].upper() + drawn[1:]
        assert "above" not in turn.ask
        listed = sorted([*OPTIONS, written], key=turn.ask.index)
        places[listed.index(written)] += 1
        wordings.add(written)
        style = next(style for style in bank.option_styles if style.id in draws.used)
        gold = final if final == "Oslo" else written
        answer = {"label": label(style.labels, listed.index(gold)), "option": gold}
        assert style.answer.fill(answer) in turn.reply
    assert wordings == {phrase.text[0].upper() + phrase.text[1:] for phrase in bank.none_of_these}
    assert sum((places[i] - 400) ** 2 / 400 for i in range(5)) < 18.5  # 4 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    "last",
    [
        "All of the above",
        "A and C",
        "Both B and D",
        "neither (A) nor (B)",
        "A, B and C",
        "(A), (B), and (D)",
        "Options A and B",
        "B and D are both correct.",
        "two of those above",
        "以上都对",
        "以上三项",
        "A和C",
        "A、B、D都对",
    ],
)
def test_options_that_speak_of_others_keep_their_place(last: str) -> None:
    bank = load_bank()
    options = [*OPTIONS, last]
    for seed in range(50):
        turn = PairWriter(bank, Draws("chain", seed), "classic").write("doc:0", pair("Where?", last, options))
        assert sorted(options, key=turn.ask.index) == options


@pytest.mark.parametrize("last", ["A and C", "A、C都对"])
def test_options_that_speak_of_letters_have_letters(last: str) -> None:
    bank = load_bank()
    options = [*OPTIONS, last]
    for seed in range(200):
        turn = PairWriter(bank, Draws("chain", seed), "classic").write("doc:0", pair("Where?", last, options))
        assert re.search(r"A\W+Paris\W.*C\W+Rome\W", turn.ask, re.DOTALL)
        assert last in turn.reply or "E" in turn.reply


def test_an_answer_that_only_resembles_an_option_keeps_its_words_and_the_option_too() -> None:
    bank = load_bank()
    options = [*OPTIONS, "None of these"]
    for seed in range(50):
        turn = PairWriter(bank, Draws("chain", seed), "classic").write(
            "doc:0", pair("Where?", "none of these", options)
        )
        assert "None of these" in turn.ask and "none of these" in turn.reply


def test_options_that_only_sound_like_it_are_shuffled() -> None:
    bank = load_bank()
    options = ["above 30", "30 and above", "vitamins A and C", "1 and 2"]
    firsts = set()
    for seed in range(100):
        turn = PairWriter(bank, Draws("chain", seed), "classic").write("doc:0", pair("What?", "1 and 2", options))
        firsts.add(min(options, key=turn.ask.index))
    assert len(firsts) == 4


def test_options_with_punctuation_keep_lines_of_their_own() -> None:
    bank = load_bank()
    rows = tuple(style for style in bank.option_styles if style.joint[0] in STOPS)
    assert rows
    bank = replace(bank, option_styles=rows)
    for options, in_lines in ((["It rained.", "It snowed.", "It hailed"], True), (["rain", "snow", "hail"], False)):
        for seed in range(50):
            turn = PairWriter(bank, Draws("chain", seed), "classic").write("doc:0", pair("What?", options[0], options))
            places = sorted(turn.ask.index(option) for option in options)
            assert ("\n" in turn.ask[places[0] : places[1]]) == in_lines


@pytest.mark.parametrize("language", ["en", "zh"])
def test_options_without_labels_can_be_told_apart(language: str) -> None:
    whole = load_bank(language)
    rows = [style for style in whole.option_styles if style.labels == "none" and "\n" not in style.joint]
    assert rows
    for style in rows:
        bank = replace(whole, option_styles=(style,))
        for options in (["red", "green"], [f"red{style.joint}blue", "green"]):
            turn = PairWriter(bank, Draws("chain"), "classic").write("doc", pair("What?", "green", options))
            joint = "\n" if len(options[0]) > 3 else style.joint
            assert any(joint.join(order) in turn.ask for order in (options, options[::-1]))


@pytest.mark.parametrize(("reasoning", "kind"), [(None, "free_form"), ("It is not listed.", "chain_of_thought")])
def test_an_answer_that_is_no_option_stays_and_the_options_are_listed_like_others(
    reasoning: str | None, kind: str
) -> None:
    bank = load_bank()
    for seed in range(200):
        draws = Draws("chain", seed)
        turn = PairWriter(bank, draws, "classic").write("doc:0", pair("Where?", "Bern", OPTIONS, reasoning))
        assert turn.pattern.id.startswith(f"{kind}/")
        style = next(style for style in bank.option_styles if style.id in draws.used)
        for place, option in enumerate(sorted(OPTIONS, key=turn.ask.index)):
            assert style.item.fill({"label": label(style.labels, place), "option": option}) in turn.ask
        assert "Bern" in turn.reply and (reasoning or "") in turn.reply


def test_a_pair_with_an_empty_part_stays_whole() -> None:
    for given in (
        {"instruction": "\nOptions:\n- a\n- b", "response": "a"},
        {"instruction": "Why?\nLet's think step by step.", "response": "So it is.\nTherefore, the answer is "},
    ):
        assert decompose(**given).question == "" or not decompose(**given).final
        kind, parts = presentable(**given)
        assert kind is PairFormat.FREE_FORM
        assert (parts.question, parts.final) == (given["instruction"], given["response"])


@pytest.mark.parametrize("style", load_bank().option_styles, ids=lambda style: style.id)
def test_an_option_of_white_space_is_listed_like_the_others(style: OptionStyle) -> None:
    given = {"instruction": "Which?\nOptions:\n- one\n-  \n- two", "response": "two"}
    bank = replace(load_bank(), option_styles=(style,))
    turn = PairWriter(bank, Draws("chain"), "classic").write("doc", given)
    assert "one" in turn.ask and "two" in turn.ask
