"""Question-answering sets and instructions into their tables."""

import json
from collections import Counter

import pytest

from jobs.collect import VERB
from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.sharding.texts import RowFilter, chosen_rows, with_most_pairs
from udfs.config import build
from udfs.errors import ConfigError
from udfs.text.collection import DATASETS


def _lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _rows(lakehouse, table):
    return [row.asDict(recursive=True) for row in lakehouse.read(table).collect()]


def test_both_kinds_and_a_published_set(lakehouse, run_verb):
    pair = {"Q": "What is it?", "A": "A thing."}
    _lines(lakehouse.path("qa/squad/shard/0.jsonl"), [{"context": "It is.", "QA_list": [pair]}] * 2)
    _lines(
        lakehouse.path("qa/boolq/shard/0.jsonl"),
        [{"context": "It is.", "QA_list": [pair]}, {"context": "c", "QA_list": []}],
    )
    asked = {"system_prompt": "Be brief.", "question": "Why?", "response": "Because."}
    _lines(lakehouse.path("general/0.jsonl"), [asked, {"question": "Why?", "response": "Because."}, {"question": "x"}])
    record = {"QUESTION": "Does it?", "CONTEXTS": ["It does."], "LONG_ANSWER": "It does.", "final_decision": "yes"}
    lakehouse.path("ori_pqal.json").write_text(json.dumps({"7": record}), encoding="utf-8")
    settings = {
        "sources": [
            {"path": "qa", "kind": "examples", "license": "MIT"},
            {"path": "general", "kind": "instructions", "name": "orca"},
            {"path": "ori_pqal.json", "kind": "examples", "format": "pubmedqa_no_opt"},
            {"path": "ori_pqal.json", "kind": "examples", "format": "pubmedqa_yes_opt"},
        ]
    }
    counts = run_verb("collect", settings)
    examples = {row["dataset"]: row for row in _rows(lakehouse, "tuning_examples")}
    assert examples.keys() == {"squad", "boolq", "PubMedQA_no_opt", "PubMedQA_yes_opt"}
    assert examples["squad"]["QA_list"] == [pair] and examples["squad"]["n_pairs"] == 1
    assert examples["squad"]["license"] == "MIT" and examples["PubMedQA_no_opt"]["license"] is None
    (row,) = _rows(lakehouse, "instructions")
    assert (row["source"], row["question"], row["response"]) == ("orca", "Why?", "Because.")
    reasons = Counter(row["reason"] for row in _rows(lakehouse, "rejects"))
    assert reasons == {"duplicate": 2, "no_pairs": 1, "invalid_record": 1}
    assert counts["tuning_examples"] == 4 and counts["instructions"] == 1
    assert run_verb("collect", settings) == {}


def test_the_collection_is_checked_before_spark_starts(tmp_path):
    for name in DATASETS:
        (tmp_path / "collection" / name / "shard").mkdir(parents=True)
    config = build(
        VERB.config, {"sources": [{"path": "collection", "kind": "examples", "collection": True}]}, "collect"
    )
    job = Job(Lakehouse(LakehouseConfig(root=str(tmp_path)), None), "collect", config, None)
    VERB.check(config, job)
    (tmp_path / "collection" / "Quac").rename(tmp_path / "collection" / "WikiTableQuestionsQuac")
    with pytest.raises(
        ConfigError, match="missing: Quac; not of the collection: 'WikiTableQuestionsQuac' is two names"
    ):
        VERB.check(config, job)


def test_the_collection_is_read_and_its_sets_can_be_capped(lakehouse, run_verb):
    pair = {"Q": "What is it?", "A": "A thing."}
    for name in DATASETS:
        many = 12 if name == "squad" else 1
        records = [{"context": f"{name} {n}.", "QA_list": [pair] * (1 + n % 6)} for n in range(many)]
        _lines(lakehouse.path(f"collection/{name}/shard/00000.jsonl"), records)
    source = {"path": "collection", "kind": "examples", "collection": True}
    assert run_verb("collect", {"sources": [{**source, "datasets": ["squad"]}]})["tuning_examples"] == 12
    # The others, when they are asked for.
    assert run_verb("collect", {"sources": [source]})["tuning_examples"] == 34
    assert {row["dataset"] for row in _rows(lakehouse, "tuning_examples")} == set(DATASETS)

    rows = chosen_rows(lakehouse, "tuning_examples", lakehouse.version("tuning_examples"), RowFilter())
    kept = with_most_pairs(rows, 5).collect()
    assert sorted(row["n_pairs"] for row in kept if row["dataset"] == "squad") == [4, 5, 5, 6, 6]
    assert len(kept) == 34 + 5
    again = with_most_pairs(rows.repartition(7), 5).collect()
    assert {row["example_id"] for row in again} == {row["example_id"] for row in kept}
