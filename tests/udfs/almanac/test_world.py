from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.almanac import bank
from udfs.almanac.world import AlmanacConfig, entities, entity, numbers
from udfs.config import build
from udfs.errors import ConfigError

SEEDS = st.integers(min_value=0, max_value=5)  # few: each builds the permutation of all names


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(0, 60))
def test_names_are_distinct_and_the_splits_never_share_one(seed, raw, tuning):
    config = AlmanacConfig(seed=seed, raw_entities=raw, tuning_contexts=tuning, test_questions=1)
    names = {split: [known.name for known in entities(config, split)] for split in ("raw", "tuning")}
    assert len(names["raw"]) == raw
    assert len(names["tuning"]) == tuning
    every = names["raw"] + names["tuning"]
    assert len(set(every)) == len(every)
    assert all(len(name.split()) == 2 for name in every)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(bank.DOMAINS), st.sampled_from(["raw", "tuning"]), st.integers(0, 300))
def test_an_entity_is_determined_by_seed_and_number(seed, domain, split, number):
    known = entity(seed, domain, split, number)
    assert known == entity(seed, domain, split, number)
    relations = bank.domain(domain).relations
    assert [fact.relation for fact in known.facts] == list(relations)
    for fact in known.facts:
        assert fact.value in relations[fact.relation].values
        assert (fact.entity, fact.domain, fact.split) == (known.name, domain, split)


def test_a_larger_almanac_keeps_the_entities_of_a_smaller_one():
    small = AlmanacConfig(raw_entities=20, tuning_contexts=12, test_questions=10)
    large = AlmanacConfig(raw_entities=200, tuning_contexts=900, test_questions=10)
    for split in ("raw", "tuning"):
        assert set(entities(small, split)) <= set(entities(large, split))


def test_another_seed_is_another_world():
    assert entity(0, "people", "raw", 0) != entity(1, "people", "raw", 0)


@given(st.integers(0, 5000))
def test_entities_are_spread_evenly_over_the_domains(total):
    counts = [len(numbers(total, domain)) for domain in bank.DOMAINS]
    assert sum(counts) == total
    assert max(counts) - min(counts) <= 1


def test_values_are_drawn_uniformly():
    """Chi-square per relation against what one in 1,700 fair draws exceeds (Wilson and Hilferty's approximation)."""
    for domain in bank.DOMAINS:
        drawn = {name: Counter() for name in bank.domain(domain).relations}
        for number in range(1500):
            for fact in entity(0, domain, "raw", number).facts:
                drawn[fact.relation][fact.value] += 1
        for name, relation in bank.domain(domain).relations.items():
            expected = 1500 / len(relation.values)
            statistic = sum((drawn[name][value] - expected) ** 2 / expected for value in relation.values)
            freedom = len(relation.values) - 1
            spread = 2 / (9 * freedom)
            assert statistic < freedom * (1 - spread + 3.2 * spread**0.5) ** 3, (domain, name)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"raw_entities": 0}, "raw_entities"),
        ({"raw_entites": 5}, "Did you mean 'raw_entities'"),
        ({"min_pairs": 4, "max_pairs": 3}, "above max_pairs"),
        ({"max_pairs": 5}, "max_pairs"),
        ({"raw_entities": 10, "test_questions": 400}, "only 40 facts"),
        ({"tuning_contexts": 20_000}, "names"),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_the_reason(settings_, message):
    with pytest.raises(ConfigError, match=message):
        build(AlmanacConfig, settings_, "sample")
