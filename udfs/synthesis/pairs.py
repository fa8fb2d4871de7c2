"""Pairs as the synthesizer writes them: ``<QUE> {instruction} <ANS> {response} </END>``, joined by blank lines.

``parse`` is the inverse of ``build``. It is strict: a piece that is not exactly one pair is kept as rejected, with its
reason, and nothing is repaired. What makes a well-formed pair a good one is the business of ``checks``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from udfs.errors import DataError
from udfs.synthesis.formats import recognise

CONTEXT_START, CONTEXT_END = "<CON>", "</CON>"
QUESTION, ANSWER, PAIR_END = "<QUE>", "<ANS>", "</END>"
MARKERS = (CONTEXT_START, CONTEXT_END, QUESTION, ANSWER, PAIR_END)
DELIMITER = "\n\n"

REJECTIONS: dict[str, str] = {
    "no_question_marker": "the piece does not start with <QUE>",
    "no_answer_marker": "the piece has no <ANS>",
    "extra_marker": "the piece has a second <QUE> or <ANS>, or a marker of a context",
    "empty_question": "nothing stands between <QUE> and <ANS>",
    "empty_answer": "nothing stands between <ANS> and </END>",
    "truncated": "the text after the last </END>: generation stopped inside a pair, or wrote something else",
}


class Pair(TypedDict):
    """One instruction-response pair; options and the cue for reasoning stay inside the instruction."""

    instruction: str
    response: str
    format: str


class Scores(TypedDict):
    """What is measured of a pair: share of the response's words that stand in the text, and characters of the response
    per character of the text."""

    grounding: float
    length_ratio: float


class ScoredPair(Pair, Scores):
    """A pair with its scores."""


class Rejected(TypedDict):
    """A piece of a completion that does not go on; ``reason``: a key of ``REJECTIONS`` or of ``checks.CHECKS``, or
    ``contaminated`` (``reparse``) or ``near_duplicate`` (``deduplicate``)."""

    text: str
    reason: str


@dataclass(frozen=True)
class ParsedCompletion:
    """What a completion holds, each list in the order of the completion."""

    pairs: Sequence[Pair]
    rejected: list[Rejected]


def make_pair(instruction: str, response: str) -> Pair:
    """A pair with its format recognised."""
    return {"instruction": instruction, "response": response, "format": recognise(instruction, response).value}


def build(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The text of ``pairs`` (keys ``instruction`` and ``response``), as it stands after a context.

    Raises:
        DataError: a side is empty or contains a marker, so that it could not be read back.
    """
    for pair in pairs:
        for side in ("instruction", "response"):
            if not pair[side].strip() or any(marker in pair[side] for marker in MARKERS):
                raise DataError(
                    f"the {side} {pair[side]!r} cannot be written as part of a pair: it must not be empty nor contain "
                    f"{' '.join(MARKERS)}. Drop the pair, or neutralise its text first."
                )
    return DELIMITER.join(f"{QUESTION} {pair['instruction']} {ANSWER} {pair['response']} {PAIR_END}" for pair in pairs)


def parse(completion: str, check: Callable[[Pair, Sequence[Pair]], str] = lambda pair, earlier: "") -> ParsedCompletion:
    """The pairs in a completion, and every piece of it that is not one.

    Args:
        check: the reason why a well-formed pair does not go on, given the pairs before it; empty if it does.
    """
    pairs: list[Pair] = []
    rejected: list[Rejected] = []
    *pieces, tail = completion.split(PAIR_END)
    for piece in map(str.strip, pieces):
        instruction, _, response = (side.strip() for side in piece.removeprefix(QUESTION).partition(ANSWER))
        pair = make_pair(instruction, response)
        reason = _malformed(piece) or _unusable(instruction, response) or check(pair, pairs)
        if reason:
            rejected.append({"text": piece, "reason": reason})
        else:
            pairs.append(pair)
    if tail.strip():
        rejected.append({"text": tail.strip(), "reason": "truncated"})
    return ParsedCompletion(pairs, rejected)


def _malformed(piece: str) -> str:
    if not piece.startswith(QUESTION):
        return "no_question_marker"
    if ANSWER not in piece:
        return "no_answer_marker"
    single = piece.count(QUESTION) == 1 and piece.count(ANSWER) == 1
    return "" if single and CONTEXT_START not in piece and CONTEXT_END not in piece else "extra_marker"


def _unusable(instruction: str, response: str) -> str:
    if not instruction:
        return "empty_question"
    return "" if response else "empty_answer"
