"""The records a reader yields, how a malformed one is refused, and the options all readers share."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from pydantic import Field, model_validator

from udfs.config import Config
from udfs.hashing import unit
from udfs.rejects import PAYLOAD_CHARACTERS, REASONS

Recast = dict[str, Any]
Value = TypeVar("Value")


class RecastOptions(Config):
    """What to take from a published set.

    window: words of a context, for sets whose contexts are whole articles (``squad`` only); None keeps contexts whole.
    part: keep the records whose text hashes into [low, high), so that two sources can share a file and no text.
    """

    window: int | None = Field(default=None, ge=20)
    part: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> "RecastOptions":
        low, high = self.part
        if not 0.0 <= low < high <= 1.0:
            raise ValueError("part must be two numbers with 0 <= low < high <= 1, e.g. [0.0, 0.8]")
        return self

    def selects(self, text: str) -> bool:
        """Whether the record with this text is in the configured part: a pure function of the text."""
        low, high = self.part
        return low <= unit("recast part", text) < high


EVERYTHING = RecastOptions()


class Malformed(Exception):
    """A record, or a whole file, that cannot go on; ``reason`` is one of ``udfs.rejects.REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, f"unknown reason {reason!r}"
        super().__init__(detail)
        self.reason = reason


class Reader(Protocol):
    """Reads one file of a published set. Never raises for what is in the file: that becomes a reject."""

    def __call__(self, path: str, options: RecastOptions = EVERYTHING) -> Iterator[Recast]: ...


def reader(
    entries: Callable[[str], Iterator[Value]], recast: Callable[[Value, RecastOptions], Iterable[Recast]]
) -> Reader:
    """A reader from two functions: the entries of a file, and the records of one entry."""

    def read(path: str, options: RecastOptions = EVERYTHING) -> Iterator[Recast]:
        try:
            for entry in entries(path):
                try:
                    # In full before the first is handed on: an entry gives all of its records or a reject.
                    records = list(recast(entry, options))
                except Malformed as error:
                    records = [refused(error, entry)]
                yield from records
        except Malformed as error:
            yield refused(error, path)

    return read


def example(context: str, pairs: Iterable[tuple[str, str]], dataset: str | None = None) -> Recast:
    """A context with its questions and answers.

    Raises:
        Malformed: the context is blank or there is no pair.
    """
    listed = [{"Q": _encodable(question).strip(), "A": _encodable(answer).strip()} for question, answer in pairs]
    if not context.strip():
        raise Malformed("missing_text", "the context is blank")
    if not listed:
        raise Malformed("no_pairs", "the context has no question with an answer")
    return {"kind": "example", "dataset": dataset, "context": _encodable(context).strip(), "QA_list": listed}


def instruction(question: str, response: str) -> Recast:
    """A general instruction and its response."""
    return {"kind": "instruction", "question": _encodable(question).strip(), "response": _encodable(response).strip()}


def text(body: str, title: str = "", **metadata: str) -> Recast:
    """A text as raw material.

    Raises:
        Malformed: the text is blank.
    """
    if not body.strip():
        raise Malformed("missing_text", "the text is blank")
    described = {name: _encodable(value) for name, value in metadata.items()}
    return {"kind": "text", "text": _encodable(body).strip(), "title": _encodable(title).strip(), "metadata": described}


def refused(error: Malformed, record: Any) -> Recast:
    """The reject that stands for ``record``."""
    if isinstance(record, bytes):
        payload = record.decode("utf-8", "replace")
    elif isinstance(record, str):
        payload = record
    else:
        payload = json.dumps(record, ensure_ascii=False, default=str)
    return {
        "kind": "reject",
        "reason": error.reason,
        "detail": str(error).encode("utf-8", "replace").decode("utf-8"),
        "payload": payload[:PAYLOAD_CHARACTERS].encode("utf-8", "replace").decode("utf-8"),
    }


def take(record: Any, key: str, kind: type[Value]) -> Value:
    """``record[key]``, checked.

    Raises:
        Malformed: ``record`` is no mapping, the key is missing, the value has another type or is blank text.
    """
    if not isinstance(record, dict) or key not in record:
        raise Malformed("invalid_record", f"there is no field {key!r}")
    value = record[key]
    if not isinstance(value, kind):
        raise Malformed("invalid_record", f"{key!r} must be {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, str) and not value.strip():
        raise Malformed("invalid_record", f"{key!r} is blank")
    if isinstance(value, str):
        _encodable(value)
    return value


def _encodable(value: str) -> str:
    """The text itself; JSON can spell half a surrogate pair, which no table can store."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed("invalid_encoding", str(error)) from error
    return value
