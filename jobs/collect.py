"""``collect``: streams question-answering sets into ``tuning_examples``, general instructions into ``instructions``,
and chat data into ``conversations``.

Question-answering sets hold records ``{"context", "QA_list": [{"Q", "A"}, ...]}``, in the Hub's layout
(``<dataset>/shard/*.jsonl``) or any file format ``ingest`` reads, or are published sets that are recast on the way.
Of the published tuning collection all 35 folders must be there, or those that are asked for. General instructions hold
``{"question", "response"}``, as OpenOrca does, or ``conversations``, as LIMA and WizardLM's evolved instructions do; a
system prompt beside them is dropped. Conversations hold ``messages``, or ``prompt`` and ``completion``, as the sets of
Instruction Modelling do (``udfs.text.messages``).
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobs.lakehouse.files import located, stream_files
from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows, without_duplicates
from jobs.lakehouse.stage import Stage, Verb
from udfs.config import Config
from udfs.text.collection import check_folders
from udfs.text.files import folders
from udfs.text.sources import TuningSource
from udfs.text.tuning import STAGE, tuning_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_KEYS = {"tuning_examples": "example_id", "instructions": "instruction_id", "conversations": "conversation_id"}


class CollectConfig(Config):
    """Settings of ``collect``."""

    sources: tuple[TuningSource, ...] = Field(min_length=1)
    # Bounds what a micro-batch stages and what a crash costs; each micro-batch has some seconds of overhead.
    files_per_batch: int = Field(default=256, ge=1)


def _source(config: CollectConfig, job: Job) -> "DataFrame":
    return stream_files(located(config.sources, job), config.files_per_batch, job)


def _transform(files: "DataFrame", config: CollectConfig, job: Job) -> "DataFrame":
    sources = located(config.sources, job)

    def read(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield from tuning_rows(row["path"], sources)

    outcome = map_rows(files, read, *_KEYS, "rejects")
    for table, key in _KEYS.items():
        outcome = without_duplicates(outcome, table, key, job.lakehouse.read(table), STAGE)
    return outcome


def _check(config: CollectConfig, job: Job) -> None:
    for source in located(config.sources, job):
        if source.collection:
            check_folders(source.datasets, folders(source.path), source.path)


VERB = Verb(
    name="collect",
    config=CollectConfig,
    needs=lambda config: [source.path for source in config.sources],
    stage=Stage(source=_source, writes=(*_KEYS, "rejects"), transform=_transform, reads=tuple(_KEYS)),
    check=_check,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["collect", *sys.argv[1:]]))
