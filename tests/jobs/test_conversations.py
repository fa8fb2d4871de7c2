"""Chat data in the shapes of the seven Instruction Modelling sets: files to table, shards, both trainings, losses."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.tiny_model import write_tiny_model
from trainer.loss_analysis import main as analyse

TOWNS = ("Elm", "Tarn", "Veld", "Marsgate")


def _turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _sets() -> dict[str, list[dict[str, Any]]]:
    """Invented records in the shape of each of the seven sets."""
    sets: dict[str, list[dict[str, Any]]] = {}
    # The Alpagasus subsets: one turn each, with the wording of a template around the instruction.
    for name, prefix in (
        ("alpagasus_claude_t45_alpaca", "alpagasus"),
        ("alpagasus_3k_dolly", "alpagasus_3k"),
        ("alpagasus_9k_dolly", "alpagasus_9k"),
    ):
        sets[name] = [
            {
                "dataset": name,
                "id": f"{prefix}_{number}",
                "messages": _turns(f"Task: where is {town}?\n\nAnswer:", f"\n{town} lies by the sea."),
            }
            for number, town in enumerate(TOWNS)
        ]
    # The LESS selections: records of other sets under their own names, long instructions and short outputs.
    for name, answer in (("less_mmlu_chat", "B"), ("less_tydiqa", "by the sea"), ("less_bbh_icl", "So it is (A).")):
        sets[name] = [
            {
                "dataset": ("flan_v2", "cot", "dolly", "oasst1")[number],
                "id": f"{name}_{number}",
                "messages": _turns(f"{town} lies by the sea. " * 6 + f"Which is right of {town}?", answer),
            }
            for number, town in enumerate(TOWNS)
        ]
    # LIMA: several turns in some records.
    sets["lima"] = [
        {
            "dataset": "lima",
            "id": f"lima_{number}",
            "messages": _turns(f"Tell me of {town}.", f"{town} is old.", "And now?", "It sleeps.", system="Be kind.")
            if number % 2
            else _turns(f"Tell me of {town}.", f"{town} is old."),
        }
        for number, town in enumerate(TOWNS)
    ]
    return sets


def test_from_files_to_both_trainings(lakehouse, run_verb, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = lakehouse.path("chat")
    folder.mkdir(parents=True)
    for name, records in _sets().items():
        lines = "\n".join(map(json.dumps, records))
        # JSON as well as JSON lines.
        text = json.dumps(records) if name == "less_tydiqa" else lines
        (folder / f"{name}.{'json' if name == 'less_tydiqa' else 'jsonl'}").write_text(text, encoding="utf-8")
    pairs = [{"prompt": f"Where is {town}?", "completion": "By the sea."} for town in TOWNS]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, [*pairs, {"prompt": "?"}])), encoding="utf-8")
    sources = [{"path": "chat", "kind": "conversations", "name": "pairs", "glob": "pairs.jsonl"}]
    sources += [{"path": "chat", "kind": "conversations", "glob": glob} for glob in ("al*", "le*", "lima*")]
    counts = run_verb("collect", {"sources": sources})
    assert counts["conversations"] == 8 * 4 and counts["rejects"] == 1
    rows = {row["conversation_id"]: row for row in lakehouse.read("conversations").collect()}
    assert {row["dataset"] for row in rows.values()} >= {"lima", "flan_v2", "alpagasus_9k_dolly", "pairs"}

    texts = [turn["content"] for row in rows.values() for turn in row["messages"]]
    base = write_tiny_model(lakehouse.path("base"), texts)
    settings = {"table": "conversations", "roles": True, "sequence_length": 192, "tokenizer": "base"}
    counts = run_verb("shard", settings, step="shard-chat")
    assert counts["documents"] == 32 and not counts["rejects"]

    small = {
        "data": {"sequence_length": None},
        "batch": {"sequences": 4, "micro_batch": 4},
        "duration": {"steps": 2, "epochs": None},
        "precision": "fp32",
        "deepspeed": "zero1",
    }
    learned = {}
    for kind in ("it", "im"):
        training = {"training": f"instruction-tuning-{kind}", "sources": {"chat": 1.0}, "init_from": str(base)}
        run_verb("train", {**training, "tokenizer": "base", "set": small}, step=kind)
        history = lakehouse.path("models", kind, "history.jsonl").read_text().splitlines()
        learned[kind] = json.loads(history[-1])
    assert "loss/role/response" in learned["it"] and "loss/role/instruction" not in learned["it"]
    assert {"loss/role/response", "loss/role/instruction"} <= learned["im"].keys()
    assert "loss/role/template" not in learned["im"]

    models = [part for kind in ("it", "im") for part in ("--model", str(lakehouse.path("models", kind, "model")))]
    names = ["--name", "it", "--name", "im"]
    chat = ["--set", f"train={lakehouse.path('shards', 'chat')}", "--output", str(tmp_path / "losses")]
    assert analyse([*models, *names, *chat]) == 0
    losses = pq.read_table(tmp_path / "losses" / "losses.parquet").to_pylist()
    # Every loss is that of a row of the table, which names the record it was.
    assert len(losses) == 64 and {row["example_id"] for row in losses} == rows.keys()
    assert {rows[row["example_id"]]["record"] for row in losses} >= {"lima_1", "less_bbh_icl_3", "alpagasus_0"}
