"""The steps of curation that look at one document: rows of ``raw_documents`` to rows of ``documents``."""

from typing import Any

from udfs.hashing import identifier, unit
from udfs.rejects import reject
from udfs.text.chunk import Count, chunk
from udfs.text.normalise import normalise

STAGE = "curate"

_Row = tuple[str, dict[str, Any]]


def arm_of(doc_id: str, convert_share: float) -> str:
    """``convert`` for a share of all documents, else ``raw``: a function of the id alone, whatever else is there."""
    return "convert" if unit(doc_id, "arm") < convert_share else "raw"


def clean(raw: dict[str, Any], min_characters: int, max_characters: int, convert_share: float) -> _Row:
    """``(table, row)`` of one raw document: the whole text in normal form as chunk 0, or why it does not go on.

    ``n_tokens`` stays 0 until the document is cut.
    """
    text = normalise(raw["text"])
    if not text:
        return "rejects", reject(STAGE, raw["doc_id"], "empty_text", raw["uri"], raw["text"])
    if len(text) < min_characters:
        detail = f"{len(text)} characters, at least {min_characters} are asked for; {raw['uri']}"
        return "rejects", reject(STAGE, raw["doc_id"], "too_short", detail, text)
    if len(text) > max_characters:
        detail = f"{len(text)} characters, at most {max_characters} are allowed; {raw['uri']}"
        return "rejects", reject(STAGE, raw["doc_id"], "too_long", detail, text)
    return "documents", {
        "doc_id": raw["doc_id"],
        "chunk": 0,
        "source": raw["source"],
        "domain": raw["domain"],
        "language": None,
        "arm": arm_of(raw["doc_id"], convert_share),
        "n_tokens": 0,
        "content_hash": identifier(text),
        "license": raw["license"],
        "text": text,
    }


def cut(document: dict[str, Any], limit: int, count: Count) -> list[dict[str, Any]]:
    """The chunks of a whole document, each of at most ``limit`` tokens."""
    pieces = enumerate(chunk(document["text"], limit, count))
    return [{**document, "chunk": number, "text": text, "n_tokens": tokens} for number, (text, tokens) in pieces]
