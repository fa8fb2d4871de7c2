"""``reparse`` on a real table: what changes, what stays, and that each version can still be read."""

import json

import pytest

from jobs.lakehouse.tables import ENGINE, PROVENANCE, SYNTHESES
from tests.udfs.templates.chains import row
from udfs.errors import ConfigError
from udfs.synthesis.checks import CheckSettings, read_pairs

COMPLETION = (
    "<QUE> Where is the ferry? <ANS> In the harbour </END>\n\n<QUE> Who is the captain? <ANS> unknown </END>\n\n"
    "<QUE> where is the ferry <ANS> At sea </END>\n\n<QUE> And wh"
)
TEXT = "The ferry is in the harbour and the captain has gone ashore with the sailors."


def synthesis(number: int, completion: str = COMPLETION, status: str | None = None) -> dict:
    read = read_pairs(completion, TEXT, CheckSettings())
    return {
        **row(number, []),
        "chunk": 0,
        "context": TEXT,
        "chain_length": 9,
        "sample": 0,
        "carried": [],
        "status": status or ("ok" if read.pairs else "no_pairs"),
        "finish_reason": "length",
        "n_prompt_tokens": 10,
        "n_cached_tokens": 0,
        "n_completion_tokens": 5,
        "pairs": read.pairs,
        "rejected_pairs": read.rejected,
        "engine": dict.fromkeys(ENGINE.fieldNames()),
        "completion": completion,
    }


@pytest.fixture
def table(spark, lakehouse):
    from pyspark.sql import functions as F

    rows = [
        synthesis(0),
        synthesis(1, status="truncated_context"),
        synthesis(2, "nothing"),
        synthesis(3, "<QUE> Who? <ANS> unknown </END>"),
    ]
    frame = spark.createDataFrame(rows, SYNTHESES.schema)
    for column in PROVENANCE:
        frame = frame.withColumn(column.name, F.current_timestamp() if column.name == "written_at" else F.lit("first"))
    lakehouse.append(frame, "syntheses", "test", 0)
    return lambda version=None: {
        one["round"]: one.asDict(recursive=True) for one in lakehouse.read("syntheses", version).collect()
    }


def test_other_checks_give_a_new_version(lakehouse, run_verb, table):
    version, before = lakehouse.version("syntheses"), table()
    counts = run_verb("reparse", {"checks": {"unanswerable": False}}, step="again")
    assert counts == {"syntheses": 4, "contaminated": 0, "changed": 3, "pairs_before": 2, "pairs_after": 5}
    after = table()
    assert [pair["response"] for pair in after[0]["pairs"]] == ["In the harbour", "unknown"]
    assert [piece["reason"] for piece in after[0]["rejected_pairs"]] == ["repeated_question", "truncated"]
    assert [after[number]["status"] for number in range(4)] == ["ok", "truncated_context", "no_pairs", "ok"]
    assert [after[number]["step"] for number in range(4)] == ["again", "again", "first", "again"]
    kept = ("context", "completion", "n_prompt_tokens", "chain_id", "carried", "written_at")
    assert all(after[number][name] == before[number][name] for number in range(4) for name in kept)
    assert lakehouse.version("syntheses") == version + 1
    assert table(version) == before

    # The same once more finds nothing to do, and the way back is open.
    assert run_verb("reparse", {"checks": {"unanswerable": False}}, step="again")["changed"] == 0
    assert lakehouse.version("syntheses") == version + 1
    run_verb("reparse", {}, step="back")
    same = ("pairs", "rejected_pairs", "status")
    assert all(table()[number][name] == before[number][name] for number in range(4) for name in same)


def test_pairs_of_evaluation_sets_are_taken_out(lakehouse, run_verb, table):
    path = lakehouse.path("test.jsonl")
    path.write_text(json.dumps({"prompt": "So where is the ferry in the harbour?", "gold": 1}) + "\n", encoding="utf-8")
    settings = {"evaluation_sets": ["test.jsonl"], "evaluation_words": 6}
    assert table()[0]["pairs"]
    counts = run_verb("reparse", settings)
    assert (counts["contaminated"], counts["pairs_before"], counts["pairs_after"]) == (2, 2, 0)
    after = table()
    assert after[0]["rejected_pairs"][-1]["reason"] == "contaminated" and after[0]["status"] == "no_pairs"
    rejects = lakehouse.read("rejects").orderBy("record_id").collect()
    assert [(one["stage"], one["reason"]) for one in rejects] == [("reparse", "contaminated")] * 2
    assert rejects[0]["record_id"] == f"{after[0]['doc_id']}:0"
    assert rejects[0]["detail"] == 'shares "where is the ferry in the" with test.jsonl:1'
    run_verb("reparse", settings)
    assert lakehouse.read("rejects").count() == 2
    with pytest.raises(ConfigError, match=r"none\.jsonl"):
        run_verb("reparse", {"evaluation_sets": ["none.jsonl"]})


def test_nothing_to_read(lakehouse, run_verb):
    assert run_verb("reparse", {})["syntheses"] == 0
