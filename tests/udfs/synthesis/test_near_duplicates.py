import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.synthesis.near_duplicates import PERMUTATIONS, SHINGLE, bands, rows_per_band, signature
from udfs.synthesis.pairs import make_pair

WORD = st.sampled_from(["lamp", "tower", "harbour", "keeper", "storm", "ferry", "rock", "copper", "light", "winter"])


def estimate(one: list[int], other: list[int]) -> float:
    return sum(here == there for here, there in zip(one, other, strict=True)) / PERMUTATIONS


def shingles(text: str) -> set[str]:
    return {text[start : start + SHINGLE] for start in range(len(text) - SHINGLE + 1)}


@given(st.lists(WORD, min_size=5, max_size=25), st.lists(WORD, min_size=1, max_size=25))
def test_the_estimate_is_near_the_similarity(first, second):
    one, other = " ".join(first), " ".join([*first, *second])
    jaccard = len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))
    pairs = [make_pair(*text.rsplit(" ", 1)) for text in (one, other)]
    assert abs(estimate(*map(signature, pairs)) - jaccard) < 0.25  # five standard errors
    assert signature(pairs[0]) == signature(make_pair(one.upper().replace(" ", ", "), "!"))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.95])
def test_pairs_that_are_alike_meet(threshold):
    rows = rows_per_band(threshold)
    meet = [1 - (1 - threshold**width) ** (PERMUTATIONS // width) for width in (rows, rows + 1)]
    assert meet[0] >= 0.99 > meet[1]
    values = signature(make_pair("Who built the tower?", "The keeper"))
    assert len(bands(values, threshold)) == PERMUTATIONS // rows
    assert bands(values, threshold) == bands(list(values), threshold)
    assert not set(bands(values, threshold)) & set(bands([value + 1 for value in values], threshold))


def test_pairs_of_nothing_but_signs():
    smile = signature(make_pair("?", "🙂"))
    assert len(smile) == PERMUTATIONS and smile == signature(make_pair("?", "🙂"))
    assert estimate(smile, signature(make_pair("🐱 + 🐱 = ?", "🐱🐱"))) < 0.5
