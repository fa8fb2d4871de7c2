"""From shard sets to the tensors of a step.

    manifest.json, *.arrow  --ShardSet-->  rows by number          (sources.py)
    Order                   --positions--> (source, row): which rows a step takes          (order.py)
    rows                    --collate-->   Batch: ids, positions, documents, loss positions, targets, weights, groups
    Loader                  one rank's batches of any step, the next one made while this one is computed

Nothing here depends on the number of ranks or on what was read before: rank ``r`` of ``R`` takes the ``r``-th of ``R``
equal parts of a step's rows.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from trainer.data.objective import Groups
from trainer.data.order import Order
from trainer.data.sources import ShardSet


@dataclass
class Batch:
    """What one forward pass takes. B rows of L tokens, N positions that are learned, D documents.

    Attributes:
        input_ids: [B, L] int64.
        position_ids: [B, L] int64, from 0 in every document.
        documents: [B, L] int32 number of the token's document in its row; the padding is one more document.
        cu_seqlens: [D + 1] int32 first token of every document, rows end to end, and at last B * L.
        max_seqlen: tokens of the longest document.
        positions: [N] int64 places in the flattened rows whose next token is learned.
        targets: [N] int64 that next token.
        weights: [N] float32 what it counts, above 0.
        groups: [N] int64 group (``trainer.data.objective.Groups``) of that next token.
        group_count: how many groups there are.
        source_tokens: [sources] tokens of each source, without padding.
        squares: sum of the squared lengths of the documents: the pairs of tokens in attention, twice.
        rows: [B] (source, row) of every row.
        position: of the first row in the training.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    documents: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    positions: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    groups: torch.Tensor
    group_count: int
    source_tokens: np.ndarray
    squares: int
    rows: list[tuple[int, int]]
    position: int = 0

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.source_tokens.sum())

    def by_document(self) -> "Batch":
        """The batch of one source with its loss told apart by document: document d, as ``cu_seqlens`` counts them, has
        the groups from d * ``Groups.PER_SOURCE`` on."""
        document = torch.searchsorted(self.cu_seqlens[1:].long(), self.positions, right=True)
        groups = document * Groups.PER_SOURCE + self.groups % Groups.PER_SOURCE
        return replace(self, groups=groups, group_count=(len(self.cu_seqlens) - 1) * Groups.PER_SOURCE)

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                values[name] = value.pin_memory().to(device, non_blocking=True)
        return Batch(**values)


@dataclass(frozen=True)
class Counts:
    """What is in some batches.

    Attributes:
        learned: [groups] learned tokens of each group.
        source_tokens: [sources] tokens of each source, without padding.
        squares: sum of the squared lengths of the documents.
    """

    learned: np.ndarray
    source_tokens: np.ndarray
    squares: int

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "Counts":
        """Counts over all of ``batches``, which are on the CPU."""
        groups = torch.cat([batch.groups for batch in batches])
        return cls(
            np.bincount(groups.numpy(), minlength=batches[0].group_count),
            np.sum([batch.source_tokens for batch in batches], axis=0),
            sum(batch.squares for batch in batches),
        )


def collate(
    input_ids: np.ndarray,
    lengths: Sequence[np.ndarray],
    weights: np.ndarray,
    rows: list[tuple[int, int]],
    roles: Sequence[np.ndarray | None] | None = None,
    sources: int = 1,
    by_example: bool = False,
) -> Batch:
    """A batch of packed rows.

    Args:
        input_ids: [B, L] tokens.
        lengths: for each row, the tokens of its documents.
        weights: [B, L] weight of each token as a target.
        rows: where they came from.
        roles: for each row, [L] role of each token, or None where its set has none.
        sources: how many sources the mixture has.
        by_example: divide each weight by the sum of its document's, so that every document with a learned token
            weighs 1.
    """
    count, length = input_ids.shape
    spans: list[int] = []
    numbers: list[int] = []
    source_tokens = np.zeros(sources, np.int64)
    squares = 0
    group_of = np.empty((count, length), np.int64)
    for number, (documents, (source, _)) in enumerate(zip(lengths, rows, strict=True)):
        used = int(documents.sum())
        source_tokens[source] += used
        squares += int((documents.astype(np.int64) ** 2).sum())
        group_of[number] = Groups.number(source, roles[number] if roles else None)
        spans.extend(documents.tolist())
        numbers.extend(range(len(documents)))
        if used < length:
            spans.append(length - used)
            numbers.append(len(documents))
    sizes = np.array(spans, np.int64)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    position_ids = np.arange(count * length) - np.repeat(starts, sizes)
    documents_of = np.repeat(np.array(numbers, np.int32), sizes)

    targets = np.empty(count * length, np.int64)
    targets[:-1] = input_ids.reshape(-1)[1:]
    shifted = np.zeros(count * length, np.float32)
    shifted[:-1] = weights.reshape(-1)[1:]
    shifted[ends - 1] = 0.0  # the last token of a document predicts nothing
    for number, documents in enumerate(lengths):
        shifted[number * length + int(documents.sum()) : (number + 1) * length] = 0.0
    if by_example:
        sums = np.add.reduceat(shifted, starts, dtype=np.float64)
        shifted /= np.repeat(np.where(sums > 0, sums, 1.0), sizes)
    positions = np.flatnonzero(shifted)
    return Batch(
        input_ids=torch.from_numpy(input_ids.astype(np.int64)),
        position_ids=torch.from_numpy(position_ids.reshape(count, length)),
        documents=torch.from_numpy(documents_of.reshape(count, length)),
        cu_seqlens=torch.from_numpy(np.concatenate([np.zeros(1, np.int64), ends]).astype(np.int32)),
        max_seqlen=int(sizes.max()),
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(targets[positions]),
        weights=torch.from_numpy(shifted[positions]),
        # The last position of a batch predicts nothing, so the next place is always in it.
        groups=torch.from_numpy(group_of.reshape(-1)[positions + 1]),
        group_count=sources * Groups.PER_SOURCE,
        source_tokens=source_tokens,
        squares=squares,
        rows=rows,
    )


class Loader:
    """One rank's batches.

    Args:
        order: the order of the rows; its sources are ``sets``, in order.
        sets: the shard sets.
        weights: [roles] weight of each role.
        sequences: rows of a step over all ranks.
        micro_batch: rows of one batch; divides this rank's part of a step.
        rank, world_size: which part of every step is this rank's.
        by_example: every document counts as much as any other, however many of its tokens are learned.
    """

    def __init__(
        self,
        order: Order,
        sets: Sequence[ShardSet],
        weights: np.ndarray,
        sequences: int,
        micro_batch: int,
        rank: int,
        world_size: int,
        by_example: bool = False,
    ) -> None:
        self._by_example = by_example
        self._order = order
        self._sets = list(sets)
        self._weights = weights
        self._sequences = sequences
        self._micro_batch = micro_batch
        self._part = sequences // world_size
        self._rank = rank
        self._worker = ThreadPoolExecutor(1, "loader")
        self._next: tuple[int, Future[list[Batch]]] | None = None

    def step(self, position: int) -> list[Batch]:
        """The micro-batches of this rank in the step whose first row is ``position``; begins on those after it."""
        if self._next is not None and self._next[0] == position:
            batches = self._next[1].result()
        else:
            batches = self.read(position)
        following = position + self._sequences
        self._next = (following, self._worker.submit(self.read, following))
        return batches

    def read(self, position: int) -> list[Batch]:
        """The same, read now."""
        first = position + self._rank * self._part
        source, row = self._order.locate(np.arange(first, first + self._part))
        places = list(zip(source.tolist(), row.tolist(), strict=True))
        return [
            self._batch(places[start : start + self._micro_batch], first + start)
            for start in range(0, self._part, self._micro_batch)
        ]

    def close(self) -> None:
        """Stop reading ahead."""
        self._worker.shutdown(cancel_futures=True)

    def _batch(self, places: list[tuple[int, int]], position: int) -> Batch:
        return replace(read_rows(self._sets, places, self._weights, self._by_example), position=position)


def read_rows(sets: Sequence[ShardSet], places: list[tuple[int, int]], weights: np.ndarray, by_example: bool) -> Batch:
    """A batch of given rows.

    Args:
        sets: the shard sets.
        places: (set, row) of each row.
        weights: [roles] weight of each role.
        by_example: every document counts as much as any other.
    """
    located = [sets[source].locate(row) for source, row in places]
    ids = np.stack([reader.input_ids(row) for reader, row in located])
    lengths = [reader.lengths(row) for reader, row in located]
    roles = [reader.roles(row) for reader, row in located]
    shares = np.ones(ids.shape, np.float32)
    for number, kinds in enumerate(roles):
        if kinds is not None:
            shares[number] = weights[kinds]
    return collate(ids, lengths, shares, places, roles, len(sets), by_example)
