"""The data order: a permutation in each pass, shares kept everywhere, a pure function of the position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.order import CYCLE, Order, SourceShare, permute

KEY = (1, 2, 3, 4)


@given(st.integers(1, 3000), st.tuples(*[st.integers(0, 2**64 - 1)] * 4))
@settings(deadline=None, max_examples=60)
def test_permute_is_a_permutation(size: int, key: tuple[int, ...]) -> None:
    images = permute(np.arange(size, dtype=np.uint64), size, key)
    assert sorted(images.tolist()) == list(range(size))


def test_permute_depends_on_its_key_and_leaves_no_order_behind() -> None:
    index = np.arange(4096, dtype=np.uint64)
    first, second = permute(index, 4096, KEY).astype(int), permute(index, 4096, (5, 6, 7, 8)).astype(int)
    assert (first != second).mean() > 0.99
    assert abs(np.corrcoef(first, np.arange(4096))[0, 1]) < 0.05
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05


def test_permute_of_very_many_rows_needs_no_table() -> None:
    images = permute(np.arange(1000, dtype=np.uint64), 10**12, KEY)
    assert len(set(images.tolist())) == 1000 and images.max() < 10**12


mixtures = st.lists(st.tuples(st.integers(1, 500), st.floats(0.01, 10)), min_size=1, max_size=6)


def _order(entries: list[tuple[int, float]], seed: int = 0) -> Order:
    return Order([SourceShare(f"s{number}", rows, share) for number, (rows, share) in enumerate(entries)], seed)


@given(mixtures, st.integers(0, 10 * CYCLE), st.integers(1, 400))
@settings(deadline=None, max_examples=30)
def test_any_stretch_is_the_same_however_it_is_asked_for(
    entries: list[tuple[int, float]], start: int, count: int
) -> None:
    order = _order(entries)
    sources, rows = order.locate(np.arange(start, start + count))
    for number in {0, count // 2, count - 1}:
        source, row = _order(entries).locate(np.array([start + number]))
        assert (source[0], row[0]) == (sources[number], rows[number])


@given(mixtures)
@settings(deadline=None, max_examples=20)
def test_every_row_comes_once_in_each_pass(entries: list[tuple[int, float]]) -> None:
    order = _order(entries)
    sources, rows = order.locate(np.arange(6000))
    for number, (size, _) in enumerate(entries):
        drawn = rows[sources == number]
        for start in range(0, len(drawn) - size + 1, size):
            assert sorted(drawn[start : start + size].tolist()) == list(range(size))


@given(mixtures, st.integers(1, 3 * CYCLE))
@settings(deadline=None, max_examples=30)
def test_shares_hold_in_every_prefix(entries: list[tuple[int, float]], count: int) -> None:
    order = _order(entries)
    sources, _ = order.locate(np.arange(min(count, 20000)))
    drawn = np.bincount(sources, minlength=len(entries))
    assert np.abs(drawn - order.shares() * len(sources)).max() <= 1 + len(entries) / 2
    wanted = np.array([share for _, share in entries])
    assert np.abs(order.shares() - wanted / wanted.sum()).max() <= len(entries) / CYCLE


def test_passes_differ_and_seeds_differ() -> None:
    order = _order([(50, 1.0)])
    _, rows = order.locate(np.arange(100))
    assert rows[:50].tolist() != rows[50:].tolist()
    assert rows[:50].tolist() != _order([(50, 1.0)], seed=1).locate(np.arange(50))[1].tolist()
    assert order.fingerprint() != _order([(50, 1.0)], seed=1).fingerprint()


def test_repeats_counts_passes() -> None:
    order = _order([(10, 1.0), (40, 3.0)])
    assert order.repeats(CYCLE * 2 + 400) == pytest.approx([(CYCLE * 2 + 400) / 40, (CYCLE * 2 + 400) * 3 / 160])
