"""``ingest``: streams files into ``raw_documents``.

Reads JSON lines, JSON, Parquet, CSV and plain text, plain or as gzip or zstd, folders in the Hub's layout
(``<name>/shard/*.jsonl``) and published sets in their own shapes. Files are listed by Spark and opened by the
executors, record by record. A row's id is the hash of its text: the same text read again, from whatever file, is a
reject ``duplicate``. A file that was read is not read again; files that appear later are read by the next run.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobs.lakehouse.files import located, stream_files
from jobs.lakehouse.rows import map_rows, without_duplicates
from jobs.lakehouse.stage import Job, Stage, Verb
from udfs.config import Config
from udfs.text.raw import STAGE, raw_documents
from udfs.text.sources import TextSource

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class IngestConfig(Config):
    """Settings of ``ingest``."""

    sources: tuple[TextSource, ...] = Field(min_length=1)
    # Bounds what a micro-batch stages and what a crash costs; each micro-batch has some seconds of overhead.
    files_per_batch: int = Field(default=256, ge=1)


def _source(config: IngestConfig, job: Job) -> "DataFrame":
    return stream_files(located(config.sources, job), config.files_per_batch, job)


def _transform(files: "DataFrame", config: IngestConfig, job: Job) -> "DataFrame":
    sources = located(config.sources, job)

    def read(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield from raw_documents(row["path"], sources)

    outcome = map_rows(files, read, "raw_documents", "rejects")
    return without_duplicates(outcome, "raw_documents", "doc_id", job.lakehouse.read("raw_documents"), STAGE)


def _check(config: IngestConfig, job: Job) -> None:
    located(config.sources, job)


VERB = Verb(
    name="ingest",
    config=IngestConfig,
    stage=Stage(source=_source, writes=("raw_documents", "rejects"), transform=_transform, reads=("raw_documents",)),
    check=_check,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["ingest", *sys.argv[1:]]))
