import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.errors import DataError
from udfs.synthesis.formats import compose_answer, compose_question
from udfs.synthesis.pairs import MARKERS, REJECTIONS, build, make_pair, parse

SIDE = st.text(min_size=1).map(str.strip).filter(lambda text: text and not any(marker in text for marker in MARKERS))
LINE = st.text(st.characters(exclude_characters="\n<>"), min_size=1).map(str.strip).filter(bool)


@st.composite
def pair(draw):
    reasoning = draw(st.none() | SIDE)
    instruction = compose_question(
        draw(SIDE), draw(st.none() | st.lists(LINE, min_size=1, max_size=4)), reasoning is not None
    )
    return make_pair(instruction, compose_answer(draw(SIDE), reasoning))


PAIRS = st.lists(pair(), max_size=6)


@given(PAIRS)
def test_parse_is_the_inverse_of_build(pairs):
    parsed = parse(build(pairs))
    assert parsed.pairs == pairs
    assert parsed.rejected == []


@given(st.lists(st.sampled_from([*MARKERS, " ", "\n\n", "a", "b", "{answer}", "</s>"]), max_size=30).map("".join))
def test_every_piece_is_a_pair_or_rejected_with_a_reason(completion):
    parsed = parse(completion)
    tail = completion.rsplit("</END>", 1)[-1].strip()
    assert len(parsed.pairs) + len(parsed.rejected) == completion.count("</END>") + bool(tail)
    assert {piece["reason"] for piece in parsed.rejected} <= set(REJECTIONS)
    assert parse(build(parsed.pairs)).pairs == parsed.pairs


def test_the_published_string():
    pairs = [make_pair("Who?", "Ann"), make_pair("Why?", "{question}")]
    assert build(pairs) == "<QUE> Who? <ANS> Ann </END>\n\n<QUE> Why? <ANS> {question} </END>"


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        ("", "no_question_marker"),
        ("Well, <QUE> q <ANS> a", "no_question_marker"),
        ("<QUE> q", "no_answer_marker"),
        ("<QUE> q <ANS> a <ANS> b", "extra_marker"),
        ("<QUE> q <QUE> r <ANS> a", "extra_marker"),
        ("<QUE> q <CON> <ANS> a", "extra_marker"),
        ("<QUE>  <ANS> a", "empty_question"),
        ("<QUE> q <ANS> ", "empty_answer"),
    ],
)
def test_each_reason(piece, reason):
    parsed = parse(f"<QUE> first question <ANS> a </END>\n\n{piece} </END>")
    assert [one["instruction"] for one in parsed.pairs] == ["first question"]
    assert parsed.rejected == [{"text": piece.strip(), "reason": reason}]


def test_a_check_decides_about_well_formed_pairs_alone_and_sees_those_before():
    seen = []

    def check(pair, earlier):
        seen.append((pair["instruction"], [one["instruction"] for one in earlier]))
        return "unwanted" if pair["response"] == "b" else ""

    parsed = parse("<QUE> q <ANS> a </END> <QUE> r </END> <QUE> s <ANS> b </END> <QUE> t <ANS> c </END>", check)
    assert seen == [("q", []), ("s", ["q"]), ("t", ["q"])]
    assert [one["instruction"] for one in parsed.pairs] == ["q", "t"]
    assert [piece["reason"] for piece in parsed.rejected] == ["no_answer_marker", "unwanted"]


def test_a_completion_cut_off_inside_a_pair():
    parsed = parse("<QUE> q <ANS> a </END>\n\n<QUE> r <ANS> b")
    assert len(parsed.pairs) == 1
    assert parsed.rejected == [{"text": "<QUE> r <ANS> b", "reason": "truncated"}]


@pytest.mark.parametrize("bad", [("", "a"), ("q", " "), ("q </END>", "a"), ("q", "<ANS>")])
def test_what_could_not_be_read_back_is_not_written(bad):
    with pytest.raises(DataError, match="neutralise"):
        build([make_pair(*bad)])
