"""Take near-duplicate pairs out of ``syntheses``: of pairs that say nearly the same, wherever in the corpus, one stays.

Pairs are compared by MinHash. Every pair is held against the first one, by chain, round and place, of each bucket it
falls into, and goes if the two are as similar as the threshold. Rows that lose a pair are updated in one commit, a new
version of the table; the pair is then in ``rejected_pairs`` as ``near_duplicate``. ``reparse`` brings it back.
"""

import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows
from jobs.lakehouse.stage import Verb
from jobs.lakehouse.tables import TABLES
from udfs.config import Config
from udfs.synthesis.pairs import build

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

_IDENTITY = ("doc_id", "chunk", "chain_id", "round", "completion")
_ROW = "sha2(concat_ws('\\u001f', doc_id, chunk, chain_id, round, completion), 256)"


class DeduplicateConfig(Config):
    """When two pairs are the same."""

    # Estimated Jaccard similarity of their characters, five at a time.
    threshold: float = Field(default=0.8, gt=0, le=1)


def deduplicate(config: DeduplicateConfig, job: Job) -> dict[str, float]:
    """Update ``syntheses``; the numbers of its pairs before, and of those that went."""
    from pyspark.sql import functions as F

    columns = [column.name for column in TABLES["syntheses"].columns]
    version = job.lakehouse.version("syntheses")
    table = job.lakehouse.read("syntheses", version if version >= 0 else None).withColumn("_row", F.expr(_ROW))
    folder = job.lakehouse.step_path(job.step, "staging")
    # Signatures are computed once and read twice.
    signed = _signed(table, config.threshold)
    signed.write.mode("overwrite").parquet(str(folder / "signatures"))
    signed = job.spark.read.schema(signed.schema).parquet(str(folder / "signatures"))
    found = _duplicates(signed, config.threshold).groupBy("_row").agg(F.collect_set("_place").alias("_places"))
    outcome = map_rows(table.join(found, "_row").select(*columns, "_places"), _without, "syntheses")
    outcome.write.mode("overwrite").parquet(str(folder / "rows"))
    changed = job.spark.read.schema(outcome.schema).parquet(str(folder / "rows")).select("syntheses.*")
    size = F.coalesce(F.sum(F.size("pairs")), F.lit(0))
    before, rows = table.agg(size.alias("pairs")).first(), changed.count()
    if rows:
        job.lakehouse.update(job.with_provenance(changed.dropDuplicates(list(_IDENTITY))), "syntheses", _IDENTITY)
    after = job.lakehouse.read("syntheses").agg(size.alias("pairs")).first()
    shutil.rmtree(folder, ignore_errors=True)
    assert before is not None and after is not None  # an aggregate has a row
    return {"pairs": float(before["pairs"]), "near_duplicates": float(before["pairs"] - after["pairs"])}


def _signed(table: "DataFrame", threshold: float) -> "DataFrame":
    """A row for each pair: its row and place in it, its rank among all pairs, its signature and its buckets."""

    def sign(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        from udfs.synthesis.near_duplicates import bands, signature

        for batch in batches:
            rows = []
            for row in batch.to_pylist():
                for place, pair in enumerate(row["pairs"]):
                    values = signature(pair)
                    rank = f"{row['chain_id']} {row['round']:08d} {place:08d} {row['_row']}"
                    named = {"_row": row["_row"], "_place": place, "_rank": rank}
                    rows.append({**named, "_signature": values, "_buckets": bands(values, threshold)})
            if rows:
                yield pa.RecordBatch.from_pylist(rows, schema=schema)

    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("_row", "_rank")]
    lists = [("_signature", pa.list_(pa.int64())), ("_buckets", pa.list_(pa.string()))]
    schema = pa.schema([*texts, ("_place", pa.int32()), *lists])
    declared = "_row string, _rank string, _place int, _signature array<bigint>, _buckets array<string>"
    return table.select("_row", "chain_id", "round", "pairs").mapInArrow(sign, declared)


def _duplicates(signed: "DataFrame", threshold: float) -> "DataFrame":
    """``_row`` and ``_place`` of the pairs that an earlier one is like."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    bucket = Window.partitionBy("_bucket")
    candidates = (
        signed.select("_row", "_place", "_rank", F.explode("_buckets").alias("_bucket"))
        .withColumn("_first", F.min("_rank").over(bucket))
        .filter("_first < _rank")
        .select("_row", "_place", "_rank", "_first")
        .distinct()
    )
    signatures = signed.select(F.col("_rank"), F.col("_signature"))
    firsts = signed.select(F.col("_rank").alias("_first"), F.col("_signature").alias("_other"))
    alike = _similarity("_signature", "_other") >= threshold
    return candidates.join(signatures, "_rank").join(firsts, "_first").filter(alike).select("_row", "_place")


def _similarity(first: str, second: str) -> "Column":
    from pyspark.sql import functions as F

    same = F.zip_with(first, second, lambda one, other: F.when(one == other, 1).otherwise(0))
    return F.aggregate(same, F.lit(0), lambda total, one: total + one) / F.size(first)


def _without(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in rows:
        places = set(row.pop("_places"))
        kept = [pair for place, pair in enumerate(row["pairs"]) if place not in places]
        gone = [pair for place, pair in enumerate(row["pairs"]) if place in places]
        pieces = [{"text": build([pair]), "reason": "near_duplicate"} for pair in gone]
        status = row["status"] if kept else "no_pairs"
        yield "syntheses", {**row, "pairs": kept, "rejected_pairs": row["rejected_pairs"] + pieces, "status": status}


VERB = Verb(name="deduplicate", config=DeduplicateConfig, run=deduplicate, reads=("syntheses",), writes=("syntheses",))

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["deduplicate", *sys.argv[1:]]))
