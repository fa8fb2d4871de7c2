"""Between frames and pure functions: the Arrow adapter for row functions, and what is done to outcome frames."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from jobs.lakehouse.tables import TABLES, outcome_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Row = dict[str, Any]
Outcome = tuple[str, Row]

# A batch ends at whichever comes first: long texts would make a thousand rows more than Arrow and the worker can hold.
ROWS_PER_BATCH = 1_000
CHARACTERS_PER_BATCH = 1 << 24
# Of a batch of Spark's (10,000 rows) so many are Python objects at a time: more leave the processor's cache, and the
# garbage collector goes through them again and again.
ROWS_AT_ONCE = 200


def map_rows(frame: "DataFrame", function: Callable[[Iterator[Row]], Iterable[Outcome]], *tables: str) -> "DataFrame":
    """The outcome frame of a function over the rows of a partition.

    Args:
        frame: any frame.
        function: takes the partition's rows as dictionaries, yields ``(table, row)``; rows lack the provenance columns.
            It runs in an executor, so it must be picklable and use only ``udfs``.
        tables: every table the function may name.
    """
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = outcome_schema(*tables)
    arrow_schema = to_arrow_schema(schema)

    def run(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        empty = dict.fromkeys(tables)
        pending: list[Row] = []
        characters = 0
        for table, row in function(_rows(batches)):
            pending.append({**empty, table: row})
            characters += sum(len(value) for value in row.values() if isinstance(value, str))
            if len(pending) >= ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
                yield pa.RecordBatch.from_pylist(pending, schema=arrow_schema)
                pending, characters = [], 0
        if pending:
            yield pa.RecordBatch.from_pylist(pending, schema=arrow_schema)

    return frame.mapInArrow(run, schema)


def _rows(batches: "Iterable[pa.RecordBatch]") -> Iterator[Row]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            yield from batch.slice(start, ROWS_AT_ONCE).to_pylist()


def without_duplicates(outcome: "DataFrame", table: str, key: str, existing: "DataFrame", stage: str) -> "DataFrame":
    """Turn rows of ``table`` whose ``key`` is in ``existing`` or earlier in the batch into rejects.

    Within the batch the row with the smallest content wins (ties broken by the whole row), so that a repeated
    computation keeps the same one.

    Args:
        outcome: outcome frame with the columns ``table`` and ``rejects``.
        key: column of ``table`` that must be unique.
        existing: frame that has the column ``key``: what is there already.
        stage: verb that rejects.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    row, key_column = F.col(table), F.col(f"{table}.{key}")
    known = existing.select(F.col(key).alias("_known")).distinct()
    # Rows of other tables stay in the frame, each in a group of its own: a union of two filters would compute the
    # outcome twice.
    apart = F.xxhash64(F.to_json(F.struct(*outcome.columns))).cast("string")
    order = Window.partitionBy("_group").orderBy(F.to_json(row))
    rows = (
        outcome.withColumn("_group", F.coalesce(key_column, apart))
        .withColumn("_position", F.row_number().over(order))
        .join(known, key_column == F.col("_known"), "left")
        .withColumn("_duplicate", row.isNotNull() & (F.col("_known").isNotNull() | (F.col("_position") > 1)))
    )
    rejected = F.struct(
        F.lit(stage).alias("stage"),
        _record_id(outcome, table, key).alias("record_id"),
        F.lit("duplicate").alias("reason"),
        F.when(F.col("_known").isNotNull(), F.lit(f"already in {table}"))
        .otherwise(F.lit("earlier in the same batch"))
        .alias("detail"),
        F.lit("").alias("payload"),
    ).cast(TABLES["rejects"].schema)
    replaced = {
        table: F.when(~F.col("_duplicate"), row),
        "rejects": F.when(F.col("_duplicate"), rejected).otherwise(F.col("rejects")),
    }
    return rows.select(*[replaced.get(name, F.col(name)).alias(name) for name in outcome.columns])


def _record_id(outcome: "DataFrame", table: str, key: str) -> Any:
    """The key with what tells the record apart from others of the same key: its place, else its document."""
    from pyspark.sql import functions as F

    fields = outcome.schema[table].dataType.fieldNames()  # type: ignore[attr-defined]
    named = [name for name in (key, "uri", "doc_id") if name in fields][:2]
    return F.concat_ws(" ", *(F.col(f"{table}.{name}") for name in dict.fromkeys(named)))
