"""Render chains of documents and pairs into finished training texts.

Streams ``syntheses`` and writes ``augmented_texts``: one M-shot text per chain and view, and every document of which no
sample has pairs as it is. ``synthesize`` commits the rows of a chain together, so a chain is rendered in the
micro-batch that holds its last row, from all its rows in the table. Of the table only the commits are read that the
micro-batch is from, so a micro-batch costs the same however long the table has grown. A chain that cannot be rendered
goes to ``rejects``.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Stage, Verb
from udfs.templates.render import RenderSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ROW = ("round", "chain_id", "doc_id", "chunk", "source", "domain", "context")


class AugmentConfig(RenderSettings):
    """Settings of the rendering, and how much of it."""

    # Renderings of the same pairs; each view draws its own templates. Raw texts are written once.
    views: int = Field(default=1, ge=1)
    # Files of `syntheses` per micro-batch; None takes all there are.
    files_per_batch: int | None = Field(default=None, ge=1)


def augment(batch: "DataFrame", config: AugmentConfig, job: Job) -> "DataFrame":
    """Outcome frame of the chains whose last row is in the micro-batch."""
    from jobs.lakehouse.rows import map_rows

    settings = RenderSettings(**{name: getattr(config, name) for name in RenderSettings.model_fields})
    views = config.views

    def render(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        from udfs.templates.render import render_rows

        chains = (list(members) for _, members in groupby(map(_with_pairs, rows), key=itemgetter("chain_id")))
        # The last row is the one of the highest round there is: the document of the planned last round may be a reject.
        whole = (chain for chain in chains if chain[0]["arrived"] in (None, chain[-1]["round"]))
        used = ([row for row in chain if row["pairs"] or row["raw"]] for chain in whole)
        return render_rows(filter(None, used), settings, views)

    return map_rows(chain_rows(batch, job), render, "augmented_texts", "rejects")


def _with_pairs(row: dict[str, Any]) -> dict[str, Any]:
    asked = zip(row.pop("instructions"), row.pop("responses"), strict=True)
    row["pairs"] = [{"instruction": instruction, "response": response} for instruction, response in asked]
    return row


def chain_rows(batch: "DataFrame", job: Job) -> "DataFrame":
    """All rows of the chains in the micro-batch, each chain in one partition and sorted by round; ``arrived`` is the
    highest round that the micro-batch has of the chain, None where it has all of every chain, and ``raw`` says whether
    the row, should it have no pairs, stands for its document: once for all samples, and only if none of them has pairs.
    The pairs come as two lists: the rest of them is not rendered, and plain lists are moved at less cost."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # The rows of a chain are written by one commit, and the rows of a commit have one time: the statistics of the
    # files tell which of them can be left alone. In microseconds, for a time without its zone could mean two.
    written = F.unix_micros("written_at")
    these = F.struct(F.count("*"), F.bit_xor(F.xxhash64("chain_id", "round")))
    first, last, sampled, arrivals = batch.agg(
        F.min(written), F.max(written), F.max(F.col("sample") > 0), these
    ).collect()[0]
    commits = job.lakehouse.read("syntheses").where(
        F.col("written_at").between(F.timestamp_micros(F.lit(first)), F.timestamp_micros(F.lit(last)))
    )
    # All samples of a document are in one commit.
    samples = Window.partitionBy("doc_id", "chunk")
    alone = (F.max(F.size("pairs")).over(samples) == 0) & (F.col("sample") == F.min("sample").over(samples))
    asked, replied = F.col("pairs.instruction").alias("instructions"), F.col("pairs.response").alias("responses")
    columns = (*_ROW, asked, replied, (alone if sampled else F.lit(True)).alias("raw"))
    rows = commits.select(*columns)
    if commits.agg(these).collect()[0][0] == arrivals:  # whole commits, as nearly always: there is nothing to look up
        rows = rows.withColumn("arrived", F.lit(None).cast("int"))
    else:
        rows = rows.join(batch.groupBy("chain_id").agg(F.max("round").alias("arrived")), "chain_id")
    return rows.repartition("chain_id").sortWithinPartitions("chain_id", "round")


VERB = Verb(
    name="augment",
    config=AugmentConfig,
    stage=Stage(source="syntheses", writes=("augmented_texts", "rejects"), transform=augment),
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["augment", *sys.argv[1:]]))
