"""The data order: a permutation in each pass, shares kept everywhere, a pure function of the position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.order import CYCLE, Order, SourceShare, permute

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


def test_no_source_is_left_out_however_small_its_share() -> None:
    order = _order([(50, 1.0), (50, 4e-7), (50, 4e-7)])
    assert (order.shares() * CYCLE).tolist() == [CYCLE - 2, 1, 1]


def test_passes_differ_and_seeds_differ() -> None:
    order = _order([(50, 1.0)])
    _, rows = order.locate(np.arange(100))
    assert rows[:50].tolist() != rows[50:].tolist()
    assert rows[:50].tolist() != _order([(50, 1.0)], seed=1).locate(np.arange(50))[1].tolist()
    assert order.fingerprint() != _order([(50, 1.0)], seed=1).fingerprint()


def test_repeats_counts_passes() -> None:
    order = _order([(10, 1.0), (40, 3.0)])
    assert order.repeats(CYCLE * 2 + 400) == pytest.approx([(CYCLE * 2 + 400) / 40, (CYCLE * 2 + 400) * 3 / 160])


limited = st.lists(
    st.tuples(st.integers(1, 60), st.floats(0.05, 5), st.one_of(st.none(), st.floats(0.5, 4))), min_size=1, max_size=4
)


def _limited(entries: list[tuple[int, float, float | None]], drop: bool) -> Order:
    shares = [
        SourceShare(f"s{number}", rows, share, None if repeats is None else max(1, int(rows * repeats)))
        for number, (rows, share, repeats) in enumerate(entries)
    ]
    return Order(shares, 5, drop)


@given(limited)
@settings(max_examples=20)
def test_a_dry_source_leaves_its_share_to_the_others(entries: list[tuple[int, float, float | None]]) -> None:
    order = _limited(entries, drop=True)
    end = order.length or 4000
    sources, rows = order.locate(np.arange(end))
    drawn = np.bincount(sources, minlength=len(entries))
    for number, source in enumerate(order.sources):
        assert source.limit is None or drawn[number] <= source.limit
        seen = rows[sources == number]
        # Every pass is whole or cut off at the end, whatever phases it goes through.
        for start in range(0, len(seen), source.rows):
            part = seen[start : start + source.rows]
            assert len(set(part.tolist())) == len(part)
    if order.length is not None:
        assert drawn.tolist() == [source.limit for source in order.sources]
    assert order.repeats(end) == pytest.approx(drawn / [source.rows for source in order.sources])
    for position in (0, end // 2, end - 1):
        source, row = _limited(entries, drop=True).locate(np.array([position]))
        assert (source[0], row[0]) == (sources[position], rows[position])


@given(limited)
@settings(max_examples=20)
def test_without_dropping_the_order_ends_with_the_first_dry_source(
    entries: list[tuple[int, float, float | None]],
) -> None:
    order = _limited(entries, drop=False)
    if order.length is None:
        assert all(source.limit is None for source in order.sources)
        return
    sources, _ = order.locate(np.arange(order.length))
    drawn = np.bincount(sources, minlength=len(entries))
    full = [source.limit is not None and drawn[number] == source.limit for number, source in enumerate(order.sources)]
    assert sum(full) == 1 and full[sources[-1]]


def test_the_fingerprint_knows_where_sources_run_dry() -> None:
    def order(limit: int | None) -> Order:
        return Order([SourceShare("a", 10, 1.0, limit), SourceShare("b", 10, 1.0)], 0, drop=True)

    assert len({order(limit).fingerprint() for limit in (None, 15, 20)}) == 3
