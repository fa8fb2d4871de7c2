"""Questions about the facts: the pairs of the tuning sets, and the held-out test."""

import random
from typing import Any

from udfs.almanac import bank
from udfs.almanac.documents import Document, wording
from udfs.almanac.world import AlmanacConfig, Fact, choose
from udfs.hashing import digest, unit
from udfs.hashing import seed as hashed_seed
from udfs.synthesis.formats import PairFormat, compose_answer, compose_question

# Every tuning set has one format, so that a sequence made of one set has one pattern.
FORMATS = tuple(PairFormat)
# How often each format comes. Free-form pairs are half: they show most purely how a fact is found in the text, which is
# the hard part for a very small synthesizer.
_FREE, _CHOICE, _THOUGHT, _BOTH = (
    PairFormat.FREE_FORM,
    PairFormat.MULTIPLE_CHOICE,
    PairFormat.CHAIN_OF_THOUGHT,
    PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT,
)
SHARES = (_FREE, _THOUGHT, _FREE, _CHOICE, _FREE, _BOTH, _FREE, _CHOICE, _FREE, _THOUGHT)
TEST_OPTIONS = 4
# Short: the question names the entity already, and a small synthesizer pays for every token.
REASONS = ('The text says "{statement}".', 'We read "{statement}" in the text.')


def dataset(pair_format: PairFormat) -> str:
    """Folder of the tuning set with pairs of this format."""
    return f"almanac_{pair_format}"


def tuning_example(config: AlmanacConfig, document: Document, pair_format: PairFormat) -> dict[str, Any]:
    """One row of a tuning set: ``{"context": text, "QA_list": [{"Q", "A"}, ...]}``, each fact asked at most once."""
    facts = document.entity.facts
    about = (config.seed, document.entity.domain, document.entity.name)
    count = config.min_pairs + int(unit(*about, "pairs") * (config.max_pairs - config.min_pairs + 1))
    asked = random.Random(hashed_seed(*about, "asked")).sample(facts, count)
    # In the order of the text, as people ask who read along; a small synthesizer can walk through the text with them.
    asked.sort(key=lambda fact: document.text.index(document.statements[fact.relation]))
    return {"context": document.text, "QA_list": [_pair(config, document, fact, pair_format) for fact in asked]}


def _pair(config: AlmanacConfig, document: Document, fact: Fact, pair_format: PairFormat) -> dict[str, str]:
    about = (config.seed, fact.domain, fact.entity, fact.relation)
    question = wording(config.seed, fact).question.format(name=fact.entity)
    options = None
    if pair_format in (PairFormat.MULTIPLE_CHOICE, PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT):
        # Wrong options are what the text says of other things: the synthesizer can copy them, where values of the same
        # relation would have to be invented.
        others = [other.value for other in document.entity.facts if other != fact]
        options = _options(config.options, fact.value, others, *about, "options")
    reasoning = None
    if pair_format in (PairFormat.CHAIN_OF_THOUGHT, PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT):
        statement = document.statements[fact.relation]
        reasoning = choose(REASONS, *about, "reason").format(statement=statement)
    return {
        "Q": compose_question(question, options, chain_of_thought=reasoning is not None),
        "A": compose_answer(fact.value, reasoning),
    }


def _options(count: int, right: str, wrong: list[str], *about: object) -> list[str]:
    """``right`` and ``count - 1`` of the ``wrong``, in an order drawn uniformly."""
    draw = random.Random(hashed_seed(*about))
    options = [right, *draw.sample(wrong, count - 1)]
    draw.shuffle(options)
    return options


def held_out_questions(config: AlmanacConfig, facts: list[Fact]) -> list[dict[str, Any]]:
    """``config.test_questions`` of the ``facts``, asked in the wordings that only the test uses.

    Which facts are asked is decided by hash, so a longer test contains the shorter one.
    """
    ranked = sorted(facts, key=lambda fact: digest(config.seed, "test", fact.domain, fact.entity, fact.relation))
    return [_held_out_question(config.seed, fact) for fact in ranked[: config.test_questions]]


def _held_out_question(seed: int, fact: Fact) -> dict[str, Any]:
    about = (seed, "held_out", fact.domain, fact.entity, fact.relation)
    question = choose(bank.domain(fact.domain).relations[fact.relation].held_out, *about)
    values = bank.domain(fact.domain).relations[fact.relation].values
    options = _options(TEST_OPTIONS, fact.value, [value for value in values if value != fact.value], *about, "options")
    return {
        "question_id": digest(*about).hex(),
        "domain": fact.domain,
        "subject": fact.entity,
        "relation": fact.relation,
        "prompt": f"Question: {question.format(name=fact.entity)}\nAnswer:",
        "options": options,
        "gold": options.index(fact.value),
        "answer": fact.value,
    }
