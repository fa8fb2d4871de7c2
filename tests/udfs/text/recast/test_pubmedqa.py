from tests.udfs.text.recast.conftest import of_kind
from udfs.synthesis.formats import Parts, decompose
from udfs.text.recast import READERS

RECORD = {
    "QUESTION": "Does humming calm the marsh wren?",
    "CONTEXTS": ["Wrens were hummed at.", "They sat still."],
    "LABELS": ["METHODS", "RESULTS"],
    "LONG_ANSWER": "Humming calmed most wrens.",
    "final_decision": "yes",
}
CONTEXT = "METHODS: Wrens were hummed at.\n\nRESULTS: They sat still."


def test_the_free_form_variant(write):
    records = list(READERS["pubmedqa_no_opt"](write("a.json", {"17": RECORD})))
    assert records == [
        {"kind": "text", "text": CONTEXT, "title": "", "metadata": {"pubmed_id": "17"}},
        {
            "kind": "example",
            "dataset": "PubMedQA_no_opt",
            "context": CONTEXT,
            "QA_list": [{"Q": RECORD["QUESTION"], "A": RECORD["LONG_ANSWER"]}],
        },
    ]


def test_the_variant_with_a_decision_after_reasoning(write):
    records = list(READERS["pubmedqa_yes_opt"](write("a.json", {"17": RECORD})))
    (found,) = of_kind(records, "example")
    assert found["dataset"] == "PubMedQA_yes_opt"
    (pair,) = found["QA_list"]
    expected = Parts(RECORD["QUESTION"], ("yes", "no", "maybe"), True, RECORD["LONG_ANSWER"], "yes")
    assert decompose(pair["Q"], pair["A"]) == expected


def test_sections_without_labels_are_joined_as_they_are(write):
    record = {**RECORD, "LABELS": ["METHODS"]}
    (found,) = of_kind(list(READERS["pubmedqa_no_opt"](write("a.json", {"1": record}))), "text")
    assert found["text"] == "Wrens were hummed at.\n\nThey sat still."


def test_malformed_records_are_refused_and_the_rest_goes_on(write):
    bad = [{**RECORD, "final_decision": "perhaps"}, {**RECORD, "CONTEXTS": []}, {**RECORD, "CONTEXTS": [1]}, 7]
    path = write("a.json", {str(number): record for number, record in enumerate([*bad, RECORD])})
    records = list(READERS["pubmedqa_yes_opt"](path))
    assert len(of_kind(records, "example")) == 1
    assert [found["reason"] for found in of_kind(records, "reject")] == ["invalid_record"] * 4
    assert "'perhaps'" in of_kind(records, "reject")[0]["detail"]
