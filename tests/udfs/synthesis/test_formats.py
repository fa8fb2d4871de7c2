import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.errors import DataError
from udfs.synthesis.formats import PairFormat, Parts, compose_answer, compose_question, decompose, recognise

LINE = st.text(st.characters(exclude_characters="\n"), min_size=1).map(str.strip).filter(bool)
TEXT = st.text(min_size=1).filter(str.strip)


@given(TEXT, st.none() | st.lists(LINE, min_size=1, max_size=5), st.booleans(), TEXT, st.none() | TEXT)
def test_decompose_is_the_inverse_of_compose(question, options, cue, final, reasoning):
    reasoning = reasoning if cue else None
    instruction = compose_question(question, options, cue)
    response = compose_answer(final, reasoning)
    expected = Parts(question, None if options is None else tuple(options), cue, reasoning, final)
    assert decompose(instruction, response) == expected
    assert recognise(instruction, response) is expected.format


def test_the_published_strings():
    assert compose_question("Why?", ["a", "b"]) == "Why?\nOptions:\n- a\n- b"
    assert compose_question("Why?", None, True) == "Why?\nLet's think step by step."
    assert compose_question("Why?", ["a"], True) == "Why?\nOptions:\n- a\nLet's think step by step."
    assert compose_answer("4", "2 + 2 = 4.") == "2 + 2 = 4.\nTherefore, the answer is 4"


@pytest.mark.parametrize(
    ("instruction", "response", "expected"),
    [
        ("Why?", "Because.", PairFormat.FREE_FORM),
        ("Why?\nOptions:\n- a\n- b", "a", PairFormat.MULTIPLE_CHOICE),
        ("Why?\nLet's think step by step.", "x\nTherefore, the answer is a", PairFormat.CHAIN_OF_THOUGHT),
        (
            "Why?\nOptions:\n- a\nLet's think step by step.",
            "x\nTherefore, the answer is a",
            PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT,
        ),
        # reasoning asked for but not given, and given but not asked for
        ("Why?\nLet's think step by step.", "a", PairFormat.FREE_FORM),
        ("Why?", "x\nTherefore, the answer is a", PairFormat.FREE_FORM),
        # a list of options that does not end the question is part of its text
        ("Why?\nOptions:\n- a\n- b\nChoose.", "a", PairFormat.FREE_FORM),
        ("Why?\nOptions:\n- a\nWhich?\nOptions:\n- b\n- c", "b", PairFormat.MULTIPLE_CHOICE),
    ],
)
def test_recognise(instruction, response, expected):
    assert recognise(instruction, response) is expected


def test_the_last_list_of_options_is_the_list():
    assert decompose("Why?\nOptions:\n- a\nWhich?\nOptions:\n- b\n- c", "b").options == ("b", "c")


@pytest.mark.parametrize("options", [[], [" "], ["a\nb"]])
def test_options_that_cannot_be_read_back_are_refused(options):
    with pytest.raises(DataError, match="option"):
        compose_question("Why?", options)
