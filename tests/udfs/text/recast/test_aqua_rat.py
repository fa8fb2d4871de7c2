import json

from tests.udfs.text.recast.conftest import of_kind
from udfs.synthesis.formats import Parts, decompose
from udfs.text.recast import READERS

RECORD = {
    "question": "Six boats carry four bells each. How many bells?",
    "options": ["A)10", "B) 24", "C)(ten)", "D)None of these", "E)6"],
    "rationale": "6 * 4 = 24\nAnswer B",
    "correct": "B",
}


def test_a_problem_is_multiple_choice_with_its_rationale(write):
    (found,) = READERS["aqua_rat"](write("a.json", json.dumps(RECORD)))
    assert (found["kind"], found["dataset"], found["context"]) == ("example", "AQUA_RAT_yes_opt", RECORD["question"])
    (pair,) = found["QA_list"]
    options = ("10", "24", "(ten)", "None of these", "6")
    assert decompose(pair["Q"], pair["A"]) == Parts(RECORD["question"], options, True, RECORD["rationale"], "24")


def test_malformed_lines_are_refused_and_the_rest_goes_on(write):
    bad = [
        {**RECORD, "correct": "F"},
        {**RECORD, "options": ["ten"]},
        {**RECORD, "options": ["A)1", "A)2"], "correct": "A"},
        {**RECORD, "options": [None]},
        {**RECORD, "rationale": " "},
        [1],
    ]
    text = "\n".join([*map(json.dumps, bad), "{", json.dumps(RECORD)])
    records = list(READERS["aqua_rat"](write("a.json", text.encode() + b"\n\xff\n")))
    assert len(of_kind(records, "example")) == 1
    reasons = [found["reason"] for found in of_kind(records, "reject")]
    assert reasons == [*["invalid_record"] * 6, "invalid_json", "invalid_encoding"]
