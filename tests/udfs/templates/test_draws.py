from collections import Counter
from itertools import permutations

import pytest

from udfs.templates.bank import Phrase
from udfs.templates.draws import Draws


def test_permutations_are_uniform() -> None:
    found = Counter(tuple(Draws("chain", seed).shuffled(range(4), "order")) for seed in range(12_000))
    assert set(found) == set(permutations(range(4)))
    chi_square = sum((count - 500) ** 2 / 500 for count in found.values())
    assert chi_square < 49.7  # 23 degrees of freedom, p = 0.001


@pytest.mark.parametrize("n", [0, 1, 2, 26, 60, 300])
def test_a_permutation_has_every_number_once(n: int) -> None:
    assert sorted(Draws("chain").shuffled(range(n), "order")) == list(range(n))


def test_many_numbers_are_shuffled_to_the_end() -> None:
    firsts = Counter(Draws(seed).shuffled(range(100), "order")[0] for seed in range(5_000))
    lasts = Counter(Draws(seed).shuffled(range(100), "order")[-1] for seed in range(5_000))
    for found in (firsts, lasts):
        assert sum((found[i] - 50) ** 2 / 50 for i in range(100)) < 148.2  # 99 degrees of freedom, p = 0.001


def test_a_pick_depends_on_its_purpose_and_is_recorded_once() -> None:
    entries = tuple(Phrase(str(i), str(i)) for i in range(10))
    pairs = set()
    for seed in range(2_000):
        draws = Draws(seed)
        pairs.add((draws.pick("one", entries).id, draws.pick("other", entries).id))
    assert len(pairs) == 100
    draws = Draws(1)
    first = draws.pick("one", entries)
    assert draws.pick("one", entries) is first
    assert list(draws.used) == [first.id]


def test_no_draw_says_anything_about_another() -> None:
    purposes = ["mode", "inversion", "reading", "comprehension", "option style", "speakers", "turn", "text separator"]
    n = 4_000
    rows = [Draws("chain", seed) for seed in range(n)]
    signs = {name: [1 if draws.unit(name) < 0.5 else -1 for draws in rows] for name in purposes}
    for number, one in enumerate(purposes):
        assert abs(sum(signs[one])) < 4 * n**0.5
        for other in purposes[:number]:
            agreement = sum(left * right for left, right in zip(signs[one], signs[other], strict=True))
            assert abs(agreement) < 4 * n**0.5, (one, other)
