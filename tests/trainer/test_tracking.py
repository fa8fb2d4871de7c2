"""The MLflow run of a training, and the history beside it."""

import json
import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.trainer.shard_sets import write_set
from trainer.tracking import History, Tracker, flatten, read_history
from udfs.shards.manifest import Manifest, read_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_set(tmp_path_factory.mktemp("tracking"), "raw", 40, version=0))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def _tracker(uri: str, manifest: Manifest, run_id: str = "", lr: float = 1.0) -> Tracker:
    return Tracker(uri, "tests", "a run", run_id, {"optimizer": {"lr": lr}}, {"kind": "test"}, {"raw": manifest})


def test_a_run_has_parameters_metrics_and_where_its_data_came_from(uri: str, manifest: Manifest) -> None:
    tracker = _tracker(uri, manifest)
    tracker.log({"loss": 2.5, "grad_norm": float("inf")}, 10)
    tracker.finish("FINISHED")
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "a run"
    assert run.data.params == {"optimizer.lr": "1.0"}
    assert run.data.metrics == {"loss": 2.5}
    (entry,) = run.inputs.dataset_inputs
    # Version 0 is a version.
    assert json.loads(entry.dataset.source) == {"path": "/lake/tables/documents", "delta_table_version": 0}
    assert entry.dataset.source_type == "delta_table"
    assert entry.dataset.digest == manifest.fingerprint[:36]
    assert json.loads(entry.dataset.profile)["tokens"] == manifest.tokens


def test_a_run_is_found_again_and_a_changed_parameter_becomes_a_tag(uri: str, manifest: Manifest) -> None:
    first = _tracker(uri, manifest)
    first.log({"loss": 3.0}, 1)
    first.finish("KILLED")
    again = _tracker(uri, manifest, first.run_id, lr=2.0)
    again.log({"loss": 2.0}, 2)
    again.finish("FINISHED")
    client = MlflowClient(uri)
    run = client.get_run(first.run_id)
    assert again.run_id == first.run_id and run.info.status == "FINISHED"
    assert run.data.params == {"optimizer.lr": "1.0"} and run.data.tags["changed.optimizer.lr"] == "2.0"
    assert [point.step for point in client.get_metric_history(first.run_id, "loss")] == [1, 2]
    assert len(run.inputs.dataset_inputs) == 1


def test_a_store_that_fails_stops_nothing(tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, logger="trainer"):
        tracker = _tracker(f"sqlite:///{tmp_path}/file/mlflow.db", manifest)
        tracker.log({"loss": 1.0}, 1)
        tracker.finish("FINISHED")
    assert tracker.run_id == ""
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_history_takes_back_what_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path, 0).write({"step": step, "loss": 1.0 / step} for step in range(1, 6))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    History(path, 3).write([{"step": 4, "loss": float("nan")}])
    assert [(line["step"], line["loss"]) for line in read_history(path)] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, None)]


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": [1, 2], "d": None}
