"""Why a record does not go on: the closed list of reasons, and the row that says so."""

from typing import Any

REASONS: dict[str, str] = {
    "unreadable_file": "the file could not be opened or decompressed to its end",
    "invalid_json": "the line or file is not JSON",
    "invalid_record": "the record does not have the shape its format asks for",
    "invalid_encoding": "the bytes are not UTF-8",
    "missing_text": "the record has no text",
    "empty_text": "nothing is left of the text after normalisation",
    "too_short": "the text is shorter than the configured minimum",
    "too_long": "the text is longer than the configured maximum",
    "duplicate": "the same text is there already",
    "no_pairs": "the example has no usable question and answer",
    "engine_error": "the engine failed on this record alone",
    "does_not_fit": "the text does not fit the context even when it stands alone",
    "contaminated": "the pair shares words with an evaluation set",
    "invalid_chain": "the chain could not be rendered",
}

PAYLOAD_CHARACTERS = 2_000


def reject(stage: str, record_id: str, reason: str, detail: str = "", payload: str = "") -> dict[str, Any]:
    """One row of the ``rejects`` table; the payload is cut to ``PAYLOAD_CHARACTERS``."""
    assert reason in REASONS, f"unknown reason {reason!r}"
    return {
        "stage": stage,
        "record_id": record_id,
        "reason": reason,
        "detail": detail,
        "payload": payload[:PAYLOAD_CHARACTERS],
    }
