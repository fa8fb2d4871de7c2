"""The data of a report, out of the tables, the training histories and MLflow.

Everything is aggregated in Spark; only counts, and the few examples shown, come to the driver.
"""

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lakehouse.job import Job
from jobs.reporting.data import Arm, Example, LossCurve, ReportData, Score, ShardSet, StepTime, Synthesis
from jobs.reporting.renderings import draw_renderings
from udfs.errors import ConfigError, DataError
from udfs.shards.manifest import read_manifest
from udfs.tracking import database_file

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def collect(job: Job, models: Mapping[str, Path], examples: int, renderings: int, seed: int) -> ReportData:
    """Everything a report shows; a table that does not exist gives None.

    Args:
        job: gives the lakehouse.
        models: name -> folder with the training's ``history.jsonl``.
        examples: synthesized documents to show.
        renderings: rendered texts to show beside their pairs.
        seed: another one shows other documents.
    """
    tables = {name: job.lakehouse.read(name) for name in _READ if job.lakehouse.exists(name)}
    documents, syntheses, texts = (tables.get(name) for name in ("documents", "syntheses", "augmented_texts"))
    curves = {name: curve for name, folder in models.items() if (curve := read_curve(folder)) is not None}
    return ReportData(
        received=_received(tables.get("raw_documents")),
        collected=_collected(tables),
        rejects=_rejects(tables.get("rejects")),
        arms=_arms(documents),
        document_tokens=_counted(documents, "n_tokens"),
        synthesis=_synthesis(syntheses) if syntheses is not None else None,
        modes=_counted(texts, "mode"),
        shard_sets=_shard_sets(tables.get("token_shards"), job),
        steps=_steps(job, curves),
        curves=curves,
        scores=_scores(tables.get("evaluations"), list(models)),
        examples=_examples(syntheses, examples, seed) if syntheses is not None and examples else None,
        renderings=(
            draw_renderings(texts, syntheses, renderings, seed)
            if texts is not None and syntheses is not None and renderings
            else None
        ),
    )


_READ = (
    "raw_documents",
    "documents",
    "syntheses",
    "augmented_texts",
    "tuning_examples",
    "instructions",
    "conversations",
    "token_shards",
    "evaluations",
    "rejects",
)


def _counted(frame: "DataFrame | None", column: "str | Column") -> Any:
    """How often each value of ``column`` occurs."""
    if frame is None:
        return None
    from pyspark.sql import functions as F

    key = F.col(column) if isinstance(column, str) else column
    rows = frame.groupBy(key.alias("key")).agg(F.count("*").alias("n")).orderBy("key").collect()
    return {row["key"]: row["n"] for row in rows if row["key"] is not None}


def _received(frame: "DataFrame | None") -> dict[str, int] | None:
    if frame is None:
        return None
    from pyspark.sql import functions as F

    both = F.when(F.col("source") != F.col("domain"), F.concat_ws(": ", "source", "domain"))
    counts: dict[str, int] = _counted(frame, F.coalesce(both, F.col("source")))
    return counts


def _collected(tables: "Mapping[str, DataFrame]") -> dict[str, int] | None:
    counts: Counter[str] = Counter()  # tables may have sets of one name
    for table, column in (("tuning_examples", "dataset"), ("instructions", "source"), ("conversations", "dataset")):
        counts.update(_counted(tables.get(table), column) or {})
    return counts or None


def _rejects(frame: "DataFrame | None") -> dict[tuple[str, str], int] | None:
    if frame is None:
        return None
    return {(row["stage"], row["reason"]): row["count"] for row in frame.groupBy("stage", "reason").count().collect()}


def _arms(frame: "DataFrame | None") -> dict[str, Arm] | None:
    if frame is None:
        return None
    from pyspark.sql import functions as F

    rows = frame.groupBy("arm").agg(F.count("*").alias("n"), F.sum("n_tokens").alias("tokens")).collect()
    return {row["arm"]: Arm(row["n"], row["tokens"]) for row in rows}


def _synthesis(frame: "DataFrame") -> Synthesis:
    from pyspark.sql import functions as F

    documents, chains = frame.agg(F.count_distinct("doc_id", "chunk"), F.count_distinct("chain_id")).collect()[0]
    per_document = _counted(frame, F.size("pairs"))
    return Synthesis(
        documents=documents,
        chains=chains,
        pairs=sum(size * count for size, count in per_document.items()),
        rejected_pairs=_counted(frame.select(F.explode("rejected_pairs.reason").alias("reason")), "reason"),
        formats=_counted(frame.select(F.explode("pairs.format").alias("format")), "format"),
        statuses=_counted(frame, "status"),
        pairs_per_document=per_document,
        completion_tokens=_counted(frame, "n_completion_tokens"),
    )


def _shard_sets(frame: "DataFrame | None", job: Job) -> list[ShardSet] | None:
    """The fingerprint of each set that its manifest names, else the newest; shards of others stay in the table as
    history, and a set that became again what it was has no new rows there."""
    if frame is None:
        return None
    from pyspark.sql import functions as F

    sums = [F.sum(name).alias(name) for name in ("rows", "tokens", "documents", "bytes")]
    rows = (
        frame.groupBy("shard_set", "fingerprint", "sequence_length")
        .agg(*sums, F.max("written_at").alias("written_at"))
        .orderBy("written_at")
        .collect()
    )
    newest = {row["shard_set"]: row for row in rows}
    present = {name: _fingerprint(job.lakehouse.shard_set(name)) for name in newest}
    newest |= {row["shard_set"]: row for row in rows if row["fingerprint"] == present[row["shard_set"]]}
    return [
        ShardSet(name, row["rows"], row["tokens"], row["documents"], row["bytes"], row["sequence_length"])
        for name, row in sorted(newest.items())
    ]


def _fingerprint(place: str) -> str | None:
    with contextlib.suppress(DataError, ConfigError, OSError):  # removed, or in a store that is not reached
        return read_manifest(place).fingerprint
    return None


def _scores(frame: "DataFrame | None", models: Sequence[str]) -> list[Score] | None:
    """Rows of the newest evaluation of each step, models in the order given."""
    if frame is None:
        return None
    from pyspark.sql import functions as F

    newest = frame.groupBy("step").agg(F.max("written_at").alias("written_at"))
    names = ("subject", "task", "metric", "value", "low", "high", "n")
    rows = frame.join(newest, ["step", "written_at"]).select(*names).collect()
    position = {name: index for index, name in enumerate(models)}
    rows.sort(key=lambda row: (position.get(row["subject"], len(position)), row["subject"], row["metric"]))
    return [Score(*row) for row in rows]


def _examples(frame: "DataFrame", number: int, seed: int) -> list[Example]:
    """Documents drawn by hash, whatever became of them."""
    from pyspark.sql import functions as F

    order = F.md5(F.concat_ws(":", F.lit(seed), "doc_id", "chunk"))
    columns = ("source", "chain_id", "round", "doc_id", "chunk", "status", "context", "completion", "pairs")
    rows = frame.select(*columns, "rejected_pairs").orderBy(order).limit(number).collect()
    return [
        Example(
            name=f"{row['source']} · document {row['doc_id'][:12]}:{row['chunk']} · chain {row['chain_id'][:12]}, "
            f"round {row['round']}",
            status=row["status"],
            context=row["context"],
            completion=row["completion"],
            pairs=[pair.asDict() for pair in row["pairs"]],
            rejected_pairs=[piece.asDict() for piece in row["rejected_pairs"]],
        )
        for row in rows
    ]


def read_curve(folder: Path) -> LossCurve | None:
    """The loss of a training from its ``history.jsonl``, or None where there is none.

    ``folder`` is the training's folder or the model's inside it. A step without a finite loss, and a line cut off by a
    crash, are left out.
    """
    path = next(
        (place / "history.jsonl" for place in (folder, folder.parent) if (place / "history.jsonl").is_file()), None
    )
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path is not None else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    shown = [record for record in records if record["loss"] is not None]
    if not shown:
        return None
    return LossCurve(
        tokens=[float(record["tokens"]) for record in shown],
        loss=[float(record["loss"]) for record in shown],
        seconds=sum(record["step_seconds"] for record in records),
    )


def _steps(job: Job, curves: Mapping[str, LossCurve]) -> list[StepTime] | None:
    """Time of the steps from MLflow, and of the trainings from their histories."""
    trainings = [StepTime(f"train {name}", "train", curve.seconds, 0) for name, curve in curves.items()]
    return [*_tracked(job), *trainings] or None


def _tracked(job: Job) -> Iterable[StepTime]:
    """Seconds and rows of every finished run, added up by step, in the order the steps first ran."""
    uri = job.lakehouse.tracking_uri
    file = database_file(uri)
    if file is not None and not file.is_file():
        return []  # nothing has been tracked, and asking would make the file
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(job.lakehouse.config.experiment)
    if experiment is None:
        return []
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    rows: dict[tuple[str, str], float] = defaultdict(float)
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        for run in page:
            metrics, tags = run.data.metrics, run.data.tags
            # A streaming step that found nothing new took time only to look.
            idle = "micro_batches" not in metrics and tags.get("ipt.verb") in _STREAMING
            if "ipt.step" not in tags or "seconds" not in metrics or idle or tags["ipt.step"] == job.step:
                continue
            key = (tags["ipt.step"], tags["ipt.verb"])
            seconds[key] += metrics["seconds"]
            rows[key] += sum(metrics.get(table, 0.0) for table in _READ if table != "rejects")
        token = page.token
        if not token:
            break
    return [StepTime(step, verb, seconds[step, verb], int(rows[step, verb])) for step, verb in seconds]


_STREAMING = frozenset({"ingest", "collect", "curate", "synthesize", "augment"})
