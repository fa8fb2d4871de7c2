"""From a token of a shard back to its text: which document of the row it is in, and which part of that text it is.

An address is ``<file>:<row>`` or ``<file>:<row>:<token>``, all counted from 0; the file is as the manifest names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from udfs.errors import ConfigError
from udfs.shards.format import JOINED, ROLES, ShardReader
from udfs.shards.manifest import read_manifest
from udfs.shards.store import store_at

if TYPE_CHECKING:
    from udfs.tokens import Tokenizer


@dataclass(frozen=True)
class Piece:
    """The document of a row that holds a token.

    Attributes:
        path, row, token: the address; the token is counted in the row.
        doc_id: as in ``doc_ids`` of the row; a few-shot sequence names its examples, joined by ``+``.
        start: first token of the document in the row.
        ids: [tokens] its ids, BOS and EOS included where they are in this row.
        roles: [tokens] their roles, or None.
    """

    path: str
    row: int
    token: int
    doc_id: str
    start: int
    ids: np.ndarray
    roles: np.ndarray | None

    @property
    def place(self) -> int:
        """The token's position in ``ids``."""
        return self.token - self.start


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``stop`` of a text: the role they play, and the round of the chain they belong to."""

    start: int
    stop: int
    role: str
    round: int


def locate(place: str | Path, address: str) -> Piece:
    """The document at an address of the set at a path or URL.

    Raises:
        ConfigError: the address is not of the form, or names no file, row or token of the set.
        DataError: the set or the file is missing or damaged.
    """
    path, row, token = _parse(address)
    known = {shard.path: shard for shard in read_manifest(place).shards}
    if path not in known:
        raise ConfigError(f"--trace: the set has no file {path!r}. Its files: {', '.join(known)}.")
    reader = ShardReader(path, lambda: store_at(place).open(path))
    if row >= len(reader):
        raise ConfigError(f"--trace: {path} has rows 0 to {len(reader) - 1}, not {row}.")
    ends = np.cumsum(reader.lengths(row))
    if token >= ends[-1]:
        raise ConfigError(f"--trace: row {row} of {path} has tokens 0 to {ends[-1] - 1}, not {token}; then padding.")
    number = int(np.searchsorted(ends, token, side="right"))
    start = int(ends[number - 1]) if number else 0
    taken = slice(start, int(ends[number]))
    roles = reader.roles(row)
    return Piece(
        path=path,
        row=row,
        token=token,
        doc_id=reader.doc_ids(row)[number],
        start=start,
        ids=reader.input_ids(row)[taken],
        roles=None if roles is None else roles[taken],
    )


def _parse(address: str) -> tuple[str, int, int]:
    """``(file, row, token)`` of an address; the token is 0 where none is given.

    Raises:
        ConfigError: it is not of the form.
    """
    path, *numbers = address.split(":")
    if not path or len(numbers) not in (1, 2) or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"--trace {address!r} is not of the form FILE:ROW or FILE:ROW:TOKEN, counted from 0.")
    return path, int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 0


def example_at(piece: Piece, tokenizer: "Tokenizer") -> str:
    """The id of the example that holds the token; a sequence of several begins each with BOS."""
    begun = int(np.count_nonzero(piece.ids[: piece.place + 1] == tokenizer.bos_id)) - 1
    names = piece.doc_id.split(JOINED)
    # Where one token is both, every example has it at both ends.
    return names[min(begun // 2 if tokenizer.bos_id == tokenizer.eos_id else begun, len(names) - 1)]


def character_at(piece: Piece, text: str, tokenizer: "Tokenizer") -> int | None:
    """Where in ``text`` the token is; None where the text is not the one that the piece was made from."""
    ids, offsets = tokenizer.offsets(text)
    whole = np.array(ids, piece.ids.dtype)
    ends = int(piece.ids[-1] == tokenizer.eos_id)
    begins = int(piece.ids[0] == tokenizer.bos_id and len(piece.ids) > ends)
    inner = piece.ids[begins : len(piece.ids) - ends]
    last = len(whole) - len(inner)
    # A few tokens may stand at many places of a text, but it has one beginning and one end.
    edge = [0] if begins else [last] if ends else None
    for start in np.flatnonzero(whole[: last + 1] == inner[0]).tolist() if edge is None else edge:
        if len(whole) and start >= 0 and np.array_equal(whole[start : start + len(inner)], inner):
            return offsets[min(max(start + piece.place - begins, 0), len(offsets) - 1)][0]
    return None


def chain_spans(text: str, links: Iterable[Mapping[str, Any]], inverted: bool) -> list[Span]:
    """Where the texts and pairs of a chain stand in the text rendered from it, in order.

    A document's pairs are looked for between its own text and the next one, a response behind its instruction. What a
    template has reworded (a question's options) is not found and left out.

    Args:
        links: rows of ``syntheses`` that the text was made from: round, context and pairs ({instruction, response}).
        inverted: whether the pairs stand before their text.
    """
    contexts: list[tuple[Span, Mapping[str, Any]]] = []
    at = 0
    for link in sorted(links, key=lambda link: link["round"]):
        start = text.find(link["context"], at)
        if start >= 0:
            at = start + len(link["context"])
            contexts.append((Span(start, at, "context", link["round"]), link))
    found = [span for span, _ in contexts]
    edges = [0, *(edge for span in found for edge in (span.start, span.stop)), len(text)]
    for number, (span, link) in enumerate(contexts):
        # Edges are: 0, start and stop of each context, the end; pairs lie in the gap before or behind their context.
        start, stop = edges[2 * number : 2 * number + 2] if inverted else edges[2 * number + 2 : 2 * number + 4]
        for pair in link["pairs"] or ():
            at = start
            for role in ("instruction", "response"):
                place = text.find(pair[role], at, stop)
                if place >= 0:
                    at = place + len(pair[role])
                    found.append(Span(place, at, role, span.round))
    return sorted(found, key=lambda span: (span.start, span.stop))


def round_at(spans: Sequence[Span], character: int, inverted: bool) -> int | None:
    """The round that a character belongs to; None where no document of the chain is found.

    A document's pairs stand behind it, or before it where they are inverted. What stands before the first document is
    the lead-in of all of them.
    """
    contexts = sorted((span for span in spans if span.role == "context"), key=lambda span: span.start)
    if not contexts:
        return None
    if inverted:
        return next((span for span in contexts if character < span.stop), contexts[-1]).round
    lead_in = contexts[0].start
    return next((span for span in reversed(contexts) if character >= span.start - lead_in), contexts[0]).round


def segments_of_spans(text: str, spans: Sequence[Span]) -> list[tuple[str, str]]:
    """``(role, characters)`` for all of the text; what no span holds is template."""
    parts: list[tuple[str, str]] = []
    at = 0
    for span in spans:
        if span.start < at:
            continue
        parts += [("template", text[at : span.start]), (span.role, text[span.start : span.stop])]
        at = span.stop
    return [(role, part) for role, part in [*parts, ("template", text[at:])] if part]


def segments_of_roles(piece: Piece, tokenizer: "Tokenizer") -> list[tuple[str, str]]:
    """``(role, characters)`` of a piece's tokens, decoded run by run."""
    roles = piece.roles if piece.roles is not None else np.zeros(len(piece.ids), np.uint8)
    cuts = [0, *(np.flatnonzero(np.diff(roles)) + 1).tolist(), len(roles)]
    whole = piece.ids.tolist()
    # Decoded up to each cut, because the space before a word is lost where its token comes first.
    texts = [tokenizer.decode(whole[:cut]) for cut in cuts]
    return [
        (ROLES[roles[start]], texts[number + 1][len(texts[number]) :])
        for number, start in enumerate(cuts[:-1])
        if cuts[number + 1] > start
    ]
