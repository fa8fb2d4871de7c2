import json
from collections import Counter

import pytest

from udfs.errors import DataError
from udfs.text.recast import READERS, RecastOptions
from udfs.text.recast.held_out import OPTIONS, held_out_questions, write_held_out_questions


def example(*answers, context="Some text."):
    pairs = [{"Q": f"What is {number}?", "A": answer} for number, answer in enumerate(answers)]
    return {"kind": "example", "dataset": None, "context": context, "QA_list": pairs}


def test_a_question_has_its_answer_among_others_of_the_same_text():
    answers = ["red", "green", "blue", "Red.", "grey", "white"]
    questions = list(held_out_questions([example(*answers), {"kind": "text"}], "colours"))
    assert len(questions) == len(answers)
    for question, answer in zip(questions, answers, strict=True):
        assert question["options"][question["gold"]] == question["answer"] == answer
        assert len(question["options"]) == len({text.lower().rstrip(".") for text in question["options"]}) == OPTIONS
        assert set(question["options"]) <= set(answers)
    assert len({question["subject"] for question in questions}) == 1
    assert questions[0]["prompt"] == "Question: What is 0?\nAnswer:"


def test_too_few_different_answers_give_no_question():
    assert list(held_out_questions([example("red", "Red", "green", "blue")], "colours")) == []


def test_a_question_asked_twice_is_put_once():
    record = example("red", "green", "blue", "grey")
    record["QA_list"].append(record["QA_list"][0])
    assert len(list(held_out_questions([record], "colours"))) == 4


def test_draws_depend_on_the_question_alone_and_places_are_even():
    records = [example("a", "b", "c", "d", "e", context=f"Text {number}.") for number in range(80)]
    forward = list(held_out_questions(records, "x"))
    assert sorted(forward, key=str) == sorted(held_out_questions(records[::-1], "x"), key=str)
    assert list(held_out_questions(records, "x", seed=1)) != forward
    places = Counter(question["gold"] for question in forward)
    assert all(70 < places[place] < 130 for place in range(OPTIONS))


def test_questions_are_written_as_evaluate_reads_them(tmp_path):
    path = tmp_path / "step" / "questions.jsonl"
    records = [example("a", "b", "c", "d")]
    assert write_held_out_questions(path, records, "x") == 4
    assert [json.loads(line) for line in path.read_text().splitlines()] == list(held_out_questions(records, "x"))
    assert [entry.name for entry in path.parent.iterdir()] == ["questions.jsonl"]
    with pytest.raises(DataError, match="no held-out question"):
        write_held_out_questions(path, [example("a")], "x")


@pytest.mark.real_data
def test_questions_about_unseen_research_articles(real_data):
    path = str(real_data / "covid_qa/covidQA.json")
    questions = list(held_out_questions(READERS["squad"](path, RecastOptions(part=(0.8, 1.0))), "biomedicine"))
    assert len(questions) > 150
    assert len({question["question_id"] for question in questions}) == len(questions)
    seen = READERS["squad"](path, RecastOptions(part=(0.0, 0.8), window=180))
    asked = {f"Question: {pair['Q']}\nAnswer:" for record in seen for pair in record.get("QA_list", ())}
    assert not asked & {question["prompt"] for question in questions}
