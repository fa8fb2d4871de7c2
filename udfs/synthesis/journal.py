"""The journal: what the engines finished in a micro-batch that is not in the tables yet.

A folder beside the tables with a file for each attempt of each task, written to by nobody else and only appended to.
A completion is in it before anything else happens to it, so a worker, executor or driver that is killed loses no more
than the requests that were with the engine. The next attempt finds a completion by what was asked (engine, document and
prompt): another model, other sampling, another sample or another chain never takes it for its own. The runner removes
the folder when the micro-batch is in the tables.

A line is a CRC-32 in 8 hexadecimal digits, a space and a JSON array: ``["begun", key, whether by itself]`` when a
prompt goes to the engine, ``["completion", key, ...]``, ``["counts", {name: sum since the file was begun}]`` and, where
an attempt came to its own end, ``["ended"]``. Where it did not, what was with the engine may be what killed it. A line
cut short or damaged is passed over: what it held is generated again. The folder must be on storage that all executors
reach. A mount of an object store (a Databricks volume) keeps a file only once it is closed; therefore a file is closed
after ``SEGMENT_SECONDS`` and another one begun, and a lost machine costs no more than that time (a killed process costs
nothing: the system closes its files).
"""

import json
import logging
import os
import time
import uuid
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from udfs.hashing import identifier
from udfs.synthesis.engines import Completion

log = logging.getLogger(__name__)

SEGMENT_SECONDS = 60.0
# Counts are written after the completions of a step, so they are near a file's end.
_TAIL_BYTES = 1 << 18
_FIELDS = ("text", "token_ids", "finish_reason", "n_tokens", "n_cached_tokens")


class Journal:
    """The journal as one task sees it: what earlier attempts finished, and a file for what it finishes itself.

    Args:
        folder: the journal of the step; made when something is written.
        partition: number of the task's partition.
        partitions: number of partitions; what was written under another one is found too, at the price of reading it in
            every task.
        engine: description of the engine, part of every key.
    """

    def __init__(self, folder: str | Path, partition: int, partitions: int, engine: Mapping[str, Any]) -> None:
        self._folder = Path(folder)
        self._own, self._others = f"{partitions}-{partition}-", f"{partitions}-"
        self._engine = json.dumps(engine, sort_keys=True, default=str)
        self._attempt, self._segment = uuid.uuid4().hex, 0
        self._finished: dict[str, list[Any]] = {}
        # Of a key: attempts that were killed while the engine had it, and those of them when it had nothing else.
        self._deaths: dict[str, tuple[int, int]] = {}
        self._read()
        self._file: IO[bytes] | None = None
        self._opened = 0.0
        # Sums when the file was begun, and as last written.
        self._before: Mapping[str, float] = {}
        self._last: Mapping[str, float] = {}

    def key(self, document: str, prompt_ids: Iterable[int]) -> str:
        """Names what is asked of the engine about a document."""
        return identifier(self._engine, document, array("q", prompt_ids).tobytes())

    def take(self, key: str, request_id: str) -> Completion | None:
        """What an earlier attempt got, once; None if nothing is known."""
        values = self._finished.pop(key, None)
        if values is None:
            return None
        fields = dict(zip(_FIELDS, values, strict=True))
        return Completion(request_id, **{**fields, "token_ids": tuple(fields["token_ids"])})

    def deaths(self, key: str) -> tuple[int, int]:
        """Attempts that were killed while the engine had this, and those of them when it had nothing else."""
        return self._deaths.get(key, (0, 0))

    def begin(self, key: str, alone: bool) -> None:
        """Note that the engine is given this, and whether it has nothing else until this has ended."""
        self._append([["begun", key, alone]])

    def write(self, finished: Iterable[tuple[str, Completion]], counts: Mapping[str, float]) -> None:
        """Append completions with their keys, and the task's sums so far; on return they outlive the process."""
        if self._file is not None and time.monotonic() - self._opened > SEGMENT_SECONDS:
            self._close()
        since = {name: value - self._before.get(name, 0.0) for name, value in counts.items()}
        completions = (["completion", key, *(getattr(one, name) for name in _FIELDS)] for key, one in finished)
        self._append([*completions, ["counts", since]])
        self._last = dict(counts)

    def close(self) -> None:
        """The attempt has come to its own end; what was written stays."""
        if self._file is not None or self._segment:
            self._append([["ended"]])
            self._close()

    def _append(self, lines: Iterable[list[Any]]) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{self._own}{self._attempt}-{self._segment:06}.jsonl"
            self._file = open(self._folder / name, "wb")  # noqa: SIM115
            self._segment += 1
            self._opened = time.monotonic()
        self._file.write(b"".join(map(_line, lines)))
        self._file.flush()

    def _close(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self._before = self._last

    def _read(self) -> None:
        begun: dict[str, dict[str, bool]] = defaultdict(dict)
        for path in sorted(self._folder.glob("*.jsonl")):
            if not path.name.startswith(self._own) and path.name.startswith(self._others):
                continue
            attempt = begun[path.stem.rpartition("-")[0]]
            for kind, *values in _lines(path):
                if kind == "begun":
                    attempt[values[0]] = values[1]
                elif kind == "completion" and len(values) == 1 + len(_FIELDS):
                    attempt.pop(values[0], None)
                    self._finished[values[0]] = values[1:]
                elif kind == "ended":
                    attempt.clear()
        for attempt in begun.values():
            for key, alone in attempt.items():
                deaths, by_itself = self.deaths(key)
                self._deaths[key] = deaths + 1, by_itself + alone


class NoJournal:
    """For work that is not kept: a preview, an estimate."""

    def key(self, document: str, prompt_ids: Iterable[int]) -> str:
        """The document."""
        return document

    def take(self, key: str, request_id: str) -> None:
        """Nothing is known."""

    def deaths(self, key: str) -> tuple[int, int]:
        """None are known."""
        return 0, 0

    def begin(self, key: str, alone: bool) -> None:
        """Nothing is kept."""

    def write(self, finished: Iterable[tuple[str, Completion]], counts: Mapping[str, float]) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def counts(folder: str | Path) -> dict[str, float]:
    """The sums of all tasks and attempts so far: of each file its last counts; 0 for what was never counted.

    Can be read while tasks write.
    """
    total: dict[str, float] = defaultdict(float)
    for path in Path(folder).glob("*.jsonl"):
        for name, value in _last_counts(path).items():
            total[name] += value
    return total


def _last_counts(path: Path) -> dict[str, float]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            for line in reversed(file.read().splitlines(keepends=True)):
                kind, *values = _value(line) or [""]
                if kind == "counts":
                    found: dict[str, float] = values[0]
                    return found
    except FileNotFoundError:  # the micro-batch was committed meanwhile
        pass
    return {}


def _line(value: list[Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> list[Any] | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    value: list[Any] = json.loads(text)
    return value


def _lines(path: Path) -> Iterator[list[Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            value = _value(line)
            if value is None:
                log.warning("%s: line %d is cut short or damaged and is passed over", path, number)
            else:
                yield value
