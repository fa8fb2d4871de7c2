"""A long step tells how it gets on: a line for whoever watches, and the same figures as metrics."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from jobs.lakehouse.job import Job

log = logging.getLogger(__name__)

# A terminal is watched, a log is kept.
TERMINAL_SECONDS, LOG_SECONDS = 15.0, 60.0


class Meter(Protocol):
    """Measures a running step."""

    def commit(self, staged: "DataFrame") -> None:
        """The micro-batch with this outcome is in the tables; what executors kept of it is about to be removed."""

    def metrics(self) -> dict[str, float]:
        """The run so far; called from another thread than ``commit``, never at the same time."""

    def line(self, metrics: dict[str, float]) -> str:
        """The metrics for a person."""


class Live:
    """A context manager that reports what a meter measures at intervals while a step runs."""

    def __init__(self, meter: Meter, job: "Job") -> None:
        self._meter, self._job = meter, job
        self._started = time.monotonic()
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"progress of {job.step}", daemon=True)

    def __enter__(self) -> "Live":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def commit(self, staged: "DataFrame", remove: Callable[[], None]) -> None:
        """Settle a micro-batch with the meter, then remove what executors kept of it."""
        with self._turn:
            self._meter.commit(staged)
            remove()

    def report(self) -> dict[str, float]:
        """Measure now; shows, logs and returns the metrics."""
        with self._turn:
            metrics = self._meter.metrics()
        self._job.progress.step(self._job.step, self._meter.line(metrics))
        self._job.log(metrics, int(time.monotonic() - self._started))
        return metrics

    def _watch(self) -> None:
        seconds = TERMINAL_SECONDS if self._job.progress.console.is_terminal else LOG_SECONDS
        while not self._ended.wait(seconds):
            try:
                self.report()
            except Exception:
                # A tracking server that is away must not end a week of work, nor silence the reports to come.
                log.exception("step %s: progress could not be reported", self._job.step)
