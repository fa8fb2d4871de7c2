"""``ingest``: streams files, or a Delta table, into ``raw_documents``.

Reads JSON lines, JSON, Parquet, CSV, plain text and WARC, plain or as gzip or zstd, folders in the Hub's layouts
(``<name>/shard/*.jsonl``, ``part-0/shard/*.txt``), published sets in their own shapes, and Delta tables. Files are
listed by Spark and opened by the executors, record by record. A row's id is the hash of its text: the same text read
again, from wherever, is a reject ``duplicate``. A file or row that was read is not read again; what appears later is
read by the next run.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from jobs.lakehouse.files import located, located_path, stream_files, stream_table
from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows, without_duplicates
from jobs.lakehouse.stage import Stage, Verb
from udfs.config import Config
from udfs.text.raw import STAGE, raw_documents, table_documents
from udfs.text.sources import TableSource, TextSource

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class IngestConfig(Config):
    """Settings of ``ingest``."""

    # Files, or ...
    sources: tuple[TextSource, ...] = ()
    # ... a Delta table. A step streams one or the other: a checkpoint belongs to what it was begun with.
    table: TableSource | None = None
    # Bounds what a micro-batch stages and what a crash costs; each micro-batch has some seconds of overhead.
    files_per_batch: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> "IngestConfig":
        if bool(self.sources) == (self.table is not None):
            raise ValueError(
                "give either `sources` (files; at least one) or `table` (a Delta table); use a step for each"
            )
        return self


def _source(config: IngestConfig, job: Job) -> "DataFrame":
    if config.table is not None:
        return stream_table(config.table, config.files_per_batch, job)
    return stream_files(located(config.sources, job), config.files_per_batch, job)


def _transform(batch: "DataFrame", config: IngestConfig, job: Job) -> "DataFrame":
    sources, table = located(config.sources, job), config.table

    def read(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            if table is not None:
                yield table_documents(row, table)
            else:
                yield from raw_documents(row["path"], sources)

    outcome = map_rows(batch, read, "raw_documents", "rejects")
    return without_duplicates(outcome, "raw_documents", "doc_id", job.lakehouse.read("raw_documents"), STAGE)


def _check(config: IngestConfig, job: Job) -> None:
    located(config.sources, job)
    if config.table is not None and config.table.path is not None:
        located_path(config.table.path, job)


def _needs(config: IngestConfig) -> Iterator[str]:
    yield from (source.path for source in config.sources)
    if config.table is not None and config.table.path is not None:
        yield config.table.path


VERB = Verb(
    name="ingest",
    config=IngestConfig,
    needs=_needs,
    stage=Stage(source=_source, writes=("raw_documents", "rejects"), transform=_transform, reads=("raw_documents",)),
    check=_check,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["ingest", *sys.argv[1:]]))
