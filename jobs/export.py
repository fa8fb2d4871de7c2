"""``export``: writes a text table as files that other trainers read, JSON lines in the Hub's layouts or Parquet.

Reads one text table at its newest version and writes ``exports/<step>/`` (or ``output``): the files, and
``export.json``, which lists them with their hashes, the table, its version, the sources and their licences. The folder
is put in place when it is complete; one that is there already for the same table and settings is left as it is.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Verb
from jobs.sharding.texts import RowFilter, chosen_rows, contents, ordered_texts, say_unused
from udfs.config import Config, fingerprint
from udfs.errors import DataError
from udfs.text.export import ExportPlan, export_rows

if TYPE_CHECKING:
    import pyarrow as pa

RECORD = "export.json"
_SCHEMA = "path string, rows long, bytes long, sha256 string"


class ExportConfig(Config):
    """Settings of one export."""

    table: Literal["documents", "augmented_texts", "instructions", "tuning_examples"]
    format: Literal["jsonl", "parquet"] = "jsonl"
    filter: RowFilter = RowFilter()
    # Folder that is written, below the root unless absolute; without it `exports/<step>`.
    output: str | None = None
    # Files that the texts are shuffled over, by hash; of tuning examples each dataset has as many.
    files: int = Field(1, ge=1, le=100_000)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_the_table(self) -> "ExportConfig":
        self.filter.check(self.table)
        return self


def export(config: ExportConfig, job: Job) -> dict[str, float]:
    """Make the folder what the table and the settings say; nothing to do where it is that already.

    Raises:
        DataError: the table has no text that the filter takes, or the folder holds something else.
    """
    version = job.lakehouse.version(config.table)
    if version < 0:
        raise DataError(f"table {config.table} does not exist yet. Run the step that writes it first.")
    source = {"table": config.table, "table_id": job.lakehouse.identity(config.table), "version": version}
    wanted = fingerprint({**config.model_dump(mode="json", exclude={"output"}), **source})
    folder = job.lakehouse.path(config.output or f"exports/{job.step}")
    present = _present(folder)
    if present is not None and present["fingerprint"] == wanted:
        return {**_counts(present), "unchanged": 1.0}

    rows = chosen_rows(job.lakehouse, config.table, version, config.filter)
    staging = folder.with_name(f".{folder.name}.{wanted[:16]}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    plan = ExportPlan(config.table, config.format, str(staging))

    def run(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        written = list(export_rows((row for batch in batches for row in batch.to_pylist()), plan))
        if written:
            yield pa.RecordBatch.from_pylist(written)

    texts = ordered_texts(rows, config.table, config.files, config.seed)
    files = sorted((row.asDict() for row in texts.mapInArrow(run, _SCHEMA).collect()), key=lambda file: file["path"])
    if not files:
        raise DataError(f"no text of {config.table} (version {version}) is left; filter: {config.filter.chosen()}.")
    say_unused(rows, config.table, config.filter, job)
    record = {
        "fingerprint": wanted,
        "source": source,
        "contents": [content.model_dump() for content in contents(rows, config.table, job.lakehouse)],
        "files": files,
    }
    (staging / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for left in staging.rglob(".*.tmp"):  # of tasks that were killed and run again
        left.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    return _counts(record)


def _present(folder: Path) -> dict[str, Any] | None:
    """What the export in the folder says of itself; None where there is no such folder.

    Raises:
        DataError: the folder is there, but no export: it would be overwritten.
    """
    if not folder.exists():
        return None
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {"fingerprint": record["fingerprint"], "files": record["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is there, but holds no export ({RECORD} is missing or damaged). Remove it or set `output`."
        ) from error


def _counts(record: dict[str, Any]) -> dict[str, float]:
    return {
        "files": float(len(record["files"])),
        "rows": float(sum(file["rows"] for file in record["files"])),
        "bytes": float(sum(file["bytes"] for file in record["files"])),
    }


def _reads(config: ExportConfig) -> tuple[str, ...]:
    return (config.table,)


VERB = Verb(name="export", config=ExportConfig, run=export, reads=_reads, makes=lambda config, step: config.output)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["export", *sys.argv[1:]]))
