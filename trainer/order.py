"""The order of the data: a pure function of (seed, mixture, position).

The trainer keeps no state but the number of rows consumed. Row number ``position`` of a training belongs to

    source   by a fixed cycle of ``CYCLE`` positions in which every source has its share, spread as evenly as whole
             numbers allow: no random draw, so any stretch of training holds the sources in proportion;
    row      by a keyed permutation of the source's rows, another one for each pass over them.

Both take constant time and memory, whatever the position and the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """One source of a mixture: its name, its rows, and its share of the *rows* drawn (any positive scale)."""

    name: str
    rows: int
    share: float


class Order:
    """Which row of which source stands at each position.

    Args:
        sources: the mixture; at least one source with at least one row each.
        seed: another seed, another order.
    """

    def __init__(self, sources: Sequence[SourceShare], seed: int) -> None:
        self.sources = tuple(sources)
        self._seed = seed
        shares = np.array([source.share for source in self.sources])
        self._counts = _apportion(shares / shares.sum(), CYCLE)
        # The j-th of a source's c draws in a cycle is due at (j + 1/2) / c; sorted, these dates are the cycle.
        owner = np.repeat(np.arange(len(self.sources)), self._counts)
        due = np.concatenate([(np.arange(count) + 0.5) / count for count in self._counts])
        ranked = np.argsort(due, kind="stable")
        self._cycle = owner[ranked]
        # How many draws the source at each place of the cycle has had in this cycle already.
        self._earlier = np.concatenate([np.arange(count) for count in self._counts])[ranked]
        self._keys: dict[tuple[int, int], list[int]] = {}

    def shares(self) -> np.ndarray:
        """[sources] share of the rows that each source really has."""
        return self._counts / CYCLE

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(source, row)`` at each position.

        Args:
            positions: [n] non-negative integers.

        Returns:
            [n] int64 indices into ``sources``, and [n] int64 rows of that source.
        """
        cycle, place = np.divmod(np.asarray(positions, np.int64), CYCLE)
        source = self._cycle[place]
        drawn = cycle * self._counts[source] + self._earlier[place]
        sizes = np.array([entry.rows for entry in self.sources])[source]
        epoch, index = np.divmod(drawn, sizes)
        rows = np.empty(len(place), np.int64)
        for number, turn in sorted(set(zip(source.tolist(), epoch.tolist(), strict=True))):
            chosen = (source == number) & (epoch == turn)
            rows[chosen] = permute(index[chosen], self.sources[number].rows, self._key(number, turn))
        return source, rows

    def repeats(self, positions: int) -> np.ndarray:
        """[sources] passes over each source's rows in the first ``positions`` positions."""
        cycles, place = divmod(positions, CYCLE)
        drawn = cycles * self._counts + np.bincount(self._cycle[:place], minlength=len(self.sources))
        return drawn / np.array([source.rows for source in self.sources])

    def fingerprint(self) -> str:
        """32 hexadecimal digits; equal for orders that agree at every position."""
        return identifier(self._seed, CYCLE, *((entry.name, entry.rows) for entry in self.sources), *self._counts)

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
        counts[int(np.argmax((exact - counts) * step))] += step
    return counts
