"""What a training is mixed from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.config import build
from udfs.errors import ConfigError
from udfs.shards.mixture import Mixture, Part, shares

TOKENS = {"raw": 80_000, "augmented": 30_000, "examples": 200, "instructions": 5_000}


def test_the_published_mixture_from_scratch() -> None:
    mixture: Mixture = {"raw": Part(repeats=1), "augmented": Part(repeats=1), "examples": Part(repeats=4)}
    found = shares(mixture, TOKENS)
    assert {name: round(share, 3) for name, share in found.items()} == {
        "raw": 0.722,
        "augmented": 0.271,
        "examples": 0.007,
    }


@given(st.floats(0.01, 100), st.floats(0.1, 10))
def test_a_ratio_counts_the_tokens_of_the_other_set(ratio: float, repeats: float) -> None:
    mixture = {"instructions": Part(ratio=ratio, to="augmented"), "augmented": Part(repeats=repeats)}
    found = shares(mixture, TOKENS)
    assert list(found) == list(mixture)
    assert found["instructions"] / found["augmented"] == pytest.approx(ratio)
    assert sum(found.values()) == pytest.approx(1)
    assert shares(mixture, {}) == pytest.approx(found)  # what the sets hold does not matter


def test_numbers_are_shares_and_need_no_sets() -> None:
    assert shares({"raw": 1.0, "augmented": 3.0}, {}) == {"raw": 0.25, "augmented": 0.75}


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"raw": 1.0, "augmented": Part(repeats=1)}, "is a share"),
        ({"raw": Part(repeats=1), "augmented": Part(ratio=1, to="examples")}, "must be a set with repeats"),
        ({"raw": Part(ratio=1, to="raw")}, "must be a set with repeats"),
    ],
)
def test_what_cannot_be_mixed_is_said(mixture: Mixture, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shares(mixture, TOKENS)


@pytest.mark.parametrize(
    "tree", [{}, {"repeats": 1, "ratio": 1, "to": "raw"}, {"ratio": 1}, {"repeats": 1, "to": "raw"}]
)
def test_a_part_has_one_measure(tree: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(Part, tree, "sources.raw")
