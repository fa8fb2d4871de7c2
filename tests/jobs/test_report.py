import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.report import ReportConfig
from jobs.reporting.collect import collect, read_curve
from udfs.errors import ConfigError

RunVerb = Callable[..., dict[str, float]]
CHECK = "<b>bold</b> claim"


def _append(lakehouse: Lakehouse, table: str, rows: Iterable[dict[str, Any]], version: int, step: str) -> None:
    from pyspark.sql import functions as F

    from jobs.lakehouse.tables import TABLES

    frame = lakehouse._session().createDataFrame(list(rows), TABLES[table].schema)
    for name, value in (("step", step), ("config_hash", "c"), ("run_id", f"run{version}")):
        frame = frame.withColumn(name, F.lit(value))
    lakehouse.append(frame.withColumn("written_at", F.current_timestamp()), table, f"{step}-{table}", version)


def _columns(table: str) -> list[str]:
    from jobs.lakehouse.tables import TABLES

    return TABLES[table].schema.fieldNames()


def _synthesis(number: int, pairs: int, rejected: int) -> dict[str, Any]:
    return {
        "chain_id": f"chain{number // 2}",
        "round": number % 2,
        "chain_length": 2,
        "doc_id": f"doc{number}",
        "chunk": 0,
        "source": "almanac",
        "domain": "people",
        "sample": 0,
        "carried": [],
        "status": "ok" if pairs else "no_pairs",
        "finish_reason": "stop",
        "n_prompt_tokens": 10,
        "n_cached_tokens": 0,
        "n_completion_tokens": 40 + number,
        "pairs": [{"instruction": CHECK, "response": "yes", "format": "free_form"}] * pairs,
        "rejected_pairs": [{"text": "<QUE>", "reason": "truncated"}] * rejected,
        "engine": {"name": "test", "versions": {}},
        "context": f"context {number} {CHECK}",
        "completion": "<QUE>",
    }


def _text(number: int, pairs: int) -> dict[str, Any]:
    return {
        "text_id": f"text{number}",
        "chain_id": f"chain{number}",
        "doc_ids": [f"doc{2 * number}:0", f"doc{2 * number + 1}:0"],
        "source": "almanac",
        "domain": "people",
        "mode": "dialogue",
        "inverted": False,
        "template_ids": ["dialogue/frames/bare"],
        "template_version": "en-0",
        "seed": 0,
        "n_pairs": pairs,
        "n_shots": 1,
        "text": f"rendering {number} {CHECK}",
    }


def _shard(fingerprint: str, tokens: int) -> dict[str, Any]:
    return {
        "shard_set": "raw",
        "fingerprint": fingerprint,
        "path": "0.arrow",
        "sha256": "0",
        "rows": 2,
        "tokens": tokens,
        "documents": 3,
        "bytes": 1000,
        "source": "documents",
        "source_version": 1,
        "tokenizer_hash": "t",
        "sequence_length": 64,
    }


def _score(subject: str, value: float) -> dict[str, Any]:
    return {
        "subject": subject,
        "task": "facts",
        "metric": "acc",
        "value": value,
        "low": value,
        "high": value,
        "n": 4,
    }


def _history(folder: Path, records: Iterable[dict[str, Any]], tail: str = "") -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n" + tail, encoding="utf-8")
    return folder


def test_report_of_an_empty_lakehouse(
    run_verb: RunVerb, lakehouse: Lakehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb("report", {}) == {"examples": 0.0}
    page = lakehouse.path("report/index.html").read_text(encoding="utf-8")
    assert "Nothing to show yet." in page
    printed = capsys.readouterr().out
    assert "absent" in printed
    assert f"mlflow ui --backend-store-uri {lakehouse.tracking_uri}" in printed
    assert str(lakehouse.path("report/index.html")) in printed
    # Asking for what is absent made neither tables nor a tracking store.
    assert [entry.name for entry in lakehouse.root.iterdir()] == ["report"]


def test_a_page_in_the_place_of_a_folder_is_refused(run_verb: RunVerb, lakehouse: Lakehouse) -> None:
    lakehouse.path("report").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"report is a folder; name the file of the page, .*report/index\.html"):
        run_verb("report", {"output": "report"})


def test_numbers_come_from_the_tables(run_verb: RunVerb, lakehouse: Lakehouse) -> None:
    _append(lakehouse, "syntheses", [_synthesis(0, 2, 0), _synthesis(1, 3, 1), _synthesis(2, 0, 1)], 0, "synthesize")
    _append(lakehouse, "augmented_texts", [_text(0, 5), _text(1, 0)], 0, "augment")
    _append(lakehouse, "token_shards", [_shard("old", 100)], 0, "shard")
    _append(lakehouse, "token_shards", [_shard("new", 120)], 1, "shard")
    _append(lakehouse, "evaluations", [_score("instruct", 0.5), _score("retired", 0.5)], 0, "evaluate")
    _append(lakehouse, "evaluations", [_score("vanilla", 0.2), _score("instruct", 0.75)], 1, "evaluate")
    model = _history(lakehouse.path("models/vanilla"), [{"step": 1, "tokens": 64, "loss": 3.0, "step_seconds": 1.0}])

    job = Job(lakehouse, "report", ReportConfig(), lakehouse._session)
    data = collect(job, {"vanilla": model, "instruct": lakehouse.path("models/none")}, examples=2, renderings=2, seed=0)

    assert data.received is None
    assert data.rejects is None
    assert [step.step for step in data.steps or ()] == ["train vanilla"]
    synthesis = data.synthesis
    assert synthesis is not None
    assert (synthesis.documents, synthesis.chains, synthesis.pairs) == (3, 2, 5)
    assert (synthesis.pairs_per_document, synthesis.formats) == ({0: 1, 2: 1, 3: 1}, {"free_form": 5})
    assert (synthesis.rejected_pairs, synthesis.statuses) == ({"truncated": 2}, {"no_pairs": 1, "ok": 2})
    assert [(shards.name, shards.tokens) for shards in data.shard_sets or ()] == [("raw", 120)]
    assert [(score.subject, score.value) for score in data.scores or ()] == [("vanilla", 0.2), ("instruct", 0.75)]
    assert list(data.curves) == ["vanilla"]
    (rendering,) = data.renderings or ()
    assert rendering.name == "almanac · chain chain0 · dialogue"
    assert [pair["response"] for pair in rendering.pairs] == ["yes"] * 5
    assert data.examples is not None
    again = collect(job, {}, examples=2, renderings=2, seed=0).examples
    assert [example.name for example in data.examples] == [example.name for example in again or ()]

    run_verb("report", {"examples": 3})
    page = lakehouse.path("report/index.html").read_text(encoding="utf-8")
    assert CHECK not in page
    assert "context 2 &lt;b&gt;bold&lt;/b&gt; claim" in page
    assert "rendering 0 &lt;b&gt;bold&lt;/b&gt; claim" in page


def test_a_set_that_became_again_what_it_was_is_shown_as_it_is(lakehouse: Lakehouse) -> None:
    from udfs.shards.manifest import Manifest, Source, write_manifest

    for version, (fingerprint, tokens) in enumerate((("first", 100), ("second", 120))):
        _append(lakehouse, "token_shards", [_shard(fingerprint, tokens)], version, "shard")
    described = {"name": "raw", "fingerprint": "first", "sequence_length": 64, "vocab_size": 300, "tokenizer_hash": "t"}
    described |= {"tokenizer": "t", "pad_token_id": 0, "has_roles": False, "packing": "best_fit", "contents": []}
    source = Source(table="documents", table_id="0", version=1, path="tables/documents")
    lakehouse.path("shards", "raw").mkdir(parents=True)
    write_manifest(lakehouse.shard_set("raw"), Manifest.of([], source=source, **described))
    data = collect(Job(lakehouse, "report", ReportConfig(), lakehouse._session), {}, 0, 0, 0)
    assert [(shards.name, shards.tokens) for shards in data.shard_sets or ()] == [("raw", 100)]


def test_sets_of_one_name_in_two_tables_are_added_up(lakehouse: Lakehouse) -> None:
    instruction = {"instruction_id": "i", "source": "general", "question": "Why?", "response": "So.", "uri": "file"}
    conversation = {"conversation_id": "c", "dataset": "general", "n_turns": 1, "uri": "file"}
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    for table, row in (("instructions", instruction), ("conversations", {**conversation, "messages": messages})):
        _append(lakehouse, table, [dict.fromkeys(_columns(table)) | row], 0, "collect")
    data = collect(Job(lakehouse, "report", ReportConfig(), lakehouse._session), {}, 0, 0, 0)
    assert data.collected == {"general": 2}


def test_steps_come_from_mlflow(lakehouse: Lakehouse) -> None:
    from jobs.lakehouse.tracking import track

    lakehouse.root.mkdir()
    for step, metrics in (
        ("ingest", {"raw_documents": 10.0, "micro_batches": 1.0, "seconds": 2.0}),
        ("ingest", {"raw_documents": 5.0, "rejects": 3.0, "micro_batches": 1.0, "seconds": 1.0}),
        ("ingest", {"seconds": 9.0}),  # nothing new was there
        ("sample", {"documents": 4.0, "seconds": 0.5}),
        ("report", {"seconds": 7.0}),
    ):
        with track(lakehouse, step, step, {}) as run:
            run.log(metrics)
    model = _history(lakehouse.path("m"), [{"step": 1, "tokens": 60, "loss": 1.0, "step_seconds": 2.0}])

    data = collect(Job(lakehouse, "report", ReportConfig(), lakehouse._session), {"m": model}, 0, 0, 0)

    steps = [(step.step, step.seconds, step.rows) for step in data.steps or ()]
    assert steps == [("ingest", 3.0, 15), ("sample", 0.5, 4), ("train m", 2.0, 0)]


def test_history_is_found_from_the_model_and_from_its_training(tmp_path: Path) -> None:
    records = [
        {"step": step, "tokens": 10 * step, "loss": loss, "step_seconds": 2.0}
        for step, loss in ((1, 5.0), (2, None), (3, 3.0))
    ]
    training = _history(tmp_path / "training", records, tail='{"step": 4, "lo')
    curve = read_curve(training)
    assert curve is not None
    assert (curve.tokens, curve.loss, curve.seconds) == ([10.0, 30.0], [5.0, 3.0], 6.0)
    assert read_curve(training / "model") == curve
    assert read_curve(tmp_path / "none" / "model") is None
