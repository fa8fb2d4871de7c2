import re
from collections import defaultdict

import pytest
from pydantic import ValidationError

from udfs.almanac import bank


@pytest.mark.parametrize("name", bank.DOMAINS)
def test_every_domain_loads_with_four_relations_and_at_least_four_styles(name):
    domain = bank.domain(name)
    assert len(domain.relations) == 4
    assert len(domain.styles) >= 4
    assert len(set(domain.names.first.words)) * len(set(domain.names.second.words)) >= 2000


@pytest.mark.parametrize("name", bank.DOMAINS)
def test_values_are_single_words_that_need_no_other_article(name):
    for relation in bank.domain(name).relations.values():
        for value in relation.values:
            assert value.isalpha()
            if any(" a {value}" in wording for wording in relation.clauses + relation.notes):
                assert value[0].lower() not in "aeiou", value


@pytest.mark.parametrize("name", bank.DOMAINS)
def test_no_value_is_a_word_of_a_style_or_a_wording(name):
    domain = bank.domain(name)
    fixed = [style.text for style in domain.styles.values()]
    for relation in domain.relations.values():
        fixed += [*relation.clauses, *relation.notes, *relation.questions, *relation.held_out]
    words = set(re.findall(r"\w+", " ".join(fixed)))
    for relation in domain.relations.values():
        assert not words & set(relation.values)


@pytest.mark.parametrize("name", bank.DOMAINS)
def test_the_word_before_a_value_belongs_to_its_relation_alone(name):
    relations_after = defaultdict(set)
    for relation_name, relation in bank.domain(name).relations.items():
        for wording in relation.clauses + relation.notes:
            before = re.search(r"(\w+) \{value\}", wording)
            assert before, wording
            relations_after[before[1].casefold()].add(relation_name)
    assert all(len(found) == 1 for found in relations_after.values()), relations_after


def _tree(name="people"):
    return bank.domain(name).model_dump(mode="json")


def test_a_style_that_leaves_out_a_fact_is_refused():
    tree = _tree()
    last = len(tree["relations"]) - 1
    text = tree["styles"]["letter"]["text"]
    tree["styles"]["letter"]["text"] = text.replace(f"{{{last}}}", "nothing else")
    assert tree["styles"]["letter"]["text"] != text
    with pytest.raises(ValidationError, match="each of the slots"):
        bank.Domain.model_validate(tree)


def test_a_value_that_is_there_twice_is_refused():
    tree = _tree()
    tree["relations"]["pet"]["values"][0] = tree["relations"]["teacher"]["values"][0]
    with pytest.raises(ValidationError, match="twice"):
        bank.Domain.model_validate(tree)


def test_a_wording_without_its_slot_is_refused():
    tree = _tree()
    tree["relations"]["pet"]["questions"][0] = "Which pet?"
    with pytest.raises(ValidationError, match="exactly once"):
        bank.Domain.model_validate(tree)


def test_a_question_of_both_the_tuning_and_the_test_set_is_refused():
    tree = _tree()
    tree["relations"]["pet"]["held_out"][0] = tree["relations"]["pet"]["questions"][0]
    with pytest.raises(ValidationError, match="same wording"):
        bank.Domain.model_validate(tree)
