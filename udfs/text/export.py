"""Texts and examples as files for other trainers: JSON lines in the layouts of the Hub, or Parquet.

- texts: ``part-0/shard/00000.txt`` (``.parquet``), records ``{"text": ...}``, up to 1,000 files in a part;
- tuning examples: ``<dataset>/shard/00000.jsonl`` (``.parquet``), records ``{"context", "QA_list": [{"Q", "A"}]}``.

Texts have no BOS and EOS; general instructions are question and response, joined by one space.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from udfs.shards.format import checksum

FILES_PER_PART = 1_000
_ROWS_PER_GROUP = 1_000

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ExportPlan:
    """What is written where: the table the rows are of, ``jsonl`` or ``parquet``, and the folder."""

    table: str
    format: str
    folder: str


def export_rows(rows: Iterable[Row], plan: ExportPlan) -> Iterator[dict[str, Any]]:
    """Writes the files of the buckets the rows belong to; yields path, rows, bytes and sha256 of each.

    Args:
        rows: rows with ``bucket`` and the columns of their table, sorted by bucket, each bucket complete.
    """
    for bucket, members in groupby(rows, key=lambda row: row["bucket"]):
        files: dict[str, _File] = {}
        try:
            for row in members:
                path, record = _placed(row, bucket, plan)
                if path not in files:
                    files[path] = _WRITERS[plan.format](Path(plan.folder) / path)
                files[path].write(record)
        finally:
            for file in files.values():
                file.close()
        for path, file in sorted(files.items()):
            target = Path(plan.folder) / path
            os.replace(file.temporary, target)
            yield {"path": path, "rows": file.rows, "bytes": target.stat().st_size, "sha256": checksum(target)}


def _placed(row: Row, bucket: int, plan: ExportPlan) -> tuple[str, dict[str, Any]]:
    """File and record of a row."""
    if plan.table == "tuning_examples":
        suffix = "jsonl" if plan.format == "jsonl" else "parquet"
        pairs = [{"Q": pair["Q"], "A": pair["A"]} for pair in row["QA_list"]]
        # A dataset's name comes from a folder or from configuration; as a folder it must stay one.
        name = row["dataset"].replace("/", "_").replace("\\", "_").lstrip(".") or "unnamed"
        return f"{name}/shard/{bucket:05d}.{suffix}", {"context": row["context"], "QA_list": pairs}
    suffix = "txt" if plan.format == "jsonl" else "parquet"
    part, number = divmod(bucket, FILES_PER_PART)
    text = f"{row['question']} {row['response']}" if plan.table == "instructions" else row["text"]
    return f"part-{part}/shard/{number:05d}.{suffix}", {"text": text}


class _File:
    """A file that gets its name when it is whole. The process id keeps two attempts at the same work apart."""

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        self.rows = 0

    def write(self, record: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _JsonLines(_File):
    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._file: IO[str] = self.temporary.open("w", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.rows += 1

    def close(self) -> None:
        self._file.close()


class _Parquet(_File):
    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._writer: Any = None
        self._waiting: list[dict[str, Any]] = []

    def write(self, record: dict[str, Any]) -> None:
        self._waiting.append(record)
        self.rows += 1
        if len(self._waiting) == _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self._waiting)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.temporary, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._waiting = []

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()


_WRITERS: dict[str, type[_File]] = {"jsonl": _JsonLines, "parquet": _Parquet}
