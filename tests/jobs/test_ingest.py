"""Files into raw_documents, through the stage runner."""

import gzip
import json
import os
from collections import Counter

import pytest

from udfs.config import build
from udfs.errors import ConfigError
from udfs.hashing import identifier


def _lines(path, texts, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps({"text": text, **fields}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _rows(lakehouse, table):
    return [row.asDict() for row in lakehouse.read(table).collect()]


def test_folders_formats_and_broken_files(lakehouse, run_verb):
    raw = lakehouse.path("raw")
    _lines(raw / "news" / "shard" / "00000.jsonl", ["one", "two", "one"], title="T")
    _lines(raw / "news" / "shard" / "00001.jsonl.gz", [f"packed {n}" for n in range(5)])
    (raw / "broken.jsonl").write_bytes(
        b'{"text": "three"}\nno json\n{"text": "\xff"}\n{"body": "x"}\n{"text": "\\ud800"}\n'
    )
    cut = lakehouse.path("other", "cut.jsonl.gz")
    _lines(cut, [f"{n} {identifier(n)}" for n in range(5000)])
    cut.write_bytes(cut.read_bytes()[:-50_000])
    settings = {
        "sources": [
            {"path": "raw", "license": "MIT"},
            {"path": "other", "name": "mine", "domain": "law"},
        ],
        "files_per_batch": 2,
    }
    counts = run_verb("ingest", settings)
    rows = {row["text"]: row for row in _rows(lakehouse, "raw_documents")}
    assert {"one", "two", "three", "packed 4"} <= rows.keys()
    assert rows["two"]["doc_id"] == identifier("two")
    assert rows["two"]["source"] == rows["two"]["domain"] == "news" and rows["two"]["license"] == "MIT"
    assert rows["two"]["metadata"] == {"title": "T"}
    assert rows["two"]["uri"] == f"{raw}/news/shard/00000.jsonl#2"
    mine = [row for row in rows.values() if row["source"] == "mine"]
    assert 100 < len(mine) < 5000 and {row["domain"] for row in mine} == {"law"}
    reasons = Counter(row["reason"] for row in _rows(lakehouse, "rejects"))
    assert reasons == {
        "duplicate": 1,
        "invalid_json": 1,
        "invalid_encoding": 2,
        "missing_text": 1,
        "unreadable_file": 1,
    }
    assert counts["raw_documents"] == len(rows) and counts["micro_batches"] == 2

    # The same command again does nothing; the same content under another name adds nothing; a new source is read.
    assert run_verb("ingest", settings) == {}
    _lines(raw / "copy.jsonl", ["one", "two"])
    lakehouse.path("third").mkdir()
    lakehouse.path("third", "a.txt").write_text("a new source", encoding="utf-8")
    settings["sources"].append({"path": "third", "name": "third"})
    counts = run_verb("ingest", settings)
    assert counts["raw_documents"] == 1 and counts["rejects/duplicate"] == 2
    assert {row["text"] for row in _rows(lakehouse, "raw_documents")} == rows.keys() | {"a new source"}


def test_a_file_is_read_whenever_a_source_has_come_to_take_it(lakehouse, run_verb):
    """One that was there before but was not asked for, and one that came with a time of long ago."""
    _lines(lakehouse.path("raw", "a.jsonl"), ["one"])
    _lines(lakehouse.path("raw", "a[1].json"), ["two"])
    assert run_verb("ingest", {"sources": [{"path": "raw", "glob": "*.jsonl"}]})["raw_documents"] == 1
    assert run_verb("ingest", {"sources": [{"path": "raw", "glob": "a[[]1].json*"}]})["raw_documents"] == 1
    old = lakehouse.path("raw", "old.jsonl")
    _lines(old, ["three"])
    os.utime(old, (10**9, 10**9))
    assert run_verb("ingest", {"sources": [{"path": "raw"}]}) == {"micro_batches": 1, "raw_documents": 1}


def test_settings_are_checked():
    from jobs.ingest import IngestConfig

    for wrong in ({"sources": []}, {"sources": [{"path": "x"}], "table": {"path": "y", "name": "z"}}):
        with pytest.raises(ConfigError, match="give either `sources`"):
            build(IngestConfig, wrong, "steps.ingest")
    for table in ("texts", "a.b.c.d", "a.b; drop", "a.`b`"):
        with pytest.raises(ConfigError, match="must be `catalog"):
            build(IngestConfig, {"table": {"table": table, "name": "z"}}, "steps.ingest")
    with pytest.raises(ConfigError, match="Did you mean 'license'"):
        build(IngestConfig, {"sources": [{"path": "x", "licence": "MIT"}]}, "steps.ingest")


def test_missing_folder_is_a_configuration_error(run_verb):
    with pytest.raises(ConfigError, match="there is nothing at"):
        run_verb("ingest", {"sources": [{"path": "nowhere"}]})


def test_a_delta_table_by_its_folder_and_by_its_name(lakehouse, run_verb, spark):
    folder = str(lakehouse.path("theirs"))
    rows = [(1, "one", 3.5), (2, "two", None), (3, None, 1.0), (4, "one", 2.0)]
    spark.createDataFrame(rows, "id long, body string, score double").write.format("delta").save(folder)
    source = {"name": "theirs", "text_field": "body", "id_field": "id", "license": "MIT"}
    counts = run_verb("ingest", {"table": {"path": "theirs", **source}})
    found = {row["text"]: row for row in _rows(lakehouse, "raw_documents")}
    assert found.keys() == {"one", "two"}
    assert found["two"]["uri"] == "theirs#2" and found["two"]["metadata"] == {"id": "2"}
    assert found["two"]["source"] == "theirs" and found["two"]["license"] == "MIT"
    assert counts["rejects/missing_text"] == 1 and counts["rejects/duplicate"] == 1

    # Rows that come later are read by the next run, and only those.
    spark.createDataFrame([(5, "five", 0.0)], "id long, body string, score double").write.format("delta").mode(
        "append"
    ).save(folder)
    assert run_verb("ingest", {"table": {"path": "theirs", **source}})["raw_documents"] == 1

    spark.sql(f"CREATE TABLE default.their_texts USING delta LOCATION '{folder}'")
    try:
        counts = run_verb("ingest", {"table": {"table": "default.their_texts", **source}}, step="by-name")
    finally:
        spark.sql("DROP TABLE default.their_texts")
    assert counts["rejects/duplicate"] == 4 and "raw_documents" not in counts
