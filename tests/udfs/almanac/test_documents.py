import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.almanac import bank
from udfs.almanac.documents import document
from udfs.almanac.world import entity

KNOWN = st.builds(
    entity,
    st.integers(0, 3),
    st.sampled_from(bank.DOMAINS),
    st.sampled_from(["raw", "tuning"]),
    st.integers(0, 500),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), KNOWN)
def test_a_document_states_every_fact_and_no_other_value(seed, known):
    text = document(seed, known).text
    words = set(re.findall(r"\w+", text))
    values = {value for relation in bank.domain(known.domain).relations.values() for value in relation.values}
    assert words & values == {fact.value for fact in known.facts}
    assert known.name in text
    assert "{" not in text


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), KNOWN)
def test_statements_are_quoted_from_the_text(seed, known):
    found = document(seed, known)
    assert list(found.statements) == [fact.relation for fact in known.facts]
    for fact in known.facts:
        assert found.statements[fact.relation] in found.text
        assert fact.value in found.statements[fact.relation].split()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), KNOWN)
def test_documents_are_short_and_determined(seed, known):
    found = document(seed, known)
    assert found == document(seed, known)
    assert 20 <= len(found.text.split()) <= 45
    assert found.record() == {"text": found.text, "title": known.name, "domain": known.domain}


def test_all_styles_and_orders_are_used():
    for domain in bank.DOMAINS:
        found = [document(0, entity(0, domain, "raw", number)) for number in range(200)]
        assert {one.style for one in found} == set(bank.domain(domain).styles)
        first = Counter(
            min(one.statements, key=lambda name, one=one: one.text.index(one.statements[name])) for one in found
        )
        assert set(first) == set(bank.domain(domain).relations)
