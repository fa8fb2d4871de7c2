"""Rendered texts beside the pairs that they were made from, out of the tables."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from jobs.reporting.data import Rendering

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def draw_renderings(texts: "DataFrame", syntheses: "DataFrame", number: int, seed: int) -> list[Rendering]:
    """``number`` rendered texts drawn by hash, each with the pairs of its chain in the order of their rounds.

    Args:
        texts: ``augmented_texts``; those without pairs are left out, for nothing is rendered in them.
        syntheses: the table of that name.
        number: how many, fewer where there are not so many.
        seed: another one draws other texts.
    """
    from pyspark.sql import functions as F

    order = F.md5(F.concat_ws(":", F.lit(seed), "text_id"))
    columns = ("chain_id", "source", "mode", "inverted", "template_ids", "text")
    drawn = texts.where("n_pairs > 0").orderBy(order).limit(number).select(*columns).collect()
    pairs: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    chains = syntheses.where(F.col("chain_id").isin({row["chain_id"] for row in drawn}))
    for row in chains.select("chain_id", "round", "pairs").orderBy("chain_id", "round").collect():
        pairs[row["chain_id"]] += [pair.asDict() for pair in row["pairs"]]
    return [
        Rendering(
            name=f"{row['source']} · chain {row['chain_id'][:12]} · {row['mode']}{', inverted' * row['inverted']}",
            templates=row["template_ids"],
            text=row["text"],
            pairs=pairs[row["chain_id"]],
        )
        for row in drawn
    ]
