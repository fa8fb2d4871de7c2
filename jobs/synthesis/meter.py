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

from jobs.lakehouse.job import Job
from jobs.synthesis.estimate import FILE, compare
from udfs.synthesis.journal import counts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class SynthesisMeter:
    """A ``jobs.lakehouse.live.Meter``.

    Metrics, where each sample of a document counts as one: ``progress/documents``, ``/recovered`` (finished by an
    earlier attempt that was killed), ``/pairs``, ``/rejects``, ``/prompt_tokens_per_second``,
    ``/generated_tokens_per_second`` (over the whole time of the run) and ``/seconds_left``;
    ``engine/prompt_tokens``, ``/cached_tokens``, ``/generated_tokens``, ``/seconds`` (summed over the engines),
    ``/prefix_hit_rate`` (share of the prompts' tokens), ``/occupancy`` and ``/kv_occupancy`` (mean shares of the batch
    and of the KV cache in use), ``/preemptions``, ``/retries``, ``/restarts`` and ``/lost_tokens`` (generated, but in
    no table); and when nothing is left, what ``estimate.compare`` says of an estimate made before.
    """

    def __init__(self, samples: int, job: Job) -> None:
        self._samples, self._job = samples, job
        # Of an earlier run, in the journal of the micro-batch that it was killed in.
        self._before = counts(job.journal)
        self._committed: dict[str, float] = {}
        # Documents that are in the tables, or among the rejects, by this run.
        self._settled = 0
        self._lost = 0.0
        # Of the rows written: documents, tokens of prompts, tokens generated.
        self._written: tuple[int, ...] = (0, 0, 0)
        self._started = time.monotonic()
        self._expected = self._left()

    def commit(self, staged: "DataFrame") -> None:
        """A micro-batch is in the tables, and its journal is about to be removed."""
        from pyspark.sql import functions as F

        sums = counts(self._job.journal)
        columns = ("n_prompt_tokens", "n_completion_tokens")
        sums_of = [F.sum(f"syntheses.{name}") for name in columns]
        row = staged.agg(F.count("rejects"), F.count("syntheses"), *sums_of).collect()[0]
        rejects, *found = (value or 0 for value in row)
        self._settled += rejects + found[0]
        self._written = tuple(map(sum, zip(self._written, found, strict=True)))
        # A micro-batch that was staged before may have left its journal behind, or may not.
        self._lost += max(0.0, sums["generated_tokens"] - found[2])
        self._committed = _sum(self._committed, sums)
        if self._job.continuous is not None:  # documents may have come
            self._expected = self._settled + self._left()

    def _left(self) -> int:
        return documents_left(self._job).count() * self._samples

    def metrics(self) -> dict[str, float]:
        """The run so far."""
        earlier = {name: -value for name, value in self._before.items()}
        now = counts(self._job.journal)
        sums = _sum(self._committed, now, earlier)
        elapsed = time.monotonic() - self._started
        under_way = now if self._settled else _sum(now, earlier)
        # A task that was killed and began anew counts what it recovered twice, until its micro-batch is in the tables.
        done = self._settled + sum(under_way.get(name, 0.0) for name in ("documents", "recovered", "rejects"))
        done = min(done, self._expected)
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
            found["progress/seconds_left"] = (self._expected - done) * elapsed / done
        file = self._job.lakehouse.step_path(self._job.step, FILE)
        if self._settled >= self._expected and file.exists():
            estimate = json.loads(file.read_text(encoding="utf-8"))
            if estimate["documents"] == self._expected:  # it was made for what this run began with
                found.update(compare(estimate, *self._written))
        return found

    def line(self, metrics: dict[str, float]) -> str:
        """The metrics for a person."""
        left = metrics.get("progress/seconds_left")
        return (
            f"{min(metrics['progress/documents'] + metrics['progress/recovered'], self._expected):,.0f} of "
            f"{self._expected:,} documents, "
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


def documents_left(job: Job) -> "DataFrame":
    """The documents to be converted that are neither in ``syntheses`` nor, as a whole, among the rejects."""
    from pyspark.sql import functions as F

    written = job.lakehouse.read("syntheses").select("doc_id", "chunk")
    rejected = job.lakehouse.read("rejects").filter(F.col("stage") == "synthesize").select("record_id")
    return (
        job.lakehouse.read("documents")
        .filter(F.col("arm") == "convert")
        .join(written, ["doc_id", "chunk"], "left_anti")
        .join(rejected, F.concat_ws(":", "doc_id", F.col("chunk").cast("string")) == F.col("record_id"), "left_anti")
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
