"""The content of published files: lines, JSON values and CSV rows, in UTF-8."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from udfs.text.files import DAMAGED, is_damage, open_bytes
from udfs.text.recast.records import Malformed

_BOM = b"\xef\xbb\xbf"


def lines(path: str) -> Iterator[bytes]:
    """The lines of a file as bytes, without their ends, one at a time.

    Raises:
        Malformed: the file cannot be opened, or not be decompressed to its end.
        OSError: the store does not answer; a retry may help.
    """
    try:
        with open_bytes(path) as stream:
            for number, line in enumerate(stream):
                yield (line.removeprefix(_BOM) if number == 0 else line).rstrip(b"\r\n")
    except DAMAGED as error:
        if not is_damage(error):
            raise
        raise Malformed("unreadable_file", f"{path}: {error}") from error


def decode(raw: bytes) -> str:
    """UTF-8 text.

    Raises:
        Malformed: the bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("invalid_encoding", str(error)) from error


def parse(raw: bytes) -> Any:
    """The JSON value of some bytes.

    Raises:
        Malformed: the bytes are not UTF-8 or not JSON.
    """
    try:
        return json.loads(decode(raw))
    except (ValueError, RecursionError) as error:  # not JSON, a number of too many digits, or nesting without end
        raise Malformed("invalid_json", str(error)) from error


def json_file(path: str) -> Any:
    """The one JSON value of a whole file.

    Raises:
        Malformed: as ``lines`` and ``parse``.
    """
    return parse(b"\n".join(lines(path)))


def json_lines(path: str) -> Iterator[bytes]:
    """The lines of a JSON lines file that hold something; left as bytes, so that one bad line is one bad record."""
    return (line for line in lines(path) if line.strip())


def csv_rows(path: str, required: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its header; fields may hold line breaks. Missing cells are empty.

    Raises:
        Malformed: as ``lines`` and ``decode``, or the header lacks a required column.
    """
    whole = decode(b"\n".join(lines(path)))
    rows = csv.DictReader(io.StringIO(whole, newline=""), restval="")
    missing = [name for name in required if name not in (rows.fieldnames or ())]
    if missing:
        raise Malformed("invalid_record", f"{path} has no column {', '.join(missing)}")
    try:
        return [{name: value for name, value in row.items() if name is not None} for row in rows]
    except csv.Error as error:
        raise Malformed("invalid_record", f"{path}: {error}") from error
