"""What a synthesis will cost, told from a sample of chains run through the engine, and held against the run afterwards.

Documents and chains are counted, not guessed (each sample of a document as one). Tokens are: the sample is whole chains
as the job forms them, so later rounds carry what they will carry, and a total is the sample's tokens per token of text
times the tokens of all texts (a ratio estimate, Cochran, Sampling Techniques, 3rd edition, 6.4; its interval treats
chains as clusters). The interval tells what sampling leaves open, not what documents yet to come will be like.
"""

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows
from udfs.config import Config
from udfs.errors import DataError
from udfs.statistics import Z_95, Estimate
from udfs.synthesis.chains import JournalPlace, synthesize_partition
from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.engines.config import EngineConfig
from udfs.synthesis.journal import counts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FILE = "estimate.json"


class EstimateOptions(Config):
    """What ``--estimate`` is asked.

    Attributes:
        documents: of the sample, about; whole chains are taken.
        tokens_per_second: generated tokens per second of one engine; None takes the speed of the sample.
        price_per_hour: of one engine, in any currency; None tells no price.
    """

    documents: int = Field(ge=1)
    tokens_per_second: float | None = Field(None, gt=0)
    price_per_hour: float | None = Field(None, ge=0)


def ratio_total(parts: Sequence[float], sizes: Sequence[float], whole: float) -> Estimate:
    """The sum over everything of what ``parts`` are over a sample, when the known ``sizes`` of everything sum to
    ``whole``; with a 95% interval.

    Args:
        parts: what was measured, a value for each cluster of the sample.
        sizes: sizes of those clusters.
        whole: size of everything, the sample among it.

    Raises:
        ValueError: no clusters, or sizes that sum to nothing.
    """
    n, size = len(parts), sum(sizes)
    if not n or size <= 0:
        raise ValueError(f"a total needs a sample of some size, not {n} clusters of {size} in all.")
    ratio = sum(parts) / size
    spread = sum((part - ratio * own) ** 2 for part, own in zip(parts, sizes, strict=True)) / max(1, n - 1)
    unseen = max(0.0, 1 - size / whole)
    half = Z_95 * whole / (size / n) * math.sqrt(unseen * spread / n)
    value = ratio * whole
    return Estimate(value, max(0.0, value - half), value + half, n)


def estimate(
    chained: "DataFrame",
    engine: EngineConfig,
    checks: CheckSettings,
    rounds: int,
    samples: int,
    options: EstimateOptions,
    job: Job,
) -> dict[str, Any]:
    """Run the sample and write what is expected beside the step's state; nothing is written to tables.

    Args:
        chained: documents to be converted, with chains.
        engine: as the job will run it.
        checks: which pairs later rounds will see.
        rounds: documents of a chain.
        samples: of each document.
        options: what was asked.
        job: the step.

    Raises:
        DataError: there is nothing to convert, or nothing of the sample could be.
    """
    from pyspark.sql import functions as F

    totals = chained.agg(
        F.count("*").alias("documents"), F.countDistinct("chain_key").alias("chains"), F.sum("n_tokens").alias("tokens")
    ).collect()[0]
    if not totals["documents"]:
        raise DataError("there are no documents left to convert, so there is nothing to estimate.")
    # Chains in the order of a hash: those that come first in a partition are the longest.
    order = F.xxhash64(F.to_json("chain_key"), F.lit("estimate"))
    names = chained.select("chain_key").distinct().orderBy(order, F.to_json("chain_key"))
    sample = chained.join(names.limit(math.ceil(options.documents / rounds)), "chain_key")
    sample = sample.repartition(1).sortWithinPartitions("chain_key", "round")
    lengths = {
        (row["doc_id"], row["chunk"]): row["n_tokens"] for row in sample.select("doc_id", "chunk", "n_tokens").collect()
    }
    # For the engine's own clock: the time to start it is no part of the speed.
    scratch = job.lakehouse.step_path(job.step, "estimate-journal")
    shutil.rmtree(scratch, ignore_errors=True)
    function = partial(synthesize_partition, config=engine, checks=checks, place=JournalPlace(str(scratch), 1))
    outcome = map_rows(sample, function, "syntheses", "rejects").select("syntheses.*")
    rows = [row.asDict() for row in outcome.collect() if row["chain_id"] is not None]
    used = counts(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    if not rows:
        raise DataError("not one document of the sample could be converted; run with --preview to see why.")
    clusters: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        clusters[row["chain_id"]].append(row)
    sizes = [float(sum(lengths[row["doc_id"], row["chunk"]] for row in chain)) for chain in clusters.values()]

    def total(value: str) -> Estimate:
        parts = [float(sum(row[value] for row in chain)) for chain in clusters.values()]
        return ratio_total(parts, sizes, float(totals["tokens"]))

    completion = total("n_completion_tokens")
    speed = options.tokens_per_second or used["generated_tokens"] / used["seconds"]
    found: dict[str, Any] = {
        "documents": totals["documents"],
        "samples": samples,
        "chains": totals["chains"],
        "sample_documents": len(rows),
        "prompt_tokens": vars(total("n_prompt_tokens")),
        "completion_tokens": vars(completion),
        "tokens_per_second": speed,
        "measured": options.tokens_per_second is None,
        "engine_hours": [value / speed / 3600 for value in (completion.value, completion.low, completion.high)],
    }
    if options.price_per_hour is not None:
        found["price"] = [hours * options.price_per_hour for hours in found["engine_hours"]]
    file = job.lakehouse.step_path(job.step, FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def show(found: Mapping[str, Any]) -> str:
    """An estimate for a person."""

    def tokens(name: str) -> str:
        value = found[name]
        return f"{value['value']:,.0f} ({value['low']:,.0f} to {value['high']:,.0f})"

    def three(name: str, unit: str) -> str:
        value, low, high = found[name]
        return f"{value:,.4g}{unit} ({low:,.4g} to {high:,.4g})"

    measured = "as measured on the sample, which may not fill the engine" if found["measured"] else "as given"
    each = f" ({found['samples']} samples of each)" if found["samples"] > 1 else ""
    lines = [
        f"documents          {found['documents']:,} in {found['chains']:,} chains{each}",
        f"prompt tokens      {tokens('prompt_tokens')}",
        f"completion tokens  {tokens('completion_tokens')}",
        f"engine time        {three('engine_hours', ' h')} at {found['tokens_per_second']:,.1f} tokens/s, {measured}",
    ]
    if "price" in found:
        lines.append(f"price              {three('price', '')}")
    return "\n".join([*lines, f"95% intervals, from {found['sample_documents']:,} documents; written down for the run"])


def compare(found: Mapping[str, Any], documents: float, prompt: float, completion: float) -> dict[str, float]:
    """Metrics ``estimate/<quantity>_error``: how far an estimate was off, as a share of what came true."""
    pairs = {
        "documents": (found["documents"], documents),
        "prompt_tokens": (found["prompt_tokens"]["value"], prompt),
        "completion_tokens": (found["completion_tokens"]["value"], completion),
    }
    return {f"estimate/{name}_error": expected / true - 1 for name, (expected, true) in pairs.items() if true}
