"""Texts and examples as files, read back by the library that others read them with and by our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.export import RECORD, ExportConfig
from jobs.lakehouse.lakehouse import Lakehouse
from tests.jobs.test_shard import RunVerb, document, example, fill, text_of
from udfs.config import build
from udfs.errors import ConfigError, DataError
from udfs.shards.format import checksum
from udfs.text.readers import Record, read_records


def load(kind: str, files: list[Path], cache: Path) -> list[dict[str, Any]]:
    from datasets import load_dataset

    names = [str(file) for file in files]
    return list(load_dataset(kind, data_files=names, split="train", cache_dir=str(cache)))


def test_texts_in_both_formats(lakehouse: Lakehouse, spark: Any, run_verb: RunVerb, tmp_path: Path) -> None:
    fill(lakehouse, spark, "documents", [document(number) for number in range(40)])
    texts = sorted(text_of(number) for number in range(40) if number % 4)
    settings = {"table": "documents", "filter": {"arm": ["raw"]}, "files": 3}
    assert run_verb("export", settings, step="export-raw")["rows"] == 30
    folder = lakehouse.path("exports", "export-raw")
    files = sorted(folder.rglob("*.txt"))
    assert [str(file.relative_to(folder)) for file in files] == [f"part-0/shard/0000{n}.txt" for n in range(3)]
    assert sorted(row["text"] for row in load("json", files, tmp_path)) == texts
    ours = [item for file in files for item in read_records(str(file))]
    assert sorted(item.fields["text"] for item in ours if isinstance(item, Record)) == texts

    record = json.loads((folder / RECORD).read_text())
    assert record["source"]["table_id"] == lakehouse.identity("documents")
    assert {content["source"]: content["licenses"] for content in record["contents"]} == {
        "rivers": ["unknown"],
        "towns": ["CC0-1.0"],
    }
    assert all(checksum(folder / file["path"]) == file["sha256"] for file in record["files"])
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {RECORD, *(file.name for file in files)}

    assert run_verb("export", settings, step="export-raw")["unchanged"] == 1.0
    run_verb("export", {**settings, "format": "parquet"}, step="export-raw")
    assert not list(folder.rglob("*.txt"))
    assert sorted(row["text"] for row in load("parquet", sorted(folder.rglob("*.parquet")), tmp_path)) == texts

    lakehouse.path("exports", "mine").mkdir()
    with pytest.raises(DataError, match="holds no export"):
        run_verb("export", {**settings, "output": "exports/mine"}, step="export-raw")


def test_examples_in_the_layout_of_the_collection(
    lakehouse: Lakehouse, spark: Any, run_verb: RunVerb, tmp_path: Path
) -> None:
    fill(lakehouse, spark, "tuning_examples", [example(number) for number in range(6)])
    run_verb("export", {"table": "tuning_examples"}, step="export-examples")
    folder = lakehouse.path("exports", "export-examples")
    expected = {
        name: sorted(
            (entry["context"], entry["QA_list"]) for entry in map(example, range(6)) if entry["dataset"] == name
        )
        for name in ("squad", "race")
    }
    for name, entries in expected.items():
        rows = load("json", [folder / name / "shard" / "00000.jsonl"], tmp_path)
        assert sorted((row["context"], row["QA_list"]) for row in rows) == entries
    source = {"path": str(folder), "kind": "examples", "glob": "*.jsonl"}
    counts = run_verb("collect", {"sources": [source]})
    assert counts["tuning_examples"] == 6


def test_a_filter_of_a_column_that_the_table_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"filter.dataset: documents has no such column"):
        build(ExportConfig, {"table": "documents", "filter": {"dataset": ["squad"]}}, "export")


def test_a_value_of_a_filter_that_takes_nothing_is_said(
    lakehouse: Lakehouse, spark: Any, run_verb: RunVerb, caplog: pytest.LogCaptureFixture
) -> None:
    fill(lakehouse, spark, "tuning_examples", [example(number) for number in range(6)])
    with caplog.at_level("INFO", "ipt"):
        run_verb("export", {"table": "tuning_examples", "filter": {"dataset": ["squad", "sqaud"]}})
    assert "export: filter.dataset: no text of tuning_examples has sqaud" in caplog.messages
