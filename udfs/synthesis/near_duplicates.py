"""MinHash signatures of pairs (Broder 1997) and the bands by which alike ones are found."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from udfs.hashing import digest
from udfs.text.words import words

# Values of a signature: the standard error of the estimated similarity is below 0.05.
PERMUTATIONS = 128
# Characters of a shingle. Pairs are short, and shingles of words would leave too few of them to compare.
SHINGLE = 5
# Share of the pairs exactly as similar as the threshold that meet in a band.
_RECALL = 0.99


def signature(pair: Mapping[str, Any]) -> list[int]:
    """[PERMUTATIONS] MinHash values of the shingles of a pair's words, question and answer together; of its signs where
    it has no words."""
    from datasketch import MinHash

    said = f"{pair['instruction']} {pair['response']}"
    text = " ".join(words(said) or said.split())
    shingles = {text[start : start + SHINGLE] for start in range(max(len(text) - SHINGLE, 0) + 1)}
    sketch = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=_hash, scheme="affine32")
    sketch.update_batch(sorted(shingles))
    return [int(value) for value in sketch.hashvalues]


def bands(values: list[int], threshold: float) -> list[str]:
    """Names of the buckets that pairs with this signature meet in, those of at least ``threshold`` nearly always."""
    rows = rows_per_band(threshold)
    return [digest(start, *values[start : start + rows]).hex() for start in range(0, len(values) - rows + 1, rows)]


@cache
def rows_per_band(threshold: float) -> int:
    """The most values of a band, that is the fewest chance meetings, with which pairs of that similarity meet.

    They meet with probability ``1 - (1 - threshold ** rows) ** bands`` (Leskovec et al., Mining of Massive Datasets).
    """
    fitting = [
        rows for rows in range(1, PERMUTATIONS + 1) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= _RECALL
    ]
    return max(fitting, default=1)


def _hash(shingle: str) -> int:
    return int.from_bytes(digest(shingle)[:4], "big")
