import re

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
def test_values_are_single_words(name):
    for relation in bank.domain(name).relations.values():
        for value in relation.values:
            assert value.isalpha()


@pytest.mark.parametrize("name", bank.DOMAINS)
def test_no_value_is_a_word_of_a_style_or_a_wording(name):
    domain = bank.domain(name)
    fixed = [style.text for style in domain.styles.values()]
    for relation in domain.relations.values():
        fixed += [text for wording in relation.wordings for text in (wording.clause, wording.note, wording.question)]
        fixed += relation.held_out
    words = set(re.findall(r"\w+", " ".join(fixed)))
    for relation in domain.relations.values():
        assert not words & set(relation.values)


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


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("question", "Which pet is called?", "exactly once"),
        ("question", "What is called the pet of {name}?", "must end in 'called'"),
        ("clause", "has a pet", "exactly once"),
        ("note", "pet named {value}", "the same in clause and note"),
    ],
)
def test_a_wording_in_which_text_and_question_do_not_fit_together_is_refused(key, text, message):
    tree = _tree()
    tree["relations"]["pet"]["wordings"][0][key] = text
    with pytest.raises(ValidationError, match=message):
        bank.Domain.model_validate(tree)


def test_a_word_that_leads_to_two_kinds_of_value_is_refused():
    tree = _tree()
    tree["relations"]["pet"]["wordings"][0] = {
        "clause": "lives with {value}",
        "note": "lives with {value}",
        "question": "What pet does {name} live with?",
    }
    with pytest.raises(ValidationError, match="same word before the value"):
        bank.Domain.model_validate(tree)


def test_a_style_that_has_a_leading_word_elsewhere_is_refused():
    tree = _tree()
    tree["styles"]["letter"]["text"] += " Come with us."
    with pytest.raises(ValidationError, match="lead to values elsewhere"):
        bank.Domain.model_validate(tree)


def test_a_question_of_both_the_tuning_and_the_test_set_is_refused():
    tree = _tree()
    tree["relations"]["pet"]["held_out"][0] = tree["relations"]["pet"]["wordings"][0]["question"]
    with pytest.raises(ValidationError, match="same wording"):
        bank.Domain.model_validate(tree)
