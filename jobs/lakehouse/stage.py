"""The stage runner: reading streams, triggers, idempotent writing, counting and errors, written once.

A stage is declared: the table (or files) it streams, the tables it writes, and one pure function from a micro-batch to
its outcome frame. The runner computes the outcome once into a staging folder, then splits it into the tables. Killed
anywhere and started again, a micro-batch ends up in the tables exactly once:

1. Spark records what a micro-batch holds before it runs it, so a repeated one holds the same records;
2. the staging folder counts only when its ``_SUCCESS`` marker is there; then it is not computed again, and it stays
   until Spark has recorded that the micro-batch is done, after which Spark repeats it no more;
3. each table's append carries the micro-batch's number (Delta's ``txnAppId`` and ``txnVersion``), so a table that
   already has it skips it.

A second run of the step is refused while the first one lives (``StepLock``). What a stage keeps in the folder
``Job.journal`` lasts as long as the micro-batch is not in the tables.
"""

import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lakehouse.job import Job
from jobs.lakehouse.live import Live, Meter
from jobs.lakehouse.lock import StepLock
from udfs.config import Config

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from jobs.lakehouse.lakehouse import Lakehouse


# Columns of a staged row that say which table it goes to, and by which configuration it was computed: the run that
# writes it may have another one.
_TABLE, _CONFIG = "_table", "_config_hash"


@dataclass(frozen=True)
class Stage:
    """A streaming stage.

    Args:
        source: the table that is streamed, or a function ``(config, job)`` that gives a streaming frame.
        writes: tables written, ``rejects`` among them.
        transform: ``(micro_batch, config, job)`` to the outcome frame (``tables.outcome_schema(*writes)``).
        reads: other tables read.
        meter: ``(config, job)`` to what measures the step while it runs; to None for one that ends soon.
    """

    source: "str | Callable[[Any, Job], DataFrame]"
    writes: tuple[str, ...]
    transform: "Callable[[DataFrame, Any, Job], DataFrame]"
    reads: tuple[str, ...] = ()
    meter: "Callable[[Any, Job], Meter | None]" = lambda config, job: None


@dataclass(frozen=True)
class Verb:
    """One sub-command: a streaming stage, or a function ``(config, job)`` to counts."""

    name: str
    config: type[Config]
    stage: Stage | None = None
    run: "Callable[[Any, Job], dict[str, float]] | None" = None
    # Tables, or what gives them from the configuration.
    reads: "tuple[str, ...] | Callable[[Any], tuple[str, ...]]" = ()
    writes: tuple[str, ...] = ()
    # Files and folders that the verb reads, as its configuration names them.
    needs: "Callable[[Any], Iterable[str | Path]]" = lambda config: ()
    # The file, folder or shard set that the verb makes, `(config, step)`, where the configuration can name it; what was
    # there is replaced, so no two steps of a pipeline may have the same.
    makes: "Callable[[Any, str], str | Path | None]" = lambda config, step: None
    # Raises ConfigError for what else can be found wrong before the first step of a pipeline begins.
    foresee: "Callable[[Any, Job], object] | None" = None
    # Raises ConfigError where a path of the configuration is not there; runs before Spark starts.
    check: "Callable[[Any, Job], object] | None" = None
    # Shows finished examples without writing: `(config, job, n)`.
    preview: "Callable[[Any, Job, int], None] | None" = None
    # What a dry run can say beforehand, `(config, lakehouse)` to lines; starts no Spark.
    expect: "Callable[[Any, Lakehouse], list[str]] | None" = None
    # Shows what the verb would read: `(config, job)`.
    show: "Callable[[Any, Job], None] | None" = None
    # Checks what the verb has written, `(config, job)` to what is damaged; starts no Spark.
    verify: "Callable[[Any, Job], list[str]] | None" = None
    # Prints what the step will cost, from a sample of so many documents: `(config, job, n, tokens_per_second, price)`.
    estimate: "Callable[[Any, Job, int, float | None, float | None], None] | None" = None
    # Shows where something the verb has written came from: `(config, job, address)`.
    trace: "Callable[[Any, Job, str], None] | None" = None
    # Whether the job itself is an MLflow run; the trainer makes its own.
    tracked: bool = True

    def inputs(self, config: Config) -> tuple[str, ...]:
        """Tables the verb reads."""
        if self.stage is None:
            return self.reads(config) if callable(self.reads) else self.reads
        streamed = (self.stage.source,) if isinstance(self.stage.source, str) else ()
        return (*streamed, *self.stage.reads)

    def outputs(self) -> tuple[str, ...]:
        """Tables the verb writes."""
        return self.stage.writes if self.stage else self.writes


def run_stage(stage: Stage, job: Job) -> dict[str, float]:
    """Process what is there (or go on until stopped) and return counts per table and reject reason.

    Raises:
        EnvironmentProblem: another run of the step is under way.
    """
    with StepLock(job.lakehouse.step_path(job.step, "lock"), job.step) as lock:
        return _run_stage(stage, job, lock)


def _run_stage(stage: Stage, job: Job, lock: StepLock) -> dict[str, float]:
    config = job.config
    for table in (*stage.writes, *stage.reads):
        job.lakehouse.ensure(table)
    if isinstance(stage.source, str):
        stream = job.lakehouse.stream(stage.source, getattr(config, "files_per_batch", None))
    else:
        stream = stage.source(config, job)
    application = _application_id(job)
    counts: Counter[str] = Counter()
    meter = stage.meter(config, job)
    live = Live(meter, job) if meter else None

    def process(batch: "DataFrame", batch_id: int) -> None:
        started = time.monotonic()
        _remove_staged(job)
        staged = _stage_batch(batch, batch_id, stage, job)
        lock.check()
        found = _write_batch(staged, batch_id, application, stage, job)

        def forget() -> None:
            shutil.rmtree(job.journal, ignore_errors=True)

        if live is None:
            forget()
        else:
            live.commit(staged, forget)
        counts.update(found)
        counts["micro_batches"] += 1
        job.progress.batch(job.step, batch_id, found, time.monotonic() - started)

    writer = stream.writeStream.foreachBatch(process).option(
        "checkpointLocation", str(job.lakehouse.step_path(job.step, "checkpoint"))
    )
    writer = (
        writer.trigger(availableNow=True)
        if job.continuous is None
        else writer.trigger(processingTime=f"{job.continuous} seconds")
    )
    with live or nullcontext():
        query = writer.queryName(job.step).start()
        try:
            query.awaitTermination()
        except KeyboardInterrupt:
            query.stop()
            raise
    _remove_staged(job)
    found = {name: float(count) for name, count in sorted(counts.items())}
    return {**found, **live.report()} if live is not None and found else found


def _application_id(job: Job) -> str:
    """Names this checkpoint in Delta's transaction log. A new checkpoint counts its batches from 0 again, so it must
    not share the name of an old one, or Delta would take its batches for repetitions; nor what an old one staged."""
    path = job.lakehouse.step_path(job.step, "checkpoint", "application-id")
    if not path.exists():
        shutil.rmtree(job.lakehouse.step_path(job.step, "staging"), ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return f"{job.step}-{path.read_text(encoding='utf-8')}"


def _stage_batch(batch: "DataFrame", batch_id: int, stage: Stage, job: Job) -> "DataFrame":
    """The outcome of the micro-batch, computed once and kept until every table has it."""
    from pyspark.sql import functions as F

    folder = job.lakehouse.step_path(job.step, "staging", str(batch_id))
    if not (folder / "_SUCCESS").exists():
        own = (_table_of(stage).alias(_TABLE), F.lit(job.config_hash).alias(_CONFIG))
        outcome = stage.transform(batch, job.config, job).select(*stage.writes, *own)
        # Read twice and deleted: neither small files nor dictionaries pay.
        plain = {"compression": "uncompressed", "parquet.enable.dictionary": "false"}
        outcome.write.mode("overwrite").options(**plain).parquet(str(folder))
    return job.spark.read.schema(_staged_schema(stage)).parquet(str(folder))


def _remove_staged(job: Job) -> None:
    """Remove what micro-batches staged that Spark has recorded as done: any other may come again, and computed anew it
    would find its own rows in the tables."""
    commits = job.lakehouse.step_path(job.step, "checkpoint", "commits")
    for folder in job.lakehouse.step_path(job.step, "staging").glob("*"):
        if (commits / folder.name).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _table_of(stage: Stage) -> Any:
    """The table that a row of the outcome frame goes to: a column of its own, so that no row is read to count it."""
    from pyspark.sql import functions as F

    return F.coalesce(*[F.when(F.col(table).isNotNull(), F.lit(table)) for table in stage.writes])


def _write_batch(staged: "DataFrame", batch_id: int, application: str, stage: Stage, job: Job) -> Counter[str]:
    from pyspark.sql import functions as F

    reason = F.col("rejects.reason") if "rejects" in stage.writes else F.lit(None)
    grouped = staged.groupBy(F.col(_TABLE).alias("table"), reason.alias("reason")).count().collect()
    counts: Counter[str] = Counter()
    for row in grouped:
        assert row["table"] is not None, "a staged row goes to no table"
        counts[row["table"]] += row["count"]
        if row["reason"]:
            counts[f"rejects/{row['reason']}"] += row["count"]
    for table in stage.writes:
        if counts[table]:
            rows = staged.filter(F.col(_TABLE) == table).select(f"{table}.*", _CONFIG)
            rows = job.with_provenance(rows).withColumn("config_hash", F.col(_CONFIG))
            job.lakehouse.append(rows, table, f"{application}-{table}", batch_id)
    return counts


def _staged_schema(stage: Stage) -> Any:
    from jobs.lakehouse.tables import outcome_schema

    return outcome_schema(*stage.writes).add(_TABLE, "string").add(_CONFIG, "string")
