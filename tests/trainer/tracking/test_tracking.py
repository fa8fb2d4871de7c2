"""The MLflow run of a training, and the history beside it."""

import json
import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.trainer.shard_sets import write_set
from trainer.checkpoints.layout import RECORD
from trainer.runs import main
from trainer.tracking.store import IDENTITY, Waiting, run_of
from trainer.tracking.tracking import WAITING, History, Tracker, flatten, read_history
from udfs.shards.manifest import Manifest, read_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_set(tmp_path_factory.mktemp("tracking"), "raw", 40, version=0))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def _tracker(uri: str, manifest: Manifest, folder: Path, run_id: str = "", lr: float = 1.0) -> Tracker:
    settings = {"optimizer": {"lr": lr}}
    return Tracker(uri, "tests", "a run", run_id, settings, {"kind": "test"}, {"raw": manifest}, folder)


def test_a_run_has_parameters_metrics_and_where_its_data_came_from(
    uri: str, manifest: Manifest, tmp_path: Path
) -> None:
    tracker = _tracker(uri, manifest, tmp_path)
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


def test_sources_of_any_name_are_told(uri: str, manifest: Manifest, tmp_path: Path) -> None:
    settings = {"data": {"sources": {"wiki (en)": 1}}}
    tracker = Tracker(uri, "tests", "a run", "", settings, {"kind": "test"}, {"raw": manifest}, tmp_path)
    tracker.log({"loss/source/wiki (en)": 2.5}, 10)
    tracker.finish("FINISHED")
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert run.data.params == {"data.sources.wiki _en_": "1"}
    assert run.data.metrics == {"loss/source/wiki _en_": 2.5}


def test_a_run_is_found_again_and_a_changed_parameter_becomes_a_tag(
    uri: str, manifest: Manifest, tmp_path: Path
) -> None:
    first = _tracker(uri, manifest, tmp_path)
    first.log({"loss": 3.0}, 1)
    first.finish("KILLED")
    again = _tracker(uri, manifest, tmp_path, first.run_id, lr=2.0)
    again.log({"loss": 2.0}, 2)
    again.finish("FINISHED")
    client = MlflowClient(uri)
    run = client.get_run(first.run_id)
    assert again.run_id == first.run_id and run.info.status == "FINISHED"
    assert run.data.params == {"optimizer.lr": "1.0"} and run.data.tags["changed.optimizer.lr"] == "2.0"
    assert [point.step for point in client.get_metric_history(first.run_id, "loss")] == [1, 2]
    assert len(run.inputs.dataset_inputs) == 1


def test_what_a_store_did_not_take_is_written_when_it_is_back(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    store.write_text("in the way of the folder")
    uri, output = f"sqlite:///{store}/mlflow.db", tmp_path / "output"
    output.mkdir()
    with caplog.at_level(logging.WARNING, logger="trainer"):
        tracker = _tracker(uri, manifest, output)
        for step in (1, 2):
            tracker.log({"loss": 1.0 / step}, step)
        tracker.finish("KILLED")
    assert tracker.run_id == ""
    said = [record.message for record in caplog.records]
    assert len([line for line in said if "cannot be written" in line]) == 1 and "trainer.runs replay" in said[-1]

    # The next start writes what waits before its own, into one run.
    store.unlink()
    store.mkdir()
    again = _tracker(uri, manifest, output)
    again.log({"loss": 0.25}, 4)
    again.finish("FINISHED")
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.info.run_id == again.run_id and run.info.status == "FINISHED"
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 1.0),
        (2, 0.5),
        (4, 0.25),
    ]
    assert not (output / WAITING).exists()


def test_a_store_that_fails_in_between(tmp_path: Path, manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is there; later the store is gone, and what it missed is replayed by the command."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first = _tracker(uri, manifest, tmp_path)
    first.finish("KILLED")
    waiting = Waiting(tmp_path / WAITING)
    waiting.add({"kind": "metrics", "points": [{"values": {"loss": 3.0}, "step": 7, "time": 1}]}, first.run_id)
    # What can never be written does not hold up the rest.
    waiting.add({"kind": "metrics", "points": [{"values": {"loss": "none"}, "step": 7, "time": 1}]}, first.run_id)
    waiting.add({"kind": "end", "status": "FINISHED", "time": 2}, first.run_id)
    with waiting.path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "metr')
    assert main(["replay", str(tmp_path), "--uri", uri]) == 0
    assert capsys.readouterr().out.startswith("3 records")
    run = MlflowClient(uri).get_run(first.run_id)
    assert run.data.metrics == {"loss": 3.0} and run.info.status == "FINISHED"
    assert main(["replay", str(tmp_path), "--uri", uri]) == 1
    assert "nothing waits" in capsys.readouterr().err


def test_an_experiment_that_was_deleted_loses_nothing(
    tmp_path: Path, manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(uri := f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("tests")
    client.delete_experiment(experiment)
    tracker = _tracker(uri, manifest, tmp_path)
    tracker.log({"loss": 3.0}, 7)
    tracker.finish("FINISHED")
    assert main(["replay", str(tmp_path), "--uri", uri]) == 1
    assert f"MLflow at {uri} refused it or is away" in capsys.readouterr().err

    client.restore_experiment(experiment)
    assert main(["replay", str(tmp_path), "--uri", uri]) == 0
    (run,) = client.search_runs([experiment])
    assert run.data.metrics == {"loss": 3.0} and run.info.status == "FINISHED"


def test_the_run_of_a_model_is_found_that_began_after_the_export(uri: str, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps({"identity": "mine", "run_id": ""}))
    assert run_of(tmp_path, uri) == "" == run_of(tmp_path / "elsewhere", uri)
    trackers = []
    for identity in ("mine", "another"):
        trackers.append(Tracker(uri, "tests", "a run", "", {}, {IDENTITY: identity}, {"raw": manifest}, tmp_path))
        trackers[-1].finish("FINISHED")
    assert run_of(tmp_path, uri) == trackers[0].run_id != ""
    (tmp_path / RECORD).write_text(json.dumps({"identity": "mine", "run_id": "named"}))
    assert run_of(tmp_path, uri) == "named"


def test_checkpoints_are_models_elsewhere(uri: str, manifest: Manifest, tmp_path: Path) -> None:
    tracker = _tracker(uri, manifest, tmp_path)
    folder = tmp_path / "checkpoints"
    for step in (5, 10, 15):
        path = folder / f"step-{step:08d}"
        path.mkdir(parents=True)
        tracker.checkpoint(path, step, {"loss": 1.0 / step, "loss/raw": float("nan")}, {"tokens": step * 100})
        if step == 10:
            (folder / "step-00000005").rmdir()
    tracker.finish("FINISHED")
    client = MlflowClient(uri)
    experiment = client.get_run(tracker.run_id).info.experiment_id
    models = {entry.name: entry for entry in client.search_logged_models([experiment])}
    assert sorted(models) == ["step-00000005", "step-00000010", "step-00000015"]
    assert models["step-00000005"].tags["removed"] == "true"
    last = models["step-00000015"]
    assert last.params == {"step": "15", "tokens": "1500"} and "removed" not in last.tags
    assert last.tags["path"] == str(folder / "step-00000015")
    assert [(entry.key, entry.value) for entry in last.metrics] == [("checkpoint/loss", 1.0 / 15)]


def test_a_checkpoint_that_is_saved_again_is_not_removed(uri: str, manifest: Manifest, tmp_path: Path) -> None:
    tracker = _tracker(uri, manifest, tmp_path)
    places = {step: tmp_path / "checkpoints" / f"step-{step:08d}" for step in (5, 10)}
    for step, gone in ((5, 10), (10, 5), (5, 10)):
        places[step].mkdir(parents=True)
        if places[gone].exists():
            places[gone].rmdir()
        tracker.checkpoint(places[step], step, {}, {})
    tracker.finish("FINISHED")
    client = MlflowClient(uri)
    found = client.search_logged_models([client.get_run(tracker.run_id).info.experiment_id])
    tags = {entry.name: entry.tags for entry in found if entry.source_run_id == tracker.run_id}
    assert [tags[place.name].get("removed") for place in places.values()] == [None, "true"]


def test_history_takes_back_what_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path, 0).write({"step": step, "loss": 1.0 / step} for step in range(1, 6))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    History(path, 3).write([{"step": 4, "loss": float("nan")}])
    assert [(line["step"], line["loss"]) for line in read_history(path)] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, None)]


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": [1, 2], "d": None}
