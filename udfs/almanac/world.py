"""Entities and their facts: what is true in the almanac.

An entity is named by its domain, its split and its number. Names are dealt from one permutation of all two-part names
of the domain, the raw split from its front and the tuning split from its back: the splits cannot share a name, and a
larger almanac has the entities of a smaller one, unchanged. The parts of names are shared, so that a model that learned
to copy names from one split can copy those of the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydantic import Field, model_validator

from udfs.almanac import bank
from udfs.config import Config
from udfs.hashing import digest, unit

Split = Literal["raw", "tuning"]
SPLITS: tuple[Split, ...] = ("raw", "tuning")


class AlmanacConfig(Config):
    """Sizes of an almanac; together with ``seed`` they determine every byte of it."""

    # Another seed is another world: other names, facts and wordings.
    seed: int = 0
    # Over all domains, one document each. 240 documents are about 7,000 words: a hundred passes fit in about a million
    # tokens, which is what a model of about one million parameters needs to learn the facts.
    raw_entities: int = Field(default=240, ge=1)
    # Over all domains and formats, one context each, about entities that the raw texts never mention.
    tuning_contexts: int = Field(default=2000, ge=0)
    # Questions per context, drawn between the two; there are four facts to ask for.
    min_pairs: int = Field(default=3, ge=1, le=4)
    max_pairs: int = Field(default=4, ge=1, le=4)
    # Of multiple-choice questions in the tuning sets; there are the values of a text's four facts to choose from.
    options: int = Field(default=4, ge=2, le=4)
    # Held-out questions; four options each. 400 give an interval of about 5 points either side.
    test_questions: int = Field(default=400, ge=1)
    # General instructions about neither split.
    instructions: int = Field(default=400, ge=0, le=2000)

    @model_validator(mode="after")
    def _check(self) -> "AlmanacConfig":
        if self.min_pairs > self.max_pairs:
            raise ValueError(f"min_pairs ({self.min_pairs}) is above max_pairs ({self.max_pairs})")
        for name in bank.DOMAINS:
            names = bank.domain(name).names
            available = len(names.first.words) * len(names.second.words)
            needed = len(numbers(self.raw_entities, name)) + len(numbers(self.tuning_contexts, name))
            if needed > available:
                raise ValueError(
                    f"raw_entities and tuning_contexts ask for {needed} {name}, but there are {available} names; "
                    f"keep their sum at or below {available * len(bank.DOMAINS)}"
                )
        facts = sum(len(numbers(self.raw_entities, name)) * len(bank.domain(name).relations) for name in bank.DOMAINS)
        if self.test_questions > facts:
            raise ValueError(
                f"test_questions is {self.test_questions}, but {self.raw_entities} raw entities have only {facts} "
                "facts; lower test_questions or raise raw_entities"
            )
        return self


@dataclass(frozen=True)
class Fact:
    """One truth: ``relation`` of ``entity`` is ``value``."""

    entity: str
    domain: str
    relation: str
    value: str
    split: Split


@dataclass(frozen=True)
class Entity:
    """Something the almanac knows: one fact for each relation of its domain, in the domain's order."""

    name: str
    domain: str
    split: Split
    pronoun: str
    facts: tuple[Fact, ...]


def numbers(total: int, domain: str) -> range:
    """Numbers of the entities that ``domain`` has when ``total`` are spread evenly over all domains."""
    place = bank.DOMAINS.index(domain)
    return range((total - place + len(bank.DOMAINS) - 1) // len(bank.DOMAINS))


def entities(config: AlmanacConfig, split: Split) -> Iterator[Entity]:
    """All entities of ``split``, domain by domain; ``entity`` gives a single one."""
    total = config.raw_entities if split == "raw" else config.tuning_contexts
    for domain in bank.DOMAINS:
        for number in numbers(total, domain):
            yield entity(config.seed, domain, split, number)


def entity(seed: int, domain: str, split: Split, number: int) -> Entity:
    """Entity ``number`` (from 0) of ``split`` in ``domain``; the sizes of the almanac play no part."""
    known = bank.domain(domain)
    order = _names(seed, domain)
    name = order[number] if split == "raw" else order[-1 - number]
    facts = tuple(
        Fact(name, domain, relation, choose(wording.values, seed, "value", domain, name, relation), split)
        for relation, wording in known.relations.items()
    )
    return Entity(name, domain, split, choose(known.pronouns, seed, "pronoun", domain, name), facts)


def choose(candidates: tuple[str, ...], *about: object) -> str:
    """One of ``candidates``, uniformly, decided by what the draw is ``about``."""
    return candidates[int(unit(*about) * len(candidates))]


@lru_cache(maxsize=16)
def _names(seed: int, domain: str) -> tuple[str, ...]:
    names = bank.domain(domain).names
    every = (f"{first} {second}" for first in names.first.words for second in names.second.words)
    return tuple(sorted(every, key=lambda name: digest(seed, "name", domain, name)))
