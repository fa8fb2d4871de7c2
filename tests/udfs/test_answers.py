import pytest

from udfs.answers import normalise_answer


@pytest.mark.parametrize(
    ("left", "right"),
    [("The Old Harbour.", "old harbour"), (" 1,204 ", "1204"), ("ﬁve", "five"), ("An  apple\ta day", "apple day")],
)
def test_surface_differences_do_not_count(left: str, right: str) -> None:
    assert normalise_answer(left) == normalise_answer(right)


@pytest.mark.parametrize("answer", ["A", "the", "+", "a/an"])
def test_an_answer_of_articles_or_marks_alone_is_not_the_same_as_none(answer: str) -> None:
    assert normalise_answer(answer) != normalise_answer("")
    assert normalise_answer(answer) != normalise_answer("an")
    assert normalise_answer(f" {answer.upper()} ") == normalise_answer(answer)


def test_different_answers_stay_different() -> None:
    assert normalise_answer("Anders") != normalise_answer("ders")
    assert normalise_answer("theatre") == "theatre"
