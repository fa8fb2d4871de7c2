import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.statistics import paired_difference, wilson

shares = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
items = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


def test_wilson_has_the_textbook_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        estimate = wilson(successes, n)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)
        assert estimate.n == n


@given(shares)
def test_wilson_holds_the_share_and_mirrors(share: tuple[int, int]) -> None:
    successes, n = share
    estimate, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert mirrored.low == pytest.approx(1 - estimate.high)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_not_a_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_paired_difference_without_clusters_is_bonett_and_price() -> None:
    # 100 items: 20 only the treatment, 8 only the baseline, 50 both, 22 neither.
    treatment = [1] * 20 + [0] * 8 + [1] * 50 + [0] * 22
    baseline = [0] * 20 + [1] * 8 + [1] * 50 + [0] * 22
    estimate = paired_difference(treatment, baseline)
    more, less = 21 / 102, 9 / 102
    half = 1.959963984540054 * ((more + less - (more - less) ** 2) / 102) ** 0.5
    assert estimate.value == pytest.approx(0.12)
    assert (estimate.low, estimate.high) == pytest.approx((more - less - half, more - less + half))


@given(items)
def test_paired_difference_turns_with_the_sign(pairs: list[tuple[int, int]]) -> None:
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    forward, backward = paired_difference(left, right), paired_difference(right, left)
    assert -1 <= forward.low <= forward.value <= forward.high <= 1
    assert (backward.low, backward.high) == pytest.approx((-forward.high, -forward.low))
    assert forward.low < forward.high


def test_items_that_move_together_widen_the_interval() -> None:
    treatment, baseline = [1, 1, 1, 1, 0, 0, 0, 0] * 10, [0, 0, 0, 0, 1, 0, 0, 0] * 10
    alone = paired_difference(treatment, baseline)
    together = paired_difference(treatment, baseline, clusters=[index // 4 for index in range(80)])
    assert together.value == alone.value
    assert together.high - together.low > alone.high - alone.low


def test_paired_difference_needs_the_same_items() -> None:
    with pytest.raises(ValueError, match="same items"):
        paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="at least one"):
        paired_difference([], [])
