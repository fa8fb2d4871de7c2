"""Hashes: stable, and different for different splits of the same characters."""

from hypothesis import given
from hypothesis import strategies as st

from udfs.hashing import begun, digest, framed, framed_before, identifier, seed, unit


def test_values_never_change():
    """Ids are stored in tables, so the function may not change under them."""
    assert identifier("a", 1) == "4989ca9d864e5736e6cadaa15819af4d"


@given(st.text(), st.text(), st.text())
def test_boundaries_between_parts_count(a: str, b: str, c: str):
    if b:
        assert identifier(a + b, c) != identifier(a, b + c)
    assert identifier(a, b) == identifier(a, b)


@given(st.integers(), st.text())
def test_ranges(number: int, text: str):
    assert 0.0 <= unit(number, text) < 1.0
    assert 0 <= seed(number, text) < 1 << 63


def test_unit_is_uniform():
    values = [unit("document", number) for number in range(20_000)]
    buckets = [0] * 20
    for value in values:
        buckets[int(value * 20)] += 1
    chi_square = sum((count - 1_000) ** 2 / 1_000 for count in buckets)
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001


def test_a_digest_can_be_continued() -> None:
    state = begun(framed("a", 1)).copy()
    state.update(framed_before("b") + framed(b"c"))
    assert state.digest() == digest("a", 1, "b", b"c")
    assert framed("ab", "c") != framed("a", "bc") and framed_before(1) == framed(1) != framed_before(True)
