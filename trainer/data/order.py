"""The order of the data: a pure function of (seed, mixture, position).

The trainer keeps no state but the number of rows consumed. Row number ``position`` of a training belongs to

    source   by a fixed cycle of ``CYCLE`` positions in which every source has its share, spread as evenly as whole
             numbers allow: no random draw, so any stretch of training holds the sources in proportion;
    row      by a keyed permutation of the source's rows, another one for each pass over them.

A source that may be drawn only so often runs dry at a position that can be computed; from there on a cycle of the
other sources takes over. All of it takes constant time and memory, whatever the position and the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from udfs.hashing import digest, identifier

# Positions of a cycle; a share is exact to 1 / CYCLE.
CYCLE = 1 << 16
_ROUNDS = 4
_MIX = np.uint64(0x9E3779B97F4A7C15)


def permute(index: np.ndarray, size: int, key: Sequence[int]) -> np.ndarray:
    """Images of ``index`` under a permutation of ``0 .. size - 1`` chosen by ``key``.

    A Feistel network over the next even power of two; images at or above ``size`` are mapped again until they fall
    below it ("cycle walking", Black and Rogaway 2002), at most four times as often on average.

    Args:
        index: [n] uint64, each below ``size``.
        size: at least 1.
        key: four 64-bit numbers, one for each round.

    Returns:
        [n] uint64, each below ``size``.
    """
    half = max(1, (max(1, size - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    image = index.astype(np.uint64)
    outside = np.ones(len(image), bool)
    while outside.any():
        value = image[outside]
        left, right = value >> shift, value & mask
        for number in key:
            left, right = right, left ^ (_scramble(right, np.uint64(number)) & mask)
        image[outside] = (left << shift) | right
        outside = image >= np.uint64(size)
    return image


def _scramble(value: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        value = (value ^ key) * _MIX
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class SourceShare:
    """One source of a mixture.

    Attributes:
        name: of the source.
        rows: how many it has.
        share: of the *rows* drawn, on any positive scale.
        limit: draws after which it has run dry; None where it never does.
    """

    name: str
    rows: int
    share: float
    limit: int | None = None


class _Phase:
    """A stretch of the order in which the same sources are drawn.

    Args:
        start: its first position.
        drawn: [sources] draws before it.
        shares: [sources] relative shares; 0 for a source that has run dry.
    """

    def __init__(self, start: int, drawn: np.ndarray, shares: np.ndarray) -> None:
        self.start, self.drawn = start, drawn
        present = np.flatnonzero(shares)
        self.counts = np.zeros(len(shares), np.int64)
        self.counts[present] = _apportion(shares[present] / shares[present].sum(), CYCLE)
        # The j-th of a source's c draws in a cycle is due at (j + 1/2) / c; sorted, these dates are the cycle.
        owner = np.repeat(np.arange(len(shares)), self.counts)
        due = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts if count])
        ranked = np.argsort(due, kind="stable")
        self.cycle = owner[ranked]
        # How many draws the source at each place of the cycle has had in this cycle already.
        self.earlier = np.concatenate([np.arange(count) for count in self.counts])[ranked]

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n] source at each position, and [n] how often it was drawn before."""
        cycle, place = np.divmod(positions - self.start, CYCLE)
        source = self.cycle[place]
        return source, self.drawn[source] + cycle * self.counts[source] + self.earlier[place]

    def drawn_at(self, position: int) -> np.ndarray:
        """[sources] draws before ``position``."""
        cycles, place = divmod(position - self.start, CYCLE)
        return self.drawn + cycles * self.counts + np.bincount(self.cycle[:place], minlength=len(self.counts))

    def end(self, limits: Sequence[int | None]) -> int | None:
        """Position at which the first source has run dry; None where none ever does."""
        ends = []
        for source in np.flatnonzero(self.counts):
            limit = limits[source]
            if limit is not None:
                cycles, number = divmod(limit - 1 - int(self.drawn[source]), int(self.counts[source]))
                place = int(np.flatnonzero(self.cycle == source)[number])
                ends.append(self.start + cycles * CYCLE + place + 1)
        return min(ends, default=None)


class Order:
    """Which row of which source stands at each position.

    Args:
        sources: the mixture; at least one source with at least one row each.
        seed: another seed, another order.
        drop: whether a source that has run dry leaves its share to the others; else the order ends with it.

    Attributes:
        length: positions there are; None where the order goes on for ever.
    """

    def __init__(self, sources: Sequence[SourceShare], seed: int, drop: bool = False) -> None:
        self.sources = tuple(sources)
        self._seed = seed
        self._keys: dict[tuple[int, int], list[int]] = {}
        limits = [source.limit for source in self.sources]
        shares = np.array([source.share for source in self.sources])
        self._phases = [_Phase(0, np.zeros(len(shares), np.int64), shares)]
        self.length: int | None = None
        while (end := self._phases[-1].end(limits)) is not None:
            drawn = self._phases[-1].drawn_at(end)
            dry = np.array([limit is not None and count >= limit for count, limit in zip(drawn, limits, strict=True)])
            if not drop or dry.all():
                self.length = end
                break
            self._phases.append(_Phase(end, drawn, np.where(dry, 0.0, shares)))
        self._starts = np.array([phase.start for phase in self._phases])

    def shares(self) -> np.ndarray:
        """[sources] share of the rows that each source really has while none has run dry."""
        return self._phases[0].counts / CYCLE

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(source, row)`` at each position.

        Args:
            positions: [n] non-negative integers.

        Returns:
            [n] int64 indices into ``sources``, and [n] int64 rows of that source.
        """
        positions = np.asarray(positions, np.int64)
        source, drawn = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        phase_of = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(phase_of):
            inside = phase_of == number
            source[inside], drawn[inside] = self._phases[number].locate(positions[inside])
        sizes = np.array([entry.rows for entry in self.sources])[source]
        epoch, index = np.divmod(drawn, sizes)
        rows = np.empty(len(positions), np.int64)
        for number, turn in sorted(set(zip(source.tolist(), epoch.tolist(), strict=True))):
            chosen = (source == number) & (epoch == turn)
            rows[chosen] = permute(index[chosen], self.sources[number].rows, self._key(number, turn))
        return source, rows

    def repeats(self, positions: int) -> np.ndarray:
        """[sources] passes over each source's rows in the first ``positions`` positions."""
        phase = self._phases[int(np.searchsorted(self._starts, positions, side="right")) - 1]
        return phase.drawn_at(positions) / np.array([source.rows for source in self.sources])

    def fingerprint(self) -> str:
        """32 hexadecimal digits; equal for orders that agree at every position."""
        parts: list[Any] = [(entry.name, entry.rows) for entry in self.sources]
        # Where a source runs dry decides the order from there on.
        parts += [(phase.start, *phase.counts) for phase in self._phases[1:]]
        return identifier(self._seed, CYCLE, *parts, *self._phases[0].counts)

    def _key(self, source: int, epoch: int) -> list[int]:
        if (source, epoch) not in self._keys:
            self._keys = {key: value for key, value in self._keys.items() if key[1] >= epoch - 1 or key[0] != source}
            parts = [digest("rows", self._seed, self.sources[source].name, epoch, turn) for turn in range(_ROUNDS)]
            self._keys[source, epoch] = [int.from_bytes(part[:8], "big") for part in parts]
        return self._keys[source, epoch]


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """[sources] whole numbers that sum to ``total``: largest remainders, but at least 1 each."""
    exact = shares * total
    counts = np.maximum(1, np.floor(exact).astype(np.int64))
    while (missing := total - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        gains = (exact - counts) * step
        counts[int(np.argmax(gains if step > 0 else np.where(counts > 1, gains, -np.inf)))] += step
    return counts
