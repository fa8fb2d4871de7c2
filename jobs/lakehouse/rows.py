"""Between frames and pure functions: the Arrow adapter for row functions, and what is done to outcome frames."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from jobs.lakehouse.tables import TABLES, outcome_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Row = dict[str, Any]
Outcome = tuple[str, Row]

ROWS_PER_BATCH = 1_000


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
        for table, row in function(row for batch in batches for row in batch.to_pylist()):
            pending.append({**empty, table: row})
            if len(pending) >= ROWS_PER_BATCH:
                yield pa.RecordBatch.from_pylist(pending, schema=arrow_schema)
                pending = []
        if pending:
            yield pa.RecordBatch.from_pylist(pending, schema=arrow_schema)

    return frame.mapInArrow(run, schema)


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

    is_row = F.col(table).isNotNull()
    key_column = F.col(f"{table}.{key}")
    known = existing.select(F.col(key).alias("_known")).distinct()
    order = Window.partitionBy("_key").orderBy(F.to_json(F.col(table)))
    rows = (
        outcome.filter(is_row)
        .withColumn("_key", key_column)
        .withColumn("_position", F.row_number().over(order))
        .join(known, F.col("_key") == F.col("_known"), "left")
        .withColumn("_duplicate", F.col("_known").isNotNull() | (F.col("_position") > 1))
    )
    reject_type = TABLES["rejects"].schema
    rejected = F.struct(
        F.lit(stage).alias("stage"),
        F.concat_ws(" ", F.col("_key"), _uri(outcome, table)).alias("record_id"),
        F.lit("duplicate").alias("reason"),
        F.when(F.col("_known").isNotNull(), F.lit(f"already in {table}"))
        .otherwise(F.lit("earlier in the same batch"))
        .alias("detail"),
        F.lit("").alias("payload"),
    ).cast(reject_type)
    split = rows.select(
        F.when(~F.col("_duplicate"), F.col(table)).alias(table),
        F.when(F.col("_duplicate"), rejected).alias("rejects"),
    )
    others = [name for name in outcome.columns if name not in (table, "rejects")]
    for name in others:
        split = split.withColumn(name, F.lit(None).cast(TABLES[name].schema))
    return split.unionByName(outcome.filter(~is_row))


def _uri(outcome: "DataFrame", table: str) -> Any:
    from pyspark.sql import functions as F

    fields = outcome.schema[table].dataType.fieldNames()  # type: ignore[attr-defined]
    return F.col(f"{table}.uri") if "uri" in fields else F.lit(None).cast("string")
