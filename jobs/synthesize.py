"""Write instruction-response pairs about documents.

Streams ``documents`` (the share to convert), forms chains of ``rounds`` documents of one source, has the synthesizer
read them in carryover rounds, and writes ``syntheses`` and ``rejects``: one row for each document. Chains depend on
the documents of the micro-batch and on the seed, not on their order or on how they are partitioned.
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobs.lakehouse.rows import map_rows
from jobs.lakehouse.stage import Job, Stage, Verb
from udfs.config import Config
from udfs.synthesis.chains import CHAIN_COLUMN, ROUND_COLUMN, synthesize_partition
from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.engines import EngineConfig
from udfs.tokens import load_tokenizer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class SynthesizeConfig(Config):
    """Chains and the engine that works on them."""

    engine: EngineConfig
    # Documents of a chain, M: 2 for models trained from scratch and 3 for domain adaptation, as published.
    rounds: int = Field(2, ge=1)
    # Tasks the chains are shared out to, each with an engine of its own: one per GPU. On one small machine two engines
    # are slower than one.
    partitions: int = Field(1, ge=1)
    # Decides which documents meet in a chain.
    seed: int = 0
    # Which pairs are kept; the others are in `rejected_pairs`, and later rounds do not see them.
    checks: CheckSettings = CheckSettings()
    # Files of `documents` in a micro-batch. Chains are formed inside one, so large ones leave fewer short chains.
    files_per_batch: int = Field(64, ge=1)


def with_chains(documents: "DataFrame", rounds: int, partitions: int, seed: int) -> "DataFrame":
    """``documents`` in ``partitions`` partitions, each chain whole in one of them and sorted by round.

    Adds ``chain_key`` and ``round`` (from 0). A chain has ``rounds`` documents of one source, the last one of a source
    in a partition those that remain. Order, chain and partition of a document follow from a hash of its key.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    key = [F.col("doc_id"), F.col("chunk"), F.lit(seed)]
    position = F.row_number().over(Window.partitionBy("source", "_bucket").orderBy("_order", "doc_id", "chunk")) - 1
    return (
        documents.withColumn("_order", F.xxhash64(*key, F.lit("order")))
        .withColumn("_bucket", F.pmod(F.xxhash64(*key, F.lit("bucket")), F.lit(partitions)).cast("int"))
        .withColumn("_position", position)
        .withColumn(ROUND_COLUMN, F.pmod(F.col("_position"), F.lit(rounds)))
        .withColumn(
            CHAIN_COLUMN,
            F.struct("source", "_bucket", F.floor(F.col("_position") / rounds).cast("int").alias("number")),
        )
        # By id, not by a hash of it: hashing leaves some partitions empty and gives others two buckets.
        .repartitionById(partitions, "_bucket")
        .sortWithinPartitions(CHAIN_COLUMN, ROUND_COLUMN)
        .drop("_order", "_bucket", "_position")
    )


def synthesize(batch: "DataFrame", config: SynthesizeConfig, job: Job) -> "DataFrame":
    """The outcome frame of a micro-batch of ``documents``."""
    from pyspark.sql import functions as F

    chosen = batch.filter(F.col("arm") == "convert").select("doc_id", "chunk", "source", "domain", "text")
    chained = with_chains(chosen, config.rounds, config.partitions, config.seed)
    model = str(job.lakehouse.path(config.engine.model))
    engine = config.engine.model_copy(update={"model": model})
    return map_rows(chained, partial(synthesize_partition, config=engine, checks=config.checks), *STAGE.writes)


def preview_rows(config: SynthesizeConfig, job: Job, n: int) -> list[dict[str, Any]]:
    """The ``syntheses`` rows of ``n`` documents (fewer where some are rejected), round by round; writes nothing."""
    from pyspark.sql import functions as F

    documents = job.lakehouse.read("documents").filter(F.col("arm") == "convert")
    order = F.xxhash64("doc_id", "chunk", F.lit(config.seed), F.lit("preview"))
    outcome = synthesize(documents.orderBy(order, "doc_id", "chunk").limit(n), config, job)
    rows = outcome.filter(F.col("syntheses").isNotNull()).select("syntheses.*").collect()
    return sorted((row.asDict(recursive=True) for row in rows), key=lambda row: (row["chain_id"], row["round"]))


def preview(config: SynthesizeConfig, job: Job, n: int) -> None:
    """Print ``n`` finished examples."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for row in preview_rows(config, job, n):
        place = f"round {row['round'] + 1} of {row['chain_length']}"
        console.rule(f"{escape(row['source'])} {row['doc_id'][:12]}:{row['chunk']}, {place}, {row['status']}")
        console.print(escape(row["context"]))
        for pair in row["pairs"]:
            console.print(f"\n[bold cyan]{escape(pair['instruction'])}[/]\n[green]{escape(pair['response'])}[/]")
        for piece in row["rejected_pairs"]:
            console.print(f"\n[red]{piece['reason']}[/] {escape(piece['text'])}")


def _check(config: SynthesizeConfig, job: Job) -> None:
    load_tokenizer(job.lakehouse.path(config.engine.model))


STAGE = Stage(source="documents", writes=("syntheses", "rejects"), transform=synthesize)
VERB = Verb(name="synthesize", config=SynthesizeConfig, stage=STAGE, preview=preview, check=_check)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["synthesize", *sys.argv[1:]]))
