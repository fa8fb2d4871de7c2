import json

from udfs.text.recast import READERS


def test_every_instance_is_an_instruction(write):
    tasks = [
        {"instruction": "Name the bird.", "instances": [{"input": "It hums.", "output": "A wren."}]},
        {"instruction": "Sing.", "instances": [{"input": "", "output": "La."}, {"output": "Lo."}]},
    ]
    assert list(READERS["seed_tasks"](write("a.jsonl", "\n".join(map(json.dumps, tasks))))) == [
        {"kind": "instruction", "question": "Name the bird.\nIt hums.", "response": "A wren."},
        {"kind": "instruction", "question": "Sing.", "response": "La."},
        {"kind": "instruction", "question": "Sing.", "response": "Lo."},
    ]


def test_a_bad_instance_and_a_bad_line_are_refused(write):
    instances = [{"output": " "}, "x", {"input": 5, "output": "Lu."}, {"output": "Ly."}]
    lines = [json.dumps({"instruction": "Sing.", "instances": instances}), "{", json.dumps({"instances": []})]
    records = list(READERS["seed_tasks"](write("a.jsonl", "\n".join(lines))))
    assert [record["kind"] for record in records] == ["reject"] * 3 + ["instruction"] + ["reject"] * 2
