"""Render chains of documents and pairs into finished training texts.

Streams ``syntheses`` and writes ``augmented_texts``: one M-shot text per chain and view, and every document without
pairs as it is. ``synthesize`` commits the rows of a chain together, so a chain is rendered in the micro-batch that
holds its last row, from all its rows in the table. A chain that cannot be rendered goes to ``rejects``.
"""

import sys
from typing import TYPE_CHECKING

from pydantic import Field

from jobs.lakehouse.stage import Job, Stage, Verb
from udfs.templates.render import RenderSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ROW = ("round", "chain_id", "doc_id", "chunk", "source", "domain", "context", "pairs")


class AugmentConfig(RenderSettings):
    """Settings of the rendering, and how much of it."""

    # Renderings of the same pairs; each view draws its own templates. Raw texts are written once.
    views: int = Field(default=1, ge=1)
    # Files of `syntheses` per micro-batch; None takes all there are.
    files_per_batch: int | None = Field(default=None, ge=1)


def augment(batch: "DataFrame", config: AugmentConfig, job: Job) -> "DataFrame":
    """Outcome frame of the chains whose last row is in the micro-batch."""
    from pyspark.sql import functions as F

    from jobs.lakehouse.rows import map_rows

    # The last row is the one of the highest round there is: the document of the planned last round may be a reject.
    arrived = batch.groupBy("chain_id").agg(F.max("round").alias("arrived"))
    chains = (
        job.lakehouse.read("syntheses")
        .join(arrived, "chain_id")
        .groupBy("chain_id", "arrived")
        .agg(F.collect_list(F.struct(*_ROW)).alias("rows"), F.max("round").alias("last"))
        .where(F.col("arrived") == F.col("last"))
        .select("chain_id", "rows")
    )
    settings = RenderSettings(**{name: getattr(config, name) for name in RenderSettings.model_fields})
    views = config.views

    def render(rows):  # type: ignore[no-untyped-def]  # Iterator[dict] to Iterator[tuple[str, dict]]
        from udfs.templates.render import render_rows

        return render_rows(rows, settings, views)

    return map_rows(chains, render, "augmented_texts", "rejects")


VERB = Verb(
    name="augment",
    config=AugmentConfig,
    stage=Stage(source="syntheses", writes=("augmented_texts", "rejects"), transform=augment),
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["augment", *sys.argv[1:]]))
