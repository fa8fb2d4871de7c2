"""What the trainer writes to MLflow.

Everything is a *record*: a mapping of plain values with its ``kind``. A record that the store did not take can
therefore wait in a file and be written later, by another process too.
"""

import argparse
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.checkpoints.layout import record_of
from udfs.shards.manifest import Manifest
from udfs.tracking import artifact_location, tracked_name, without_credentials

log = logging.getLogger("trainer")

Record = Mapping[str, Any]

_VALUE_LIMIT = 6_000  # characters of a parameter
IDENTITY = "ipt.identity"  # tag of a run: which training it is of
_PARAMETERS, _METRICS = 100, 1_000  # in one request
_DIGEST_LIMIT = 36  # characters of a dataset's digest
_MODEL_TYPE = "checkpoint"
_REMOVED = "removed"  # tag of a checkpoint that is not there any more


def store_address(uri: str) -> str:
    """``--uri`` of a command, which is shown.

    Raises:
        ArgumentTypeError: it holds a password or a token; the message does not repeat it.
    """
    try:
        without_credentials(uri)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return uri


def run_of(model: Path, uri: str) -> str:
    """MLflow run of the training that an exported model came from; "" where there is none.

    A store that was away at the export has begun the run later: it is then found by the training's identity.

    Raises:
        DataError: the model's record is damaged.
    """
    from mlflow import MlflowClient

    record = record_of(model)
    if record.get("run_id") or "identity" not in record:
        return str(record.get("run_id", ""))
    client = MlflowClient(uri)
    found = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()],
        f"tags.`{IDENTITY}` = '{record['identity']}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return str(found[0].info.run_id) if found else ""


class Store:
    """An MLflow store and one run in it.

    Args:
        uri: of the store.
        run_id: the run; "" until a record of kind ``run`` begins one.
    """

    def __init__(self, uri: str, run_id: str = "") -> None:
        # By default a client tries a server that is away for minutes; what it does not take is tried again later.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow import MlflowClient

        self._uri = uri
        self._client = MlflowClient(uri)
        self.run_id = run_id

    def write(self, record: Record) -> None:
        """Write a record; what the store can never take is left out with a warning.

        Whatever else it raises is raised, and all that it says to the beginning of a run, which the others need.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._apply(record)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or record["kind"] == "run":
                raise
            log.warning("MLflow refused a record of kind %s: %s", record["kind"], error)

    def _apply(self, record: Record) -> None:
        match record["kind"]:
            case "run":
                self._run(record)
            case "parameters":
                self._parameters(record["values"])
            case "inputs":
                self._inputs(record["datasets"])
            case "metrics":
                self._metrics(record["points"])
            case "tags":
                for key, value in record["values"].items():
                    self._client.set_tag(self.run_id, key, value)
            case "text":
                self._client.log_text(self.run_id, record["content"], record["name"])
            case "file":
                self._client.log_artifact(self.run_id, record["path"], record["folder"])
            case "checkpoint":
                self._checkpoint(record)
            case "end":
                self._client.set_terminated(self.run_id, record["status"], record["time"])
            case kind:
                raise AssertionError(f"no record is of kind {kind!r}")

    def _run(self, record: Record) -> None:
        run_id = record["run_id"]
        if not run_id and self.run_id:
            # Begun by records that waited: of an earlier start of this training, or of another one?
            tags = self._client.get_run(self.run_id).data.tags
            run_id = self.run_id if tags.get(IDENTITY) == record["tags"].get(IDENTITY) else ""
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
            return
        found = self._client.get_experiment_by_name(record["experiment"])
        number = (
            found.experiment_id
            if found
            else self._client.create_experiment(record["experiment"], artifact_location(self._client.tracking_uri))
        )
        tags, name = dict(record["tags"]), record["name"]
        self.run_id = self._client.create_run(number, start_time=record["time"], run_name=name, tags=tags).info.run_id

    def _parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        wanted = {tracked_name(key): str(value)[:_VALUE_LIMIT] for key, value in values.items()}
        # A parameter cannot be changed once it is there: what differs after a restart becomes a tag.
        for key, value in wanted.items():
            if key in known and known[key] != value:
                self._client.set_tag(self.run_id, f"changed.{key}", value)
        fresh = [Param(key, value) for key, value in wanted.items() if key not in known]
        for start in range(0, len(fresh), _PARAMETERS):
            self._client.log_batch(self.run_id, params=fresh[start : start + _PARAMETERS])

    def _inputs(self, datasets: Sequence[Record]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if self._client.get_run(self.run_id).inputs.dataset_inputs:
            return  # told when the run began
        inputs = []
        for entry in datasets:
            tags = [InputTag(key, value) for key, value in entry["tags"].items()]
            inputs.append(DatasetInput(Dataset(**{k: v for k, v in entry.items() if k != "tags"}), tags=tags))
        self._client.log_inputs(self.run_id, datasets=inputs)

    def _metrics(self, points: Sequence[Record]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(tracked_name(key), value, point["time"], point["step"])
            for point in points
            for key, value in point["values"].items()
        ]
        for start in range(0, len(metrics), _METRICS):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS])

    def _checkpoint(self, record: Record) -> None:
        """An external LoggedModel: MLflow knows where it is and how good it was, and holds none of its bytes."""
        from mlflow.entities import LoggedModelStatus

        experiment = self._client.get_run(self.run_id).info.experiment_id
        known = {model.name: model for model in self._checkpoints(experiment)}
        for name, model in known.items():
            removed = name not in record["present"]
            if removed and _REMOVED not in model.tags:
                self._client.set_logged_model_tags(model.model_id, {_REMOVED: "true"})
            elif not removed and _REMOVED in model.tags:  # saved again since
                self._client.delete_logged_model_tag(model.model_id, _REMOVED)
        if record["name"] in known:
            return  # saved before, at the same step, and saved again
        model = self._client.create_logged_model(
            experiment,
            name=record["name"],
            source_run_id=self.run_id,
            tags={"mlflow.model.isExternal": "true", "path": record["path"]},
            params={key: str(value) for key, value in record["params"].items()},
            model_type=_MODEL_TYPE,
        )
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        for key, value in record["scores"].items():
            self._client.log_metric(
                self.run_id, f"checkpoint/{key}", value, record["time"], record["step"], model_id=model.model_id
            )

    def _checkpoints(self, experiment: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_logged_models(
                [experiment], f"source_run_id = '{self.run_id}' AND model_type = '{_MODEL_TYPE}'", page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def dataset(name: str, manifest: Manifest) -> dict[str, Any]:
    """A shard set as a dataset of the run: the Delta table and version it came from, and our own digest.

    MLflow's own ``DeltaDatasetSource`` leaves out version 0, so the same fields are written here.
    """
    source = {"path": manifest.source.path, "delta_table_version": manifest.source.version}
    profile = {"rows": manifest.rows, "tokens": manifest.tokens, "documents": manifest.documents}
    return {
        "name": name,
        "digest": manifest.fingerprint[:_DIGEST_LIMIT],
        "source_type": "delta_table",
        "source": json.dumps(source),
        "profile": json.dumps(profile),
        "tags": {
            "mlflow.data.context": "training",
            "shard_set": manifest.name,
            "table": manifest.source.table,
            "tokenizer_hash": manifest.tokenizer_hash,
            "fingerprint": manifest.fingerprint,
        },
    }


class Waiting:
    """Records that a store did not take, in a file, in order.

    A line is the record with the run it belongs to: "" for the one that the file itself begins.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __bool__(self) -> bool:
        return self.path.exists()

    def add(self, record: Record, run_id: str) -> None:
        """Put a record at the end."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "of_run": run_id}) + "\n")

    def replay(self, store: Store) -> int:
        """Write what waits and give the number of records; what the store does not take goes on waiting.

        The file is gone when all is written. Whatever the store raises is raised.
        """
        lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if line]
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break  # cut short when its process was killed
        done = 0
        try:
            for record in records:
                store.run_id = record["of_run"] or store.run_id
                store.write(record)
                done += 1
        finally:
            if done == len(records):
                self.path.unlink()
            elif done:
                rest = [{**record, "of_run": record["of_run"] or store.run_id} for record in records[done:]]
                part = self.path.with_name(f".{self.path.name}.part")
                part.write_text("".join(json.dumps(record) + "\n" for record in rest), encoding="utf-8")
                part.replace(self.path)
        return done
