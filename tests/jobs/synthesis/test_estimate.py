import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.synthesis.estimate import compare, ratio_total

CLUSTERS = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 900)), min_size=1, max_size=30)


@given(CLUSTERS)
def test_a_sample_of_everything_tells_the_truth(clusters):
    parts, sizes = zip(*clusters, strict=True)
    found = ratio_total(parts, sizes, sum(sizes))
    assert found.value == pytest.approx(sum(parts))
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draw = random.Random(0)
    world = [(max(1.0, draw.gauss(0.4, 0.1) * size), size) for size in (draw.uniform(100, 900) for _ in range(400))]
    truth, whole = sum(part for part, _ in world), sum(size for _, size in world)
    hits = 0
    for _ in range(400):
        parts, sizes = zip(*draw.sample(world, 40), strict=True)
        found = ratio_total(parts, sizes, whole)
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 400 <= 0.99


@pytest.mark.parametrize("clusters", [[], [(3.0, 0.0)]])
def test_nothing_to_go_by(clusters):
    with pytest.raises(ValueError, match="sample of some size"):
        ratio_total([part for part, _ in clusters], [size for _, size in clusters], 100.0)


def test_errors_are_shares_of_what_came_true():
    found = {"documents": 100, "prompt_tokens": {"value": 1100.0}, "completion_tokens": {"value": 450.0}}
    assert compare(found, 100, 1000, 500) == {
        "estimate/documents_error": 0.0,
        "estimate/prompt_tokens_error": pytest.approx(0.1),
        "estimate/completion_tokens_error": pytest.approx(-0.1),
    }
    assert compare(found, 100, 0, 0) == {"estimate/documents_error": 0.0}
