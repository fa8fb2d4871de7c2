"""Rows of tuning_examples and instructions."""

import json

from udfs.text.sources import TuningSource
from udfs.text.tuning import tuning_rows

PAIR = {"Q": "What?", "A": "That."}


def _rows(tmp_path, records, name="squad/shard/0.jsonl", **settings):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    found = list(tuning_rows(f"file:{path}", [TuningSource(path=str(tmp_path), **settings)]))
    return [row for table, row in found if table != "rejects"], [
        (row["record_id"].rpartition("#")[2], row["reason"]) for table, row in found if table == "rejects"
    ]


def test_example(tmp_path):
    good, bad = _rows(
        tmp_path, [{"context": "A text.", "QA_list": [PAIR, PAIR], "QA_type": "x"}], kind="examples", license="MIT"
    )
    (row,) = good
    assert not bad and len(row.pop("example_id")) == 32
    assert row == {
        "dataset": "squad",
        "context": "A text.",
        "QA_list": [PAIR, PAIR],
        "n_pairs": 2,
        "license": "MIT",
        "uri": f"{tmp_path}/squad/shard/0.jsonl#1",
    }


def test_example_id_tells_examples_apart(tmp_path):
    records = [
        {"context": "A text.", "QA_list": [PAIR]},
        {"context": "A text", "QA_list": [PAIR]},
        {"context": "A text.", "QA_list": [PAIR, PAIR]},
        {"context": "A text.", "QA_list": [{"Q": "What?That.", "A": "."}]},
    ]
    ids = {row["example_id"] for row in _rows(tmp_path, records, kind="examples")[0]}
    ids |= {row["example_id"] for row in _rows(tmp_path, records[:1], kind="examples", name="other/0.jsonl")[0]}
    assert len(ids) == 5


def test_unusable_examples_and_pairs(tmp_path):
    records = [
        {"QA_list": [PAIR]},
        {"context": "  ", "QA_list": [PAIR]},
        {"context": "c", "QA_list": "Q"},
        {"context": "c"},
        {"context": "c", "QA_list": []},
        {"context": "c", "QA_list": [{"Q": "only"}, 3, PAIR, {"Q": "q", "A": " "}]},
        {"context": "c", "QA_list": [{"Q": 1, "A": "x"}]},
    ]
    good, bad = _rows(tmp_path, records, kind="examples")
    assert [row["QA_list"] for row in good] == [[PAIR]] and good[0]["n_pairs"] == 1
    assert bad == [
        ("1", "missing_text"),
        ("2", "missing_text"),
        ("3", "invalid_record"),
        ("4", "invalid_record"),
        ("5", "no_pairs"),
        ("6/QA_list/0", "invalid_record"),
        ("6/QA_list/1", "invalid_record"),
        ("6/QA_list/3", "invalid_record"),
        ("7/QA_list/0", "invalid_record"),
        ("7", "no_pairs"),
    ]


def test_instructions_drop_the_system_prompt(tmp_path):
    records = [
        {"system_prompt": "You are an assistant.", "question": "Why?", "response": "Because."},
        {"question": "Why?", "response": "Because."},
        {"question": "Why?"},
        {"question": "", "response": "x"},
    ]
    good, bad = _rows(tmp_path, records, name="orca/0.jsonl", kind="instructions")
    assert good[0]["instruction_id"] == good[1]["instruction_id"] and good[0]["source"] == "orca"
    assert set(good[0]) == {"instruction_id", "source", "question", "response", "license", "uri"}
    assert bad == [("3", "invalid_record"), ("4", "invalid_record")]


def test_published_set_names_its_dataset_unless_the_source_does(tmp_path):
    record = {"QUESTION": "Does it?", "CONTEXTS": ["It does."], "LONG_ANSWER": "It does.", "final_decision": "yes"}
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps({"1": record}), encoding="utf-8")
    for name, expected in ((None, "PubMedQA_no_opt"), ("mine", "mine")):
        source = TuningSource(path=str(path), kind="examples", format="pubmedqa_no_opt", name=name)
        ((table, row),) = tuning_rows(str(path), [source])
        assert table == "tuning_examples" and row["dataset"] == expected


def test_instructions_in_the_shapes_of_the_published_sets(tmp_path):
    records = [
        {"id": "niv.1", "system_prompt": "Be brief.", "question": "Why?", "response": "Because."},
        {"conversations": ["How?", "Like this."], "source": "stackexchange"},
        {"idx": "x", "conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "She."}]},
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "One"},
                {"from": "gpt", "value": "two"},
                {"from": "human", "value": "three"},
                {"from": "gpt", "value": "four."},
            ]
        },
    ]
    good, bad = _rows(tmp_path, records, kind="instructions", name="orca/0.jsonl")
    found = [(row["question"], row["response"]) for row in good]
    assert not bad
    assert found == [("Why?", "Because."), ("How?", "Like this."), ("Who?", "She."), ("One two three", "four.")]


def test_conversations_that_are_none(tmp_path):
    wrong = [
        ["Only a question?"],
        ["a", "b", "c"],
        "a",
        [],
        [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": " "}],
        ["a", {"from": "gpt", "value": "b"}],
        [{"from": "human"}, {"from": "gpt", "value": "b"}],
    ]
    good, bad = _rows(tmp_path, [{"conversations": turns} for turns in wrong], kind="instructions", name="lima/0.jsonl")
    assert good == [] and [reason for _, reason in bad] == ["invalid_record"] * len(wrong)


def test_conversation(tmp_path):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    records = [
        {"dataset": "lima", "id": "lima_0", "messages": turns},
        {"prompt": "2 + 2 =", "completion": "4"},
        {"dataset": "lima", "id": 7, "messages": [{"role": "system", "content": "Brief."}, *turns]},
    ]
    good, bad = _rows(tmp_path, records, kind="conversations", license="MIT")
    assert not bad and len({row.pop("conversation_id") for row in good}) == 3
    assert good[0] == {
        "dataset": "lima",
        "record": "lima_0",
        "messages": turns,
        "license": "MIT",
        "uri": f"{tmp_path}/squad/shard/0.jsonl#1",
    }
    assert (good[1]["dataset"], good[1]["record"]) == ("squad", None)
    assert good[1]["messages"] == [{"role": "prompt", "content": "2 + 2 ="}, {"role": "completion", "content": "4"}]
    assert good[2]["record"] == "7" and len(good[2]["messages"]) == 3


def test_unusable_conversations(tmp_path):
    turn = {"role": "user", "content": "Why?"}
    records = [
        {"messages": [turn]},
        {"messages": []},
        {"messages": "Why?"},
        {"messages": [turn, {"role": "bot", "content": "Because."}]},
        {"messages": [turn, {"role": "assistant", "content": " "}]},
        {"prompt": "Why?"},
        {"prompt": "Why?", "completion": None},
    ]
    good, bad = _rows(tmp_path, records, kind="conversations")
    assert not good and bad == [(str(number), "invalid_record") for number in range(1, 8)]
