"""Write instruction-response pairs about documents.

Streams ``documents`` (the share to convert), forms chains of ``rounds`` documents of one source, has the synthesizer
read them in carryover rounds, and writes ``syntheses`` and ``rejects``: one row for each document, or for each sample
of it. Chains depend on the documents of the micro-batch and on the seed, not on their order or on how they are
partitioned.
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows
from jobs.lakehouse.stage import Stage, Verb
from jobs.synthesis.estimate import EstimateOptions, show
from jobs.synthesis.estimate import estimate as estimated
from jobs.synthesis.meter import SynthesisMeter, documents_left
from udfs.config import Config, build
from udfs.errors import ConfigError
from udfs.synthesis.chains import (
    CHAIN_COLUMN,
    PARTITION_COLUMN,
    ROUND_COLUMN,
    SAMPLE_COLUMN,
    JournalPlace,
    synthesize_partition,
)
from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.engines.config import EngineConfig
from udfs.synthesis.engines.endpoint import EndpointConfig
from udfs.synthesis.engines.rules import RulesConfig, mine_partition
from udfs.synthesis.engines.vllm import VllmConfig
from udfs.tokens import load_tokenizer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def _engine_name(engine: Any) -> str:
    """`name` of an engine's settings, before and after they are checked; vllm where none is given."""
    return str(engine.get("name", "vllm") if isinstance(engine, dict) else getattr(engine, "name", "vllm"))


class SynthesizeConfig(Config):
    """Chains and the engine that works on them."""

    # `name` tells which engine: vllm (in the Spark workers), endpoint (a server with OpenAI's completions protocol) or
    # rules (mined from the text, no model).
    engine: Annotated[
        Annotated[VllmConfig, Tag("vllm")]
        | Annotated[EndpointConfig, Tag("endpoint")]
        | Annotated[RulesConfig, Tag("rules")],
        Discriminator(_engine_name),
    ]
    # Documents of a chain, M: 2 for models trained from scratch and 3 for domain adaptation, as published.
    rounds: int = Field(2, ge=1)
    # Chains made of the same documents, each sampled anew: so many rows of `syntheses` for a document. Needs a
    # temperature.
    samples: int = Field(1, ge=1)
    # Tasks the chains are shared out to, each with an engine of its own: one per GPU. On one small machine two engines
    # are slower than one.
    partitions: int = Field(1, ge=1)
    # Decides which documents meet in a chain.
    seed: int = 0
    # Which pairs are kept; the others are in `rejected_pairs`, and later rounds do not see them.
    checks: CheckSettings = CheckSettings()
    # Files of `documents` in a micro-batch. Chains are formed inside one, so large ones leave fewer short chains.
    files_per_batch: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _samples_differ(self) -> "SynthesizeConfig":
        if self.samples > 1 and not (isinstance(self.engine, EngineConfig) and self.engine.temperature):
            raise ValueError(
                f"samples {self.samples}: without sampling every sample of a document would be the same; raise "
                "engine.temperature of an engine with a model above 0, or set samples to 1"
            )
        return self


def with_chains(documents: "DataFrame", rounds: int, partitions: int, seed: int, samples: int = 1) -> "DataFrame":
    """``documents`` in ``partitions`` partitions, each chain whole in one of them and sorted by round.

    Adds ``chain_key``, ``round`` (from 0), ``sample`` and ``partition``; a document has a row for each of ``samples``.
    The samples of a chain are neighbours and begin with the same prompt, which the engine's prefix cache holds. A chain
    has ``rounds`` documents of one source, the last one of a source those that remain. Which documents meet, and in
    which order, follows from a hash of their keys and from nothing else. Partitions have nearly equal shares of the
    tokens: chains are dealt out from the longest to the shortest, forth and back, and that is also the order in which a
    partition runs them, so that no long one is left for the end.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    key = ["doc_id", "chunk"]
    in_source = Window.partitionBy("source").orderBy(F.xxhash64(*key, F.lit(seed), F.lit("order")), *key)
    chain = Window.partitionBy("source", "_number")
    # Over keys and lengths alone: one task sees all of them.
    dealt = Window.orderBy(F.desc("_tokens"), "source", "_number")
    turn = F.pmod(F.col("_rank"), F.lit(2 * partitions))
    places = (
        documents.select(*key, "source", "n_tokens")
        .withColumn("_position", F.row_number().over(in_source) - 1)
        .withColumn("_number", F.floor(F.col("_position") / rounds).cast("int"))
        .withColumn(ROUND_COLUMN, F.pmod(F.col("_position"), F.lit(rounds)))
        .withColumn("_tokens", F.sum("n_tokens").over(chain))
        .withColumn("_rank", F.dense_rank().over(dealt) - 1)
        .withColumn(PARTITION_COLUMN, F.when(turn < partitions, turn).otherwise(2 * partitions - 1 - turn).cast("int"))
        .withColumn(SAMPLE_COLUMN, F.explode(F.sequence(F.lit(0), F.lit(samples - 1))))
        .withColumn(CHAIN_COLUMN, F.struct("_rank", "source", F.col("_number").alias("number"), SAMPLE_COLUMN))
        .select(*key, CHAIN_COLUMN, ROUND_COLUMN, SAMPLE_COLUMN, PARTITION_COLUMN)
    )
    return (
        documents.join(places, key)
        # By id, not by a hash of it: hashing leaves some partitions empty and gives others two shares.
        .repartitionById(partitions, PARTITION_COLUMN)
        .sortWithinPartitions(CHAIN_COLUMN, ROUND_COLUMN)
    )


def synthesize(batch: "DataFrame", config: SynthesizeConfig, job: Job) -> "DataFrame":
    """The outcome frame of a micro-batch of ``documents``."""
    return _synthesized(batch, config, job, JournalPlace(str(job.journal), config.partitions))


def _synthesized(documents: "DataFrame", config: SynthesizeConfig, job: Job, place: JournalPlace | None) -> "DataFrame":
    chained = _chained(documents, config)
    if isinstance(config.engine, RulesConfig):
        return map_rows(chained, partial(mine_partition, config=config.engine, checks=config.checks), *STAGE.writes)
    function = partial(synthesize_partition, config=_engine(config, job), checks=config.checks, place=place)
    return map_rows(chained, function, *STAGE.writes)


def _chained(documents: "DataFrame", config: SynthesizeConfig) -> "DataFrame":
    from pyspark.sql import functions as F

    chosen = documents.filter(F.col("arm") == "convert")
    columns = ("doc_id", "chunk", "source", "domain", "text", "n_tokens")
    return with_chains(chosen.select(*columns), config.rounds, config.partitions, config.seed, config.samples)


def _engine(config: SynthesizeConfig, job: Job) -> EngineConfig:
    if isinstance(config.engine, RulesConfig):
        raise ConfigError("--estimate asks what an engine with a model will cost; rules need none. Set engine.name.")
    return config.engine.model_copy(update={"model": str(job.lakehouse.path(config.engine.model))})


def preview_rows(config: SynthesizeConfig, job: Job, n: int) -> list[dict[str, Any]]:
    """The ``syntheses`` rows of ``n`` documents (fewer where some are rejected), all samples of them, round by round;
    writes nothing."""
    from pyspark.sql import functions as F

    documents = job.lakehouse.read("documents").filter(F.col("arm") == "convert")
    order = F.xxhash64("doc_id", "chunk", F.lit(config.seed), F.lit("preview"))
    outcome = _synthesized(documents.orderBy(order, "doc_id", "chunk").limit(n), config, job, None)
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


def estimate(
    config: SynthesizeConfig, job: Job, n: int, tokens_per_second: float | None, price_per_hour: float | None
) -> None:
    """Print what converting the documents that are left will cost, from a sample of ``n``.

    Raises:
        ConfigError: a number that cannot be.
        DataError: nothing is left to convert.
    """
    asked = {"documents": n, "tokens_per_second": tokens_per_second, "price_per_hour": price_per_hour}
    options = build(EstimateOptions, asked, "--estimate")
    _check(config, job)
    chained, engine = _chained(documents_left(job), config), _engine(config, job)
    found = estimated(chained, engine, config.checks, config.rounds, config.samples, options, job)
    print(show(found))


def _check(config: SynthesizeConfig, job: Job) -> None:
    if not isinstance(config.engine, RulesConfig):
        load_tokenizer(job.lakehouse.path(config.engine.model))


def _meter(config: SynthesizeConfig, job: Job) -> SynthesisMeter | None:
    return None if isinstance(config.engine, RulesConfig) else SynthesisMeter(config.samples, job)


STAGE = Stage(source="documents", writes=("syntheses", "rejects"), transform=synthesize, meter=_meter)
VERB = Verb(
    name="synthesize",
    config=SynthesizeConfig,
    stage=STAGE,
    needs=lambda config: [] if isinstance(config.engine, RulesConfig) else [config.engine.model],
    preview=preview,
    estimate=estimate,
    check=_check,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["synthesize", *sys.argv[1:]]))
