"""``curate``: streams ``raw_documents`` into ``documents``: clean texts, once each, cut to the synthesizer's context.

A document goes to the synthesizer (arm ``convert``) or stays raw text by the hash of its id, so the arm never changes
when data or settings are added.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows, without_duplicates
from jobs.lakehouse.stage import Stage, Verb
from udfs.config import Config
from udfs.text.chunk import MIN_TOKENS
from udfs.text.curation import STAGE, clean, cut
from udfs.tokens import load_tokenizer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class CurateConfig(Config):
    """Settings of ``curate``."""

    # The synthesizer's tokenizer, a folder or a file that every executor can read.
    tokenizer: str = Field(min_length=1)
    # Leaves room beside the text for the earlier examples of a chain and for the pairs.
    chunk_tokens: int = Field(default=512, ge=MIN_TOKENS)
    # Share of the documents that the synthesizer converts; the others go on as raw text.
    convert_share: float = Field(default=1.0, ge=0.0, le=1.0)
    # Of the whole document in normal form. Shorter ones hold too little to ask about; longer ones than a long book are
    # logs and dumps as a rule.
    min_characters: int = Field(default=32, ge=1)
    max_characters: int = Field(default=5_000_000, ge=1)
    # Files of the Delta table in a micro-batch: bounds what is staged and what a crash costs.
    files_per_batch: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "CurateConfig":
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters {self.min_characters} exceeds max_characters {self.max_characters}")
        return self


def _check(config: CurateConfig, job: Job) -> None:
    load_tokenizer(job.lakehouse.path(config.tokenizer))


def _transform(batch: "DataFrame", config: CurateConfig, job: Job) -> "DataFrame":
    """The steps in order. Up to the last one a row is a whole document, so a step judges documents, not chunks."""
    outcome = _cleaned(batch, config)
    outcome = without_duplicates(outcome, "documents", "content_hash", job.lakehouse.read("documents"), STAGE)
    return _chunked(outcome, config, job)


def _cleaned(batch: "DataFrame", config: CurateConfig) -> "DataFrame":
    bounds = (config.min_characters, config.max_characters, config.convert_share)

    def run(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        return (clean(row, *bounds) for row in rows)

    columns = ("doc_id", "source", "domain", "uri", "license", "text")
    return map_rows(batch.select(*columns), run, "documents", "rejects")


def _chunked(outcome: "DataFrame", config: CurateConfig, job: Job) -> "DataFrame":
    tokenizer_path, limit = str(job.lakehouse.path(config.tokenizer)), config.chunk_tokens

    def run(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        tokenizer = load_tokenizer(tokenizer_path)
        for row in rows:
            if row["documents"] is None:
                yield "rejects", row["rejects"]
                continue
            for document in cut(row["documents"], limit, lambda text: len(tokenizer.encode(text))):
                yield "documents", document

    return map_rows(outcome, run, "documents", "rejects")


VERB = Verb(
    name="curate",
    config=CurateConfig,
    needs=lambda config: [config.tokenizer],
    stage=Stage(source="raw_documents", writes=("documents", "rejects"), transform=_transform, reads=("documents",)),
    check=_check,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["curate", *sys.argv[1:]]))
