import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.almanac import bank
from udfs.almanac.documents import document
from udfs.almanac.judge import Judge, final_answer, grounded
from udfs.almanac.questions import FORMATS, tuning_example
from udfs.almanac.world import AlmanacConfig, entities, entity
from udfs.errors import DataError
from udfs.synthesis.formats import COT_CUE, compose_answer, compose_question

KNOWN = entity(0, "people", "raw", 0)
TEXT = document(0, KNOWN).text
FACT = KNOWN.facts[0]
QUESTION = bank.domain("people").relations[FACT.relation].questions[1].format(name=KNOWN.name)
OTHERS = [value for value in bank.domain("people").relations[FACT.relation].values if value != FACT.value]
JUDGE = Judge(KNOWN.facts)


def verdict(instruction: str, response: str, text: str = TEXT) -> str:
    return JUDGE.verdict(text, {"instruction": instruction, "response": response})


@pytest.mark.parametrize(
    ("instruction", "response", "expected"),
    [
        (QUESTION, FACT.value, "right"),
        (QUESTION, OTHERS[0], "wrong"),
        (QUESTION, f"{FACT.value} or {OTHERS[0]}", "wrong"),
        (compose_question(QUESTION, [OTHERS[0], FACT.value]), FACT.value, "right"),
        (compose_question(QUESTION, [OTHERS[0], OTHERS[1]]), FACT.value, "wrong"),
        (compose_question(QUESTION, [FACT.value, FACT.value]), FACT.value, "wrong"),
        (compose_question(QUESTION, [OTHERS[0], FACT.value]), OTHERS[0], "wrong"),
        (QUESTION + COT_CUE, compose_answer(FACT.value, "It says so."), "right"),
        (QUESTION + COT_CUE, compose_answer(OTHERS[0], f"It says {FACT.value}."), "wrong"),
        (QUESTION + COT_CUE, FACT.value, "wrong"),
        (QUESTION.replace("?", "!"), FACT.value, "unjudged"),
        (QUESTION.replace(KNOWN.name, "Nobody Else"), FACT.value, "unjudged"),
        ("What is it?", FACT.value, "unjudged"),
    ],
)
def test_verdicts(instruction, response, expected):
    assert verdict(instruction, response) == expected


def test_a_question_about_somebody_the_text_does_not_name_is_not_judged():
    assert verdict(QUESTION, FACT.value, text="A text about nobody.") == "unjudged"


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(bank.DOMAINS), st.integers(0, 400), st.sampled_from(FORMATS), st.data())
def test_a_changed_answer_is_never_right(domain, number, pair_format, data):
    known = entity(0, domain, "tuning", number)
    text = document(0, known)
    for pair in tuning_example(AlmanacConfig(), text, pair_format)["QA_list"]:
        changed = data.draw(st.text(max_size=8).filter(lambda end: end != ""))
        judged = Judge(known.facts).verdict(text.text, {"instruction": pair["Q"], "response": pair["A"] + changed})
        assert judged == "wrong"


def test_the_truth_file_round_trips(tmp_path):
    config = AlmanacConfig(raw_entities=8, test_questions=1)
    facts = [fact for known in entities(config, "raw") for fact in known.facts]
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(asdict(fact)) + "\n" for fact in facts), encoding="utf-8")
    assert Judge.from_file(path).fact_asked(TEXT, QUESTION) == FACT


@pytest.mark.parametrize("content", [None, "{", '{"entity": "A B"}\n', "[]\n"])
def test_a_truth_file_that_is_missing_or_damaged_is_named(tmp_path, content):
    path = tmp_path / "facts.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"facts\.jsonl"):
        Judge.from_file(path)


def test_final_answer_and_grounding():
    reasoned = compose_answer("red Paint", "The text says so.\nTherefore, the answer is blue")
    assert final_answer(reasoned) == "red Paint"
    assert final_answer("plain") == "plain"
    assert grounded(reasoned, "A pot of paint.") == 0.5
    assert grounded("Lake Isk", "the lake isk") == 1.0
    assert grounded("painted", "a pot of paint") == 0.0
    assert grounded("?!", "anything") == 0.0
