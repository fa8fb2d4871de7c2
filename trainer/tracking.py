"""The MLflow run of a training, and its history as a local file.

Everything that talks to the store happens on a thread of its own, in order: a slow store does not slow the training
down, and one that fails only warns, once. ``history.jsonl`` holds every step whatever becomes of the store.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udfs.shards.manifest import Manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("trainer")

_VALUE_LIMIT = 6_000  # characters of a parameter
_BATCH_LIMIT = 100  # parameters in one request
_DIGEST_LIMIT = 36  # characters of a dataset digest
_START_TIMEOUT = 300.0  # seconds; a new sqlite store takes a few


class Tracker:
    """One MLflow run; made by rank 0 only.

    Args:
        uri, experiment: where the run is.
        name: of the run.
        run_id: run to go on with; "" begins a new one.
        parameters: resolved configuration, nested.
        tags: of the run.
        sources: manifest of each shard set, recorded as the run's inputs.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        name: str,
        run_id: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        sources: Mapping[str, Manifest],
    ) -> None:
        self._worker = ThreadPoolExecutor(1, "tracking")
        self._failed = False
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._uri = uri
        self._started = self._submit(self._start, experiment, name, run_id, dict(tags))
        self._submit(self._describe, flatten(parameters), dict(sources))

    @property
    def run_id(self) -> str:
        """Id of the run; "" where the store could not be reached."""
        self._started.exception(timeout=_START_TIMEOUT)
        return self._run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of a step; values that are not finite are left out."""
        now = int(time.time() * 1000)
        self._submit(self._log, {key: value for key, value in metrics.items() if math.isfinite(value)}, step, now)

    def text(self, content: str, name: str) -> None:
        """A text artifact."""
        self._submit(lambda client: client.log_text(self._run_id, content, name))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Tags of the run."""

        def work(client: "MlflowClient") -> None:
            for key, value in tags.items():
                client.set_tag(self._run_id, key, value)

        self._submit(work)

    def finish(self, status: str) -> None:
        """Send what is left and end the run as FINISHED, FAILED or KILLED."""
        self._submit(lambda client: client.set_terminated(self._run_id, status))
        self._worker.shutdown()

    def _submit(self, work: "Callable[..., None]", *arguments: Any) -> Future[None]:
        future = self._worker.submit(self._with_client, work, *arguments)
        future.add_done_callback(self._report)
        return future

    def _with_client(self, work: "Callable[..., None]", *arguments: Any) -> None:
        if self._failed and not self._run_id:
            return  # there is no run to write to
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self._uri)
        work(self._client, *arguments)

    def _report(self, future: Future[None]) -> None:
        error = future.exception()
        if error is not None and not self._failed:
            self._failed = True
            log.warning("MLflow at %s cannot be written: %s. Training goes on; history.jsonl has it.", self._uri, error)

    def _start(self, client: "MlflowClient", experiment: str, name: str, run_id: str, tags: dict[str, str]) -> None:
        if run_id:
            client.update_run(run_id, status="RUNNING")
            self._run_id = run_id
            return
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        self._run_id = client.create_run(number, run_name=name, tags=tags).info.run_id

    def _describe(self, client: "MlflowClient", parameters: dict[str, Any], sources: dict[str, Manifest]) -> None:
        from mlflow.entities import Param

        known = client.get_run(self._run_id).data.params
        wanted = {key: str(value)[:_VALUE_LIMIT] for key, value in parameters.items()}
        # A parameter cannot be changed once it is there: what differs after a restart becomes a tag.
        for key, value in wanted.items():
            if key in known and known[key] != value:
                client.set_tag(self._run_id, f"changed.{key}", value)
        fresh = [Param(key, value) for key, value in wanted.items() if key not in known]
        for start in range(0, len(fresh), _BATCH_LIMIT):
            client.log_batch(self._run_id, params=fresh[start : start + _BATCH_LIMIT])
        if not known:
            client.log_inputs(self._run_id, datasets=[_input(name, manifest) for name, manifest in sources.items()])

    def _log(self, client: "MlflowClient", metrics: dict[str, float], step: int, now: int) -> None:
        from mlflow.entities import Metric

        client.log_batch(self._run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])


def _input(name: str, manifest: Manifest) -> Any:
    """The set as a dataset of the run: the Delta table and version it came from, and our own digest.

    MLflow's own ``DeltaDatasetSource`` leaves out version 0, so the same fields are written here.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"path": manifest.source.path, "delta_table_version": manifest.source.version}
    profile = {"rows": manifest.rows, "tokens": manifest.tokens, "documents": manifest.documents}
    tags = {
        "mlflow.data.context": "training",
        "shard_set": manifest.name,
        "table": manifest.source.table,
        "tokenizer_hash": manifest.tokenizer_hash,
        "fingerprint": manifest.fingerprint,
    }
    return DatasetInput(
        Dataset(
            name=name,
            digest=manifest.fingerprint[:_DIGEST_LIMIT],
            source_type="delta_table",
            source=json.dumps(source),
            profile=json.dumps(profile),
        ),
        tags=[InputTag(key, value) for key, value in tags.items()],
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class History:
    """``history.jsonl``: one line for each step. A resumed training takes back the lines it is going to repeat."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_history(path) if line["step"] <= resumed_at]
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines; numbers that are not finite become null."""
        with self._path.open("a", encoding="utf-8") as file:
            for line in lines:
                finite = {
                    key: None if isinstance(value, float) and not math.isfinite(value) else value
                    for key, value in line.items()
                }
                file.write(json.dumps(finite) + "\n")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``history.jsonl``; a last line that was cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
