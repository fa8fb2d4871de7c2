"""The MLflow run of a training, and its history as a local file.

Everything that talks to the store happens on a thread of its own, in order: a slow store does not slow the training
down. What a store that is away does not take waits in ``mlflow-waiting.jsonl`` beside the history and is written when
the store is back: in this training, in the next start of it, or by ``python -m trainer.runs replay``.
"""

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.checkpoints.layout import WAITING
from trainer.tracking.store import Record, Store, Waiting, dataset
from udfs.shards.manifest import Manifest

log = logging.getLogger("trainer")

_START_TIMEOUT = 300.0  # seconds; a new sqlite store takes a few
_RETRY = 30.0  # seconds until a store that failed is tried again


class Tracker:
    """One MLflow run; made by rank 0 only.

    Args:
        uri, experiment: where the run is.
        name: of the run.
        run_id: run to go on with; "" begins a new one.
        parameters: resolved configuration, nested.
        tags: of the run.
        sources: manifest of each shard set, recorded as the run's inputs.
        folder: where records wait that the store did not take.
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
        folder: Path,
    ) -> None:
        self._uri = uri
        self._store: Store | None = None
        self._run_id = run_id
        self._waiting = Waiting(folder / WAITING)
        self._failed_at = -math.inf
        self._warned = False
        self._started = threading.Event()
        self._records: queue.SimpleQueue[Record] = queue.SimpleQueue()
        begin = {"kind": "run", "run_id": run_id, "experiment": experiment, "name": name, "tags": dict(tags)}
        self._records.put({**begin, "time": _now()})
        self._records.put({"kind": "parameters", "values": flatten(parameters)})
        self._records.put({"kind": "inputs", "datasets": [dataset(key, entry) for key, entry in sources.items()]})
        self._worker = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._worker.start()

    @property
    def run_id(self) -> str:
        """Id of the run; "" while the store could not be reached."""
        self._started.wait(_START_TIMEOUT)
        return self._run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of a step; values that are not finite are left out."""
        values = {key: value for key, value in metrics.items() if math.isfinite(value)}
        self._records.put({"kind": "metrics", "points": [{"values": values, "step": step, "time": _now()}]})

    def text(self, content: str, name: str) -> None:
        """A text artifact."""
        self._records.put({"kind": "text", "content": content, "name": name})

    def file(self, path: Path, folder: str | None = None) -> None:
        """A file as an artifact, in a folder of the run's artifacts; it must stay where it is until the run ends."""
        self._records.put({"kind": "file", "path": str(path), "folder": folder})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Tags of the run."""
        self._records.put({"kind": "tags", "values": dict(tags)})

    def checkpoint(self, path: Path, step: int, scores: Mapping[str, float], params: Mapping[str, int]) -> None:
        """A checkpoint as an external LoggedModel; those that are no longer beside it are marked as removed.

        Args:
            path: the published checkpoint.
            step: after which it was saved.
            scores: what is known of its quality; becomes ``checkpoint/<score>``.
            params: of the model.
        """
        present = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
        finite = {key: value for key, value in scores.items() if math.isfinite(value)}
        place = {"name": path.name, "path": str(path.absolute()), "present": present, "step": step, "time": _now()}
        self._records.put({"kind": "checkpoint", **place, "scores": finite, "params": {"step": step, **params}})

    def finish(self, status: str) -> None:
        """Send what is left and end the run as FINISHED, FAILED or KILLED."""
        self._records.put({"kind": "end", "status": status, "time": _now()})
        self._worker.join()
        if self._waiting:
            log.warning(
                "What MLflow at %s did not take waits in %s. Write it with: python -m trainer.runs replay %s --uri %s",
                *(self._uri, self._waiting.path, self._waiting.path.parent, self._uri),
            )

    def _work(self) -> None:
        while True:
            for record in self._next():
                self._write(record)
                if record["kind"] == "end":
                    return

    def _next(self) -> list[Record]:
        """The records that are there, at least one; metrics that follow each other are one record."""
        records = [self._records.get()]
        while not self._records.empty():
            record = self._records.get()
            if record["kind"] == "metrics" == records[-1]["kind"]:
                records[-1] = {"kind": "metrics", "points": [*records[-1]["points"], *record["points"]]}
            else:
                records.append(record)
        return records

    def _write(self, record: Record) -> None:
        if time.monotonic() - self._failed_at < _RETRY and record["kind"] != "end":
            self._waiting.add(record, self._run_id)
            return
        try:
            self._store = self._store or Store(self._uri, self._run_id)
            if self._waiting:
                self._waiting.replay(self._store)
            self._store.write(record)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises must not stop the training
            self._failed_at = time.monotonic()
            self._waiting.add(record, self._store.run_id if self._store else self._run_id)
            if not self._warned:
                self._warned = True
                log.warning("MLflow at %s cannot be written: %s. Training goes on.", self._uri, error)
        finally:
            if self._store is not None:
                self._run_id = self._store.run_id
            self._started.set()


def _now() -> int:
    return int(time.time() * 1000)


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
