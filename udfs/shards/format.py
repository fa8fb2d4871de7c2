"""The shard file: packed token rows in an uncompressed, memory-mappable Arrow IPC file.

A row is one training sequence of ``sequence_length`` tokens: one or several documents and, at its end, padding.

    input_ids  fixed_size_list<uint16 or uint32>[L]   uint16 while the vocabulary fits
    lengths    list<int32>                            tokens of each document, in order; their sum is <= L
    doc_ids    list<string>                           where each of them came from
    roles      fixed_size_list<uint8>[L]              only for tuning data: what each token is (``ROLES``)

The schema's metadata (``ipt.*``) carry the format version, sequence length, tokenizer hash, vocabulary size and the
ids of padding and BOS. Documents of one row are separate: attention must not cross from one to another.
"""

import contextlib
import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from udfs.errors import DataError
from udfs.shards.store import NewFile, store_at

FORMAT = 1
ROLES = ("template", "context", "instruction", "response")
PADDING_ROLE = ROLES.index("template")
# Between the ids of the examples that make up a few-shot sequence, in the id of the sequence.
JOINED = "+"

_METADATA = "ipt."
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class ShardSpec:
    """What all shards of a set share.

    Attributes:
        sequence_length: tokens of a row, padding included.
        vocab_size: decides the width of a stored token.
        tokenizer_hash: hash of the tokenizer that made the ids.
        pad_token_id, bos_token_id: ids of the padding and of the token that every text begins with.
        has_roles: whether rows carry a role for each token.
    """

    sequence_length: int
    vocab_size: int
    tokenizer_hash: str
    pad_token_id: int
    bos_token_id: int
    has_roles: bool = False

    @property
    def dtype(self) -> np.dtype:
        """Type of a stored token."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row without its documents' lengths and ids."""
        return self.sequence_length * (self.dtype.itemsize + self.has_roles)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of a shard file."""
        fields = [
            pa.field("input_ids", pa.list_(pa.from_numpy_dtype(self.dtype), self.sequence_length), nullable=False),
            pa.field("lengths", pa.list_(pa.int32()), nullable=False),
            pa.field("doc_ids", pa.list_(pa.string()), nullable=False),
        ]
        if self.has_roles:
            fields.append(pa.field("roles", pa.list_(pa.uint8(), self.sequence_length), nullable=False))
        numbers = {
            "format": FORMAT,
            "sequence_length": self.sequence_length,
            "vocab_size": self.vocab_size,
            "tokenizer_hash": self.tokenizer_hash,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
        }
        return pa.schema(fields, metadata={f"{_METADATA}{key}": str(value) for key, value in numbers.items()})


@dataclass
class Rows:
    """Some packed rows.

    Attributes:
        input_ids: [rows, sequence_length] tokens.
        lengths: per row, the tokens of each document.
        doc_ids: per row, the id of each document.
        roles: [rows, sequence_length] roles, or None.
    """

    input_ids: np.ndarray
    lengths: list[list[int]]
    doc_ids: list[list[str]]
    roles: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: slice) -> "Rows":
        roles = None if self.roles is None else self.roles[rows]
        return Rows(self.input_ids[rows], self.lengths[rows], self.doc_ids[rows], roles)


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard file. ``tokens`` leaves out the padding; ``documents`` counts the texts that begin in it."""

    path: str
    sha256: str
    bytes: int
    rows: int
    tokens: int
    documents: int


class _HashingFile(io.RawIOBase):
    """A new file, with size and SHA-256 of what was written."""

    def __init__(self, file: NewFile) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.file.write(data)
        size = len(data)
        self.size += size
        return size


@dataclass
class _OpenShard:
    sink: _HashingFile
    info: ShardInfo
    writer: Any


@dataclass
class ShardWriter:
    """Writes rows into files ``<prefix>-0000.arrow``, ``<prefix>-0001.arrow``, ... of even size.

    A file gets its name only when it is whole; the same rows always give the same bytes, so whoever repeats the work
    replaces a file by an equal one.

    Args:
        place: the set's folder or URL; ``prefix`` may name folders below it.
        spec: what the set shares.
        rows_per_shard: rows of every file but the last.
    """

    place: str | Path
    prefix: str
    spec: ShardSpec
    rows_per_shard: int
    finished: list[ShardInfo] = field(default_factory=list)
    _open: _OpenShard | None = None

    def __post_init__(self) -> None:
        self._store = store_at(self.place)

    def write(self, rows: Rows) -> None:
        """Append rows, starting new files as they fill up."""
        start = 0
        while start < len(rows):
            shard = self._open or self._begin()
            stop = min(len(rows), start + self.rows_per_shard - shard.info.rows)
            self._append(shard, rows[start:stop])
            start = stop
            if shard.info.rows == self.rows_per_shard:
                self._finish(shard)

    def close(self) -> list[ShardInfo]:
        """Finish the last file and return all of them, in order."""
        if self._open is not None:
            self._finish(self._open)
        return self.finished

    def abort(self) -> None:
        """Give up the unfinished file, leaving nothing of it."""
        if self._open is not None:
            self._open.sink.file.discard()
            self._open = None

    def _begin(self) -> _OpenShard:
        name = f"{self.prefix}-{len(self.finished):04d}.arrow"
        sink = _HashingFile(self._store.create(name))
        writer = pa.ipc.new_file(sink, self.spec.schema)
        self._open = _OpenShard(sink, ShardInfo(name, "", 0, 0, 0, 0), writer)
        return self._open

    def _append(self, shard: _OpenShard, rows: Rows) -> None:
        shard.writer.write_batch(_record_batch(rows, self.spec))
        info = shard.info
        shard.info = replace(
            info,
            rows=info.rows + len(rows),
            tokens=info.tokens + sum(map(sum, rows.lengths)),
            documents=info.documents + count_documents(rows, self.spec),
        )

    def _finish(self, shard: _OpenShard) -> None:
        shard.writer.close()
        sink = shard.sink
        sink.file.commit()
        self.finished.append(replace(shard.info, sha256=sink.digest.hexdigest(), bytes=sink.size))
        self._open = None


def count_documents(rows: Rows, spec: ShardSpec) -> int:
    """Texts that begin in the rows, each example of a few-shot sequence counted. Texts begin with BOS, as a long text's
    later pieces do not; BOS elsewhere counts for nothing, for some tokenizers end texts and pad rows with it."""
    found = 0
    for ids, lengths, names in zip(rows.input_ids, rows.lengths, rows.doc_ids, strict=True):
        starts = np.cumsum([0, *lengths[:-1]])
        begun = (ids[starts] == spec.bos_token_id).tolist()
        found += sum(name.count(JOINED) + 1 for name, begins in zip(names, begun, strict=True) if begins)
    return found


def _record_batch(rows: Rows, spec: ShardSpec) -> pa.RecordBatch:
    length = spec.sequence_length
    counts = np.fromiter(map(len, rows.lengths), np.int32, len(rows))
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)]))
    lengths = np.fromiter((value for row in rows.lengths for value in row), np.int32, int(counts.sum()))
    names = pa.array([name for row in rows.doc_ids for name in row], pa.string())
    ids = pa.array(np.ascontiguousarray(rows.input_ids, spec.dtype).reshape(-1))
    columns = [
        pa.FixedSizeListArray.from_arrays(ids, length),
        pa.ListArray.from_arrays(offsets, pa.array(lengths)),
        pa.ListArray.from_arrays(offsets, names),
    ]
    if spec.has_roles:
        assert rows.roles is not None
        roles = pa.array(np.ascontiguousarray(rows.roles, np.uint8).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(roles, length))
    return pa.RecordBatch.from_arrays(columns, schema=spec.schema)


class ShardReader:
    """Random access to the rows of one shard; nothing is read before it is asked for, and nothing is copied.

    Arrays are read-only views of the mapped file and stay valid while the reader or they themselves live.

    Args:
        path: of the file.
        source: gives what is read instead, where the file is not of this machine; ``path`` then only names it.

    Raises:
        DataError: the file is missing, cut short, or not a shard of this format; the message names it.
    """

    def __init__(self, path: str | Path, source: Callable[[], pa.NativeFile] | None = None) -> None:
        self.path = Path(path)
        try:
            self._file = pa.ipc.open_file(source() if source else pa.memory_map(str(self.path), "r"))
            batches = [self._file.get_batch(index) for index in range(self._file.num_record_batches)]
        except FileNotFoundError as error:
            raise DataError(f"there is no shard at {self.path}. Has the set been replaced? Shard it again.") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"shard {self.path} is damaged ({error}). Delete the set and shard it again.") from error
        self.spec = _spec(self.path, self._file.schema)
        length = self.spec.sequence_length
        self._starts = [0]
        self._batches: list[tuple[np.ndarray, np.ndarray, np.ndarray, pa.Array, np.ndarray | None]] = []
        for batch in batches:
            lengths = batch.column("lengths")
            roles = batch.column("roles").values.to_numpy().reshape(-1, length) if self.spec.has_roles else None
            self._batches.append(
                (
                    batch.column("input_ids").values.to_numpy().reshape(-1, length),
                    lengths.values.to_numpy(),
                    lengths.offsets.to_numpy(),
                    batch.column("doc_ids").values,
                    roles,
                )
            )
            self._starts.append(self._starts[-1] + batch.num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def input_ids(self, row: int) -> np.ndarray:
        """[sequence_length] tokens, padding included."""
        batch, index = self._locate(row)
        return self._batches[batch][0][index]

    def lengths(self, row: int) -> np.ndarray:
        """[documents] int32 tokens of each document of the row, in order."""
        batch, index = self._locate(row)
        _, values, offsets, _, _ = self._batches[batch]
        return values[offsets[index] : offsets[index + 1]]

    def doc_ids(self, row: int) -> list[str]:
        """Id of each document of the row, in order."""
        batch, index = self._locate(row)
        _, _, offsets, names, _ = self._batches[batch]
        return names.slice(offsets[index], offsets[index + 1] - offsets[index]).to_pylist()

    def roles(self, row: int) -> np.ndarray | None:
        """[sequence_length] uint8 roles; None where the set has none."""
        batch, index = self._locate(row)
        roles = self._batches[batch][4]
        return None if roles is None else roles[index]

    def documents(self, row: int) -> Iterator[tuple[str, np.ndarray]]:
        """Each document of the row: where it came from, and its tokens."""
        end = 0
        for name, length in zip(self.doc_ids(row), self.lengths(row).tolist(), strict=True):
            yield name, self.input_ids(row)[end : end + length]
            end += length

    def _locate(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {self.path}, which has {len(self)}")
        batch = bisect_right(self._starts, row) - 1
        return batch, row - self._starts[batch]


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _spec(path: Path, schema: pa.Schema) -> ShardSpec:
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if metadata.get(f"{_METADATA}format") != str(FORMAT):
        found = metadata.get(f"{_METADATA}format", "none")
        raise DataError(f"{path} is not a shard of format {FORMAT} (format found: {found}). Shard the set again.")
    with contextlib.suppress(KeyError, ValueError):
        spec = ShardSpec(
            sequence_length=int(metadata[f"{_METADATA}sequence_length"]),
            vocab_size=int(metadata[f"{_METADATA}vocab_size"]),
            tokenizer_hash=metadata[f"{_METADATA}tokenizer_hash"],
            pad_token_id=int(metadata[f"{_METADATA}pad_token_id"]),
            bos_token_id=int(metadata[f"{_METADATA}bos_token_id"]),
            has_roles="roles" in schema.names,
        )
        if schema.equals(spec.schema):
            return spec
    raise DataError(f"{path} does not have the columns its metadata declare: {schema.names}. Shard the set again.")
