"""How a synthesis gets on: read from the journal that the executors write, while they write it.

Executors never talk to MLflow; each keeps the sums of its engine's own counters in its journal file. The driver adds
them up. What a run reports is its own work: sums that an earlier, killed run left in the journal are taken off, but for
``engine/lost_tokens``, which tells what failures cost.
"""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.lakehouse.stage import Job
from jobs.synthesis.estimate import FILE, compare
from udfs.config import Config
from udfs.synthesis.journal import counts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class SynthesisMeter:
    """A ``jobs.lakehouse.live.Meter``.

    Metrics: ``progress/documents``, ``/recovered`` (finished by an earlier run that was killed), ``/pairs``,
    ``/rejects``, ``/prompt_tokens_per_second``,
    ``/generated_tokens_per_second`` (over the whole time of the run) and ``/seconds_left``;
    ``engine/prompt_tokens``, ``/cached_tokens``, ``/generated_tokens``, ``/seconds`` (summed over the engines),
    ``/prefix_hit_rate`` (share of the prompts' tokens), ``/occupancy`` and ``/kv_occupancy`` (mean shares of the batch
    and of the KV cache in use), ``/preemptions``, ``/retries``, ``/restarts`` and ``/lost_tokens`` (generated, but in
    no table); and when nothing is left, what ``estimate.compare`` says of an estimate made before.
    """

    def __init__(self, config: Config, job: Job) -> None:
        self._job = job
        self._before = counts(job.journal)
        self._committed: dict[str, float] = {}
        self._lost = 0.0
        # Of the rows written: documents, tokens of prompts, tokens generated.
        self._written: tuple[int, ...] = (0, 0, 0)
        self._started = time.monotonic()
        self._expected = _documents_left(job)

    def commit(self, staged: "DataFrame") -> None:
        """A micro-batch is in the tables, and its journal is about to be removed."""
        from pyspark.sql import functions as F

        sums = counts(self._job.journal)
        columns = ("n_prompt_tokens", "n_completion_tokens")
        row = staged.agg(F.count("syntheses"), *(F.sum(f"syntheses.{name}") for name in columns)).collect()[0]
        found = tuple(value or 0 for value in row)
        self._written = tuple(map(sum, zip(self._written, found, strict=True)))
        # A micro-batch that was staged before may have left its journal behind, or may not.
        self._lost += max(0.0, sums["generated_tokens"] - found[2])
        self._committed = _sum(self._committed, sums)

    def metrics(self) -> dict[str, float]:
        """The run so far."""
        earlier = {name: -value for name, value in self._before.items()}
        sums = _sum(self._committed, counts(self._job.journal), earlier)
        elapsed = time.monotonic() - self._started
        done = sums["documents"] + sums["recovered"] + sums["rejects"]
        found: dict[str, float] = {
            "progress/documents": sums["documents"],
            "progress/recovered": sums["recovered"],
            "progress/pairs": sums["pairs"],
            "progress/rejects": sums["rejects"],
            "progress/prompt_tokens_per_second": sums["prompt_tokens"] / elapsed,
            "progress/generated_tokens_per_second": sums["generated_tokens"] / elapsed,
            "engine/lost_tokens": self._lost,
        }
        for name in ("prompt_tokens", "cached_tokens", "generated_tokens", "seconds", "preemptions", "retries"):
            found[f"engine/{name}"] = sums[name]
        found["engine/restarts"] = sums["engine_restarts"]
        if sums["prompt_tokens"]:
            found["engine/prefix_hit_rate"] = sums["cached_tokens"] / sums["prompt_tokens"]
        if sums["seconds"]:
            found["engine/occupancy"] = sums["running_seconds"] / sums["seconds"]
            found["engine/kv_occupancy"] = sums["kv_seconds"] / sums["seconds"]
        if done > 0:
            found["progress/seconds_left"] = max(0.0, self._expected - done) * elapsed / done
        file = self._job.lakehouse.step_path(self._job.step, FILE)
        if done >= self._expected and file.exists():
            estimate = json.loads(file.read_text(encoding="utf-8"))
            if estimate["documents"] == self._expected:  # it was made for what this run began with
                found.update(compare(estimate, *self._written))
        return found

    def line(self, metrics: dict[str, float]) -> str:
        """The metrics for a person."""
        left = metrics.get("progress/seconds_left")
        return (
            f"{metrics['progress/documents'] + metrics['progress/recovered']:,.0f} of {self._expected:,} documents, "
            f"{metrics['progress/pairs']:,.0f} pairs, {metrics['progress/rejects']:,.0f} rejects; "
            f"{metrics['progress/prompt_tokens_per_second']:,.0f} tokens/s in, "
            f"{metrics['progress/generated_tokens_per_second']:,.0f} out, "
            f"{metrics.get('engine/prefix_hit_rate', 0.0):.0%} from the prefix cache, "
            f"engine {metrics.get('engine/occupancy', 0.0):.0%} full; "
            f"{'time left unknown' if left is None else _duration(left) + ' left'}"
        )


def _sum(*parts: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return total


def _documents_left(job: Job) -> int:
    from pyspark.sql import functions as F

    documents = job.lakehouse.read("documents").filter(F.col("arm") == "convert").count()
    rejected = job.lakehouse.read("rejects").filter(F.col("stage") == "synthesize").count()
    return max(0, int(documents - rejected - job.lakehouse.read("syntheses").count()))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
