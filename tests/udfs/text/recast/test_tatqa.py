import pytest

from tests.udfs.text.recast.conftest import of_kind
from udfs.synthesis.formats import Parts, decompose
from udfs.text.recast import READERS


def question(asked, answer, scale="", derivation=""):
    return {"question": asked, "answer": answer, "scale": scale, "derivation": derivation}


def excerpt(*questions):
    return {
        "table": {"uid": "t1", "table": [["", "2031", "2030"], ["", "", ""], ["Bell\nsales", "$ 12", "9"]]},
        "paragraphs": [{"order": 2, "text": "Sales rose."}, {"order": 1, "text": "The foundry sells bells."}],
        "questions": list(questions),
    }


def pairs(write, *questions):
    (found,) = of_kind(list(READERS["tatqa"](write("a.json", [excerpt(*questions)]))), "example")
    return [decompose(pair["Q"], pair["A"]) for pair in found["QA_list"]]


def test_table_and_paragraphs_make_the_context(write):
    records = list(READERS["tatqa"](write("a.json", [excerpt(question("What is sold?", ["bells"]))])))
    context = "| 2031 | 2030\nBell sales | $ 12 | 9\n\nThe foundry sells bells.\n\nSales rose."
    assert [record["kind"] for record in records] == ["text", "example"]
    assert records[0]["text"] == records[1]["context"] == context
    assert records[0]["metadata"] == {"uid": "t1"}


@pytest.mark.parametrize(
    ("asked", "final", "reasoning"),
    [
        (question("Q?", ["12", "", "9"], "million"), "12 million; 9 million", None),
        (question("Q?", -22.22, "percent", "(9-12)/9"), "-22.22%", "(9-12)/9"),
        (question("Q?", ["4%"], "percent"), "4%", None),
        (question("Q?", "2", "", "bells##ropes"), "2", "bells; ropes"),
        (question("Q?", 0), "0", None),
    ],
)
def test_answers_carry_their_scale_and_derivations_are_reasoning(write, asked, final, reasoning):
    assert pairs(write, asked) == [Parts("Q?", None, reasoning is not None, reasoning, final)]


def test_one_bad_question_costs_one_question(write):
    bad = [question("Q?", []), question("Q?", None), question("", "x"), question("Q?", "x", "dozen"), 3]
    records = list(READERS["tatqa"](write("a.json", [excerpt(*bad, question("Q?", "x")), {"table": 1}])))
    assert [len(found["QA_list"]) for found in of_kind(records, "example")] == [1]
    assert len(of_kind(records, "reject")) == 6
