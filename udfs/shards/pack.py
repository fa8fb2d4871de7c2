"""Packing: texts of any length into rows of one length.

``best_fit`` keeps a text whole wherever it fits a row; only texts longer than a row are cut, into pieces of full rows
and a rest. Texts are gathered into a bounded buffer, then placed longest first into the fullest row that still has room
(best-fit decreasing; Ding et al. 2024, "Fewer Truncations Improve Language Modeling"). ``concatenate`` joins all texts
end to end and cuts every ``sequence_length`` tokens, which leaves no padding but cuts texts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from udfs.shards.format import PADDING_ROLE, Rows, ShardSpec

# Rows' worth of tokens that are packed together. More gives less padding and takes more memory: 2048 rows of 2048
# uint16 tokens are 8 MiB.
BUFFER_ROWS = 2048


@dataclass(frozen=True)
class Text:
    """One encoded text, BOS and EOS included.

    Attributes:
        ids: [tokens] ids.
        doc_id: where it came from.
        roles: [tokens] uint8 roles, or None.
    """

    ids: np.ndarray
    doc_id: str
    roles: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, stop: int) -> "Text":
        """Tokens ``start`` to ``stop``."""
        return Text(self.ids[start:stop], self.doc_id, None if self.roles is None else self.roles[start:stop])


def best_fit(texts: Iterable[Text], spec: ShardSpec, buffer_rows: int = BUFFER_ROWS) -> Iterator[Rows]:
    """Packed rows, in chunks; the order of the rows follows the order of the texts.

    A row holds the texts in the order they came. No token is lost or doubled.
    """
    length = spec.sequence_length
    pieces: list[Text] = []
    waiting = 0
    for text in texts:
        pieces.extend(_pieces(text, length))
        waiting += len(text)
        while waiting >= buffer_rows * length:
            # A text of many rows is handed on in bounded chunks as well.
            batch, pieces = (
                pieces[: _count(pieces, buffer_rows * length)],
                pieces[_count(pieces, buffer_rows * length) :],
            )
            waiting -= sum(map(len, batch))
            yield _filled(_place(batch, length), spec)
    if pieces:
        yield _filled(_place(pieces, length), spec)


def concatenate(texts: Iterable[Text], spec: ShardSpec, buffer_rows: int = BUFFER_ROWS) -> Iterator[Rows]:
    """Packed rows, in chunks: all texts end to end, cut at every row's end; only the last row is padded."""
    length = spec.sequence_length
    rows: list[list[Text]] = [[]]
    room = length
    for text in texts:
        start = 0
        while start < len(text):
            piece = text.cut(start, min(len(text), start + room))
            rows[-1].append(piece)
            start += len(piece)
            room -= len(piece)
            if room == 0:
                if len(rows) == buffer_rows:
                    yield _filled(rows, spec)
                    rows = []
                rows.append([])
                room = length
    if not rows[-1]:
        rows.pop()
    if rows:
        yield _filled(rows, spec)


PACKINGS = {"best_fit": best_fit, "concatenate": concatenate}


def _pieces(text: Text, length: int) -> Iterator[Text]:
    if len(text) <= length:
        yield text
        return
    for start in range(0, len(text), length):
        yield text.cut(start, min(len(text), start + length))


def _count(pieces: list[Text], tokens: int) -> int:
    total = 0
    for number, piece in enumerate(pieces, start=1):
        total += len(piece)
        if total >= tokens:
            return number
    return len(pieces)


def _place(pieces: list[Text], length: int) -> list[list[Text]]:
    """Best-fit decreasing, in time linear in the pieces.

    Open rows are kept by remaining room, and one integer has a bit for every room that some row has; the tightest fit
    for a piece is that integer's lowest set bit from the piece's length on.
    """
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(length + 1)]
    rooms = 0
    for index in np.argsort(-sizes, kind="stable").tolist():
        size = len(pieces[index])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
            rows[row].append(index)
        else:
            room = length
            row = len(rows)
            rows.append([index])
        left = room - size
        if left:
            by_room[left].append(row)
            rooms |= 1 << left
    # Ordered by the text that opened each row, rows come as mixed as the texts did; ordered by length they would not.
    rows.sort(key=lambda row: row[0])
    return [[pieces[index] for index in sorted(row)] for row in rows]


def _filled(rows: list[list[Text]], spec: ShardSpec) -> Rows:
    length = spec.sequence_length
    input_ids = np.full((len(rows), length), spec.pad_token_id, spec.dtype)
    roles = np.full((len(rows), length), PADDING_ROLE, np.uint8) if spec.has_roles else None
    for number, row in enumerate(rows):
        stop = 0
        for text in row:
            start, stop = stop, stop + len(text)
            input_ids[number, start:stop] = text.ids
            if roles is not None:
                assert text.roles is not None
                roles[number, start:stop] = text.roles
    return Rows(
        input_ids, [[len(text) for text in row] for row in rows], [[text.doc_id for text in row] for row in rows], roles
    )
