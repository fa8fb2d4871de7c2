"""The texts of a shard set: which rows of a table, in which order, and whose they are."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from jobs.lakehouse.tables import TABLES
from udfs.config import Config
from udfs.shards.manifest import Content

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from jobs.lakehouse.job import Job
    from jobs.lakehouse.lakehouse import Lakehouse

# Columns that make a row's id, and the columns that make its text.
TEXTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "documents": (("doc_id", "chunk"), ("text",)),
    "augmented_texts": (("text_id",), ("text",)),
    "instructions": (("instruction_id",), ("question", "response")),
    "tuning_examples": (("example_id",), ("dataset", "context", "QA_list")),
    "conversations": (("conversation_id",), ("messages",)),
}
# The column that says whose a row is, where it is not `source`.
_OWNER = {"tuning_examples": "dataset", "conversations": "dataset"}


class RowFilter(Config):
    """Which rows: each list names the values of a column that are taken; an empty list takes all."""

    arm: list[Literal["convert", "raw"]] = Field(default_factory=list)
    source: list[str] = Field(default_factory=list)
    domain: list[str] = Field(default_factory=list)
    dataset: list[str] = Field(default_factory=list)

    def chosen(self) -> dict[str, list[str]]:
        """The columns that are restricted, with their values in order."""
        return {column: sorted(values) for column, values in self if values}

    def check(self, table: str) -> None:
        """Raises ValueError where the table has no such column."""
        columns = {column.name for column in TABLES[table].columns}
        for name in self.chosen():
            if name not in columns:
                raise ValueError(f"filter.{name}: {table} has no such column")


def chosen_rows(lakehouse: "Lakehouse", table: str, version: int, taken: RowFilter) -> "DataFrame":
    """The rows of the table at that version that the filter takes."""
    from pyspark.sql import functions as F

    frame = lakehouse.read(table, version)
    for column, values in taken.chosen().items():
        frame = frame.filter(F.col(column).isin(values))
    return frame


def say_unused(rows: "DataFrame", table: str, taken: RowFilter, job: "Job") -> None:
    """Say which values of the filter none of the rows taken has: they may be misspelled."""
    from pyspark.sql import functions as F

    chosen = taken.chosen()
    if not chosen:
        return
    found = rows.agg(*[F.collect_set(column).alias(column) for column in chosen]).collect()[0]
    for column, values in chosen.items():
        unused = sorted(set(values) - set(found[column]))
        if unused:
            job.progress.step(job.step, f"filter.{column}: no text of {table} has {', '.join(unused)}")


def with_most_pairs(rows: "DataFrame", contexts: int) -> "DataFrame":
    """Of each dataset of tuning examples at most so many, those with the most pairs; a hash decides between equals."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("dataset").orderBy(F.desc("n_pairs"), F.md5("example_id"), "example_id")
    ranked = rows.withColumn("_rank", F.row_number().over(order))
    return ranked.filter(F.col("_rank") <= contexts).drop("_rank")


def ordered_texts(rows: "DataFrame", table: str, partitions: int, seed: int) -> "DataFrame":
    """The rows to shard: bucket, id and the columns of the text, each bucket complete and in order in one partition.

    A text's place is a hash of its id and the seed; the hash's first 32 bits, scaled, are its bucket, so that the
    buckets in order are the global order.
    """
    from pyspark.sql import functions as F

    _, columns = TEXTS[table]
    place = F.md5(F.concat_ws(":", F.lit(str(seed)), F.col("id")))
    return (
        rows.select(text_key(table).alias("id"), *columns)
        .withColumn("place", place)
        .withColumn("bucket", _bucket(F.col("place"), partitions))
        .repartitionById(partitions, "bucket")
        .sortWithinPartitions("bucket", "place", "id")
        .select("bucket", "id", *columns)
    )


def text_key(table: str) -> "Column":
    """The id of a row's text, as it stands in the ``doc_ids`` of a shard."""
    from pyspark.sql import functions as F

    return F.concat_ws(":", *[F.col(column).cast("string") for column in TEXTS[table][0]])


def contents(rows: "DataFrame", table: str, lakehouse: "Lakehouse") -> list[Content]:
    """Whose the rows are: each source with its licences and its number of rows.

    The licences of augmented texts are those that the same source has in ``documents``, which they were made from.
    """
    from pyspark.sql import functions as F

    owner = _OWNER.get(table, "source")
    counts = rows.groupBy(F.col(owner).alias("name")).count()
    licensed = lakehouse.read("documents") if table == "augmented_texts" else rows
    named = licensed.groupBy(F.col(owner).alias("name")).agg(
        F.collect_set(F.coalesce("license", F.lit("unknown"))).alias("licenses")
    )
    found = counts.join(named, "name", "left").collect()
    return [
        Content(source=row["name"], licenses=sorted(row["licenses"] or ["unknown"]), texts=row["count"])
        for row in sorted(found, key=lambda row: row["name"])
    ]


def _bucket(place: "Column", partitions: int) -> "Column":
    from pyspark.sql import functions as F

    first = F.conv(F.substring(place, 1, 8), 16, 10).cast("long")
    return F.shiftright(first * F.lit(partitions), 32).cast("int")
