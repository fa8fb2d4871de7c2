"""Building: the rows of one or several buckets to finished shard files; what an executor does for a shard set."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from udfs.errors import DataError
from udfs.shards.encode import EncodeSettings, encode
from udfs.shards.format import ShardInfo, ShardSpec, ShardWriter
from udfs.shards.pack import PACKINGS
from udfs.tokens import load_tokenizer


@dataclass(frozen=True)
class BuildPlan:
    """Everything an executor needs.

    Attributes:
        place: the set's folder or URL, reachable from every executor.
        generation: folder below it for this fingerprint's files.
        tokenizer: where the tokenizer is.
        spec: what all shards share.
        encoding: how rows become texts.
        packing: name in ``PACKINGS``.
        rows_per_shard: rows of every file but a bucket's last.
    """

    place: str
    generation: str
    tokenizer: str
    spec: ShardSpec
    encoding: EncodeSettings
    packing: str
    rows_per_shard: int


def build(rows: Iterable[Mapping[str, Any]], plan: BuildPlan) -> Iterator[ShardInfo | dict[str, Any]]:
    """Writes the files of the buckets the rows belong to; yields every finished file, and every rejected row.

    Args:
        rows: rows with ``bucket``, ``id`` and the columns of their table, sorted by bucket, each bucket complete.
            Files are named by bucket and number, so the same rows give the same files wherever they are built.

    Raises:
        DataError: the tokenizer is not the one the set was planned with.
    """
    # Spark runs one task per core already; threads of the tokenizer would only compete with them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = load_tokenizer(plan.tokenizer)
    if tokenizer.hash != plan.spec.tokenizer_hash:
        raise DataError(
            f"the tokenizer at {plan.tokenizer} has hash {tokenizer.hash}, the set was planned with "
            f"{plan.spec.tokenizer_hash}. Did it change while the step ran? Run the step again."
        )
    for bucket, members in groupby(rows, key=lambda row: row["bucket"]):
        rejected: list[dict[str, Any]] = []
        prefix = f"{plan.generation}/part-{bucket:05d}"
        writer = ShardWriter(plan.place, prefix, plan.spec, plan.rows_per_shard)
        try:
            texts = encode(members, plan.encoding, tokenizer, plan.spec, rejected.append)
            for packed in PACKINGS[plan.packing](texts, plan.spec):
                writer.write(packed)
                yield from rejected
                rejected.clear()
            finished = writer.close()
        finally:
            writer.abort()
        yield from rejected
        yield from finished
