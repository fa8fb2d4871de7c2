"""Records from files, one at a time: JSON lines, JSON, Parquet, CSV, text and WARC, plain or as gzip or zstd.

Memory stays flat however large the file is (a Parquet file: one row group). What cannot be read costs what it is: a bad
line one reject, a file that ends early one reject for its rest. Nothing is skipped silently, except blank lines.

A record is called ``<file>#<number>``, numbers from 1: the line in JSON lines, the data row in CSV and Parquet, the
value in JSON, the document in WARC; a plain text file is one record.
"""

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from udfs.rejects import PAYLOAD_CHARACTERS, reject
from udfs.text.csv_lines import CsvLines
from udfs.text.files import COMPRESSIONS, DAMAGED, Damaged, is_damage, open_bytes, open_raw, plain_path
from udfs.text.json_window import JsonWindow
from udfs.text.warc import documents

# A record of this size is no document; without a bound one file without line ends would fill the worker's memory.
MAX_RECORD_BYTES = 64 << 20

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
    ".warc": "warc",
    ".wet": "warc",
}
FORMATS = ("jsonl", "json", "parquet", "csv", "text", "corpus", "warc")
# The augmented corpora on the Hub: JSON lines under a name that says otherwise.
_CORPUS = re.compile(r"(^|/)part-\d+/shard/\d+\.txt$")

# Half of a UTF-16 pair: written as an escape it is valid JSON, but no encoding and no table can hold it.
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_PARQUET_ROWS = 64
_BLOCK = 1 << 16

Reject = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A record as read: ``record_id`` is ``<file>#<number>``, ``fields`` its values by name."""

    record_id: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class _Bad:
    reason: str
    detail: str
    payload: str = ""


_Numbered = Iterator[tuple[int, dict[str, Any] | _Bad]]


def detect_format(uri: str) -> str | None:
    """The format that the file's path says, a compression suffix aside; None where it says none of ``FORMATS``."""
    name = _uncompressed(uri)
    if _CORPUS.search(name):
        return "corpus"
    return next((format for suffix, format in SUFFIXES.items() if name.endswith(suffix)), None)


def _uncompressed(uri: str) -> str:
    """The file's path in small letters, a compression suffix aside."""
    name = uri.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name


def read_records(uri: str, format: str = "auto", text_field: str = "text", stage: str = "ingest") -> Iterator:
    """The records of a file, and a reject for each that cannot be had.

    Args:
        uri: the file as Spark names it, or a path.
        format: one of ``FORMATS``, or ``auto`` to go by the name.
        text_field: name of the field that takes the text where a record is nothing but text.
        stage: verb that rejects.

    Yields:
        ``Record``, or a row of the ``rejects`` table: ``unreadable_file``, ``invalid_json``, ``invalid_record``,
        ``invalid_encoding`` or ``too_long`` (over ``MAX_RECORD_BYTES``).

    Raises:
        OSError: the store fails in a way that another attempt may mend.
        EnvironmentProblem: the store's driver is not installed.
    """
    uri = plain_path(uri)
    name = detect_format(uri) if format == "auto" else format
    if name is None:
        known = ", ".join(SUFFIXES)
        yield reject(stage, uri, "unreadable_file", f"the name does not tell the format (known: {known}); set `format`")
        return
    number = 0
    try:
        for number, item in _READERS[name](uri, text_field):
            if isinstance(item, _Bad):
                yield reject(stage, f"{uri}#{number}", item.reason, item.detail, item.payload)
            else:
                yield Record(f"{uri}#{number}", item)
    except DAMAGED as error:
        if not is_damage(error):
            raise
        detail = f"reading ended after record {number}: {type(error).__name__}: {error}"
        yield reject(stage, f"{uri}#{number + 1}", "unreadable_file", detail)


def as_json(value: Any) -> str:
    """``value`` as JSON text; what JSON has no form for (a date, a decimal) as its string."""
    return json.dumps(value, ensure_ascii=False, default=str)


def as_metadata(fields: dict[str, Any], *without: str) -> dict[str, str]:
    """The fields as strings, all but ``without`` and those that are None; strings as they are, others as JSON."""
    return {
        key: value if isinstance(value, str) else as_json(value)
        for key, value in fields.items()
        if key not in without and value is not None
    }


def _checked(value: Any, source: str, text_field: str) -> dict[str, Any] | _Bad:
    """``value``, parsed from ``source``, as a record; a bare string is a text."""
    if _SURROGATE.search(source):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            detail = f"not UTF-8 or half of a surrogate pair: {error.reason}"
            return _Bad("invalid_encoding", detail, _shown(source))
    if isinstance(value, str):
        return {text_field: value}
    if isinstance(value, dict):
        return value
    return _Bad("invalid_record", f"a JSON {type(value).__name__} instead of an object", source)


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes | None, bytes]]:
    """Line number, the line (None where it is too long) and its beginning."""
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) <= MAX_RECORD_BYTES:
            yield number, line, line[:PAYLOAD_CHARACTERS]
            continue
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(_BLOCK)
        yield number, None, line[:PAYLOAD_CHARACTERS]


def _read_json_lines(uri: str, text_field: str) -> _Numbered:
    for number, value, line in _json_lines(uri):
        yield number, value if isinstance(value, _Bad) else _checked(value, line, text_field)


def _json_lines(uri: str) -> Iterator[tuple[int, Any, str]]:
    """Line number, value (or what is wrong with the line) and the line."""
    with open_bytes(uri) as stream:
        for number, line, head in _lines(stream):
            shown = head.decode("utf-8", "replace")
            if line is None:
                yield number, _Bad("too_long", f"the line is longer than {MAX_RECORD_BYTES} bytes", shown), shown
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, json.loads(text), text
            except UnicodeDecodeError as error:
                yield number, _Bad("invalid_encoding", str(error), shown), shown
            except (ValueError, RecursionError) as error:
                yield number, _Bad("invalid_json", str(error), shown), shown


def _read_corpus(uri: str, text_field: str) -> _Numbered:
    """JSON lines whose values are a text, an object, or a list of these; each member of a list is a record."""
    for number, value, line in _json_lines(uri):
        for member in value if isinstance(value, list) else [value]:
            yield number, member if isinstance(member, _Bad) else _checked(member, line, text_field)


def _read_warc(uri: str, text_field: str) -> _Numbered:
    with open_bytes(uri) as stream:
        for number, item in enumerate(documents(stream, text_field, MAX_RECORD_BYTES), start=1):
            yield number, item if isinstance(item, dict) else _Bad(*item)


def _read_json(uri: str, text_field: str) -> _Numbered:
    """Arrays of records, one record, or records one after another (JSON lines under the wrong name)."""
    with open_bytes(uri) as stream:
        window = JsonWindow(_text_of(stream), MAX_RECORD_BYTES)
        has_arrays = window.skip("") == "["
        in_array = False
        number = 0
        while True:
            start = window.skip("," if in_array else "")
            if not in_array and not start:
                return
            if has_arrays and start == ("]" if in_array else "["):
                window.at += 1
                in_array = not in_array
                continue
            number += 1
            try:
                value, source = window.value()
            except (ValueError, RecursionError) as error:
                rest = "; the rest of the array cannot be read" if in_array else ""
                yield number, _Bad("invalid_json", f"{error}{rest}", _shown(window.ahead(PAYLOAD_CHARACTERS)))
                if in_array:
                    return
                window.skip_to_line("{")
                continue
            yield number, _checked(value, source, text_field)


def _text_of(stream: IO[bytes]) -> IO[str]:
    # Bytes that are not UTF-8 become lone surrogates, by which the record they are in is found and rejected.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read_csv(uri: str, text_field: str) -> _Numbered:
    delimiter = "\t" if _uncompressed(uri).endswith(".tsv") else ","
    csv.field_size_limit(MAX_RECORD_BYTES)
    with open_bytes(uri) as stream:
        lines = CsvLines(_text_of(stream))
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            lines.row.clear()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                detail = f"the row that begins in line {lines.begun} ends in line {lines.number}: {error}"
                if header is None:
                    yield number, _Bad("unreadable_file", f"no header: {detail}", _shown("".join(lines.row)))
                    return
                lines.put_back(delimiter, len(header))
                yield number, _Bad("invalid_record", detail, _shown("".join(lines.row)))
                continue
            if not row:
                continue
            if header is None:
                header = _names(row)
                continue
            number += 1
            line = delimiter.join(row)
            if _SURROGATE.search(line) and not _is_encodable(line):
                yield number, _Bad("invalid_encoding", f"line {lines.number} is not UTF-8", _shown(line))
            elif len(row) != len(header):
                detail = f"line {lines.number} has {len(row)} fields, the header has {len(header)}"
                yield number, _Bad("invalid_record", detail, line)
            else:
                yield number, dict(zip(header, row, strict=True))


def _names(row: list[str]) -> list[str]:
    """The columns of a file, so that none of them costs a record or a field: a name that is not UTF-8 is written as
    what it is, a name that occurs again gets its number (``a``, ``a.2``)."""
    names: list[str] = []
    for name in row:
        known = name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        number = 1
        while name in names:
            number += 1
            name = f"{known}.{number}"
        names.append(name)
    return names


def _shown(source: str) -> str:
    """The beginning of ``source``, as a table can hold it."""
    return source[:PAYLOAD_CHARACTERS].encode("utf-8", "replace").decode()


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_text(uri: str, text_field: str) -> _Numbered:
    with open_bytes(uri) as stream:
        content = stream.read(MAX_RECORD_BYTES + 1)
    shown = content[:PAYLOAD_CHARACTERS].decode("utf-8", "replace")
    if len(content) > MAX_RECORD_BYTES:
        yield 1, _Bad("too_long", f"the file is longer than {MAX_RECORD_BYTES} bytes", shown)
        return
    try:
        yield 1, {text_field: content.decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        yield 1, _Bad("invalid_encoding", str(error), shown)


def _read_parquet(uri: str, text_field: str) -> _Numbered:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with _seekable(uri) as stream:
        try:
            file = pq.ParquetFile(stream)
            names = _names(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                batch = batch.rename_columns(names)
                for row in range(batch.num_rows):
                    number += 1
                    try:
                        record = batch.slice(row, 1).to_pylist()[0]
                        yield number, {key: _decoded(value, key == text_field) for key, value in record.items()}
                    except UnicodeDecodeError as error:
                        yield number, _Bad("invalid_encoding", str(error))
                    except (ValueError, ArithmeticError, LookupError) as error:
                        # A date or a duration that Python has no form for, a time zone that nobody knows.
                        yield number, _Bad("invalid_record", f"{type(error).__name__}: {error}")
        except pa.ArrowException as error:
            raise Damaged(str(error)) from error


def _decoded(value: Any, is_text: bool) -> Any:
    """``value`` with byte strings, as which many writers store text, as strings; only the text itself must be UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "strict" if is_text else "backslashreplace")
    return value


def _seekable(uri: str) -> IO[bytes]:
    """Parquet is read from its end, so a compressed file is unpacked beside first."""
    if not uri.lower().endswith(COMPRESSIONS):
        return open_raw(uri)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    with open_bytes(uri) as stream:
        shutil.copyfileobj(stream, unpacked)
    unpacked.seek(0)
    return unpacked


_READERS: dict[str, Callable[[str, str], _Numbered]] = {
    "jsonl": _read_json_lines,
    "json": _read_json,
    "parquet": _read_parquet,
    "csv": _read_csv,
    "text": _read_text,
    "corpus": _read_corpus,
    "warc": _read_warc,
}
