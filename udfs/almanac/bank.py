"""The wording of the almanac: what can be said about each domain, read from ``domains/*.yaml`` and checked.

A domain file holds the parts that names are built from, the pronouns, the document styles and the relations. A style
is one text with a slot ``{0}``, ``{1}``, ... for each relation, filled in any order, and with ``{name}``, ``{they}``
and ``{They}``. A relation has its values, the ``wordings`` of its fact, and ``held_out``
questions, in which only the test set asks for it. A wording is a ``clause`` (predicate) and a ``note`` (label), which
state the fact in documents, and the ``question`` that question-answering sets ask about a text with that wording.
Clause, note and question share the word that leads to the value: it stands right before the value in a text and last
in the question, and in its domain it belongs to this relation alone. A very small model can therefore find the answer
at the place in the text where the question's last word stands.
"""

import re
import string
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from udfs.config import Config
from udfs.errors import DataError
from udfs.hashing import identifier

DOMAINS = ("people", "places", "compounds")


def slots(pattern: str) -> list[str]:
    """Names of the ``{slots}`` of ``pattern``, in order, repeats included."""
    return [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class NamePart(Config):
    """One part of a name: every start joined to every end."""

    starts: tuple[str, ...] = Field(min_length=1)
    ends: tuple[str, ...] = Field(min_length=1)

    @property
    def words(self) -> tuple[str, ...]:
        """All words of this part, without repeats (checked when the domain is loaded)."""
        return tuple(start + end for start in self.starts for end in self.ends)


class Names(Config):
    """Two-part names: any first part with any second part."""

    first: NamePart
    second: NamePart


class Style(Config):
    """One way to write a document; ``facts`` says which form of a fact fills its slots."""

    facts: Literal["clause", "note"]
    text: str


class Wording(Config):
    """One way to state a fact, and to ask for it where it is stated so."""

    clause: str
    note: str
    question: str

    @property
    def lead(self) -> str:
        """The word right before the value."""
        return self.clause.removesuffix(" {value}").split()[-1]

    @model_validator(mode="after")
    def _check(self) -> "Wording":
        for pattern in (self.clause, self.note):
            _require(slots(pattern) == ["value"], f"{pattern!r} must have the slot {{value}} exactly once")
            _require(
                pattern.endswith(f" {self.lead} {{value}}") and self.lead.isalpha(),
                f"{pattern!r} must end in a word and {{value}}, the word the same in clause and note",
            )
        _require(slots(self.question) == ["name"], f"{self.question!r} must have the slot {{name}} exactly once")
        _require(self.question.endswith(f" {self.lead}?"), f"{self.question!r} must end in {self.lead!r} and '?'")
        return self


class Relation(Config):
    """One property of an entity: its closed set of values and the ways to state it and to ask for it."""

    # Invented words, every start joined to every end: a small synthesizer learns soon to copy words whose parts it
    # knows but which are too many to guess, and from lists of ordinary words it learns to guess.
    values: tuple[str, ...] = Field(min_length=8, max_length=64)
    wordings: tuple[Wording, ...] = Field(min_length=2)
    held_out: tuple[str, ...] = Field(min_length=1)

    @field_validator("values", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        return NamePart.model_validate(value).words if isinstance(value, dict) else value

    @property
    def questions(self) -> tuple[str, ...]:
        """All questions of the question-answering sets about this relation."""
        return tuple(wording.question for wording in self.wordings)

    @model_validator(mode="after")
    def _check(self) -> "Relation":
        for pattern in self.held_out:
            _require(slots(pattern) == ["name"], f"{pattern!r} must have the slot {{name}} exactly once")
        return self


class Domain(Config):
    """One subject area of the almanac."""

    name: str
    names: Names
    pronouns: tuple[str, ...] = Field(min_length=1)
    styles: Annotated[dict[str, Style], Field(min_length=2)]
    relations: Annotated[dict[str, Relation], Field(min_length=2)]

    @model_validator(mode="after")
    def _check(self) -> "Domain":
        needed = [str(position) for position in range(len(self.relations))]
        for name, style in self.styles.items():
            found = slots(style.text)
            _require(
                sorted(slot for slot in found if slot.isdecimal()) == needed,
                f"style {name} must have each of the slots {{0}} to {{{needed[-1]}}} exactly once",
            )
            unknown = set(found) - set(needed) - {"name", "they", "They"}
            _require("name" in found and not unknown, f"style {name}: unknown slots {sorted(unknown)} or no {{name}}")
        # The same word for two things would make a question ambiguous, or a wrong answer look right.
        words = [value for relation in self.relations.values() for value in relation.values]
        words += [*self.names.first.words, *self.names.second.words]
        twice = sorted({word for word in words if words.count(word) > 1})
        _require(not twice, f"these values or parts of names are there twice: {twice}")
        questions = [
            pattern for relation in self.relations.values() for pattern in relation.questions + relation.held_out
        ]
        _require(len(set(questions)) == len(questions), "two questions have the same wording")
        leads = [wording.lead for relation in self.relations.values() for wording in relation.wordings]
        _require(len(set(leads)) == len(leads), f"two wordings have the same word before the value: {sorted(leads)}")
        for name, style in self.styles.items():
            misleading = set(leads) & set(re.findall(r"\w+", style.text.casefold()))
            _require(not misleading, f"style {name} has words that lead to values elsewhere: {sorted(misleading)}")
        return self


@cache
def domain(name: str) -> Domain:
    """The domain called ``name``, one of ``DOMAINS``.

    Raises:
        DataError: its file breaks a rule of the grammar above.
    """
    tree = yaml.safe_load(_source(f"domains/{name}.yaml"))
    try:
        return Domain.model_validate({"name": name, **tree})
    except ValidationError as error:
        raise DataError(f"udfs/almanac/domains/{name}.yaml is not a valid domain: {error}") from None


@cache
def instruction_words() -> dict[str, dict[str, str] | list[str]]:
    """Word lists of the general instructions (``instructions.yaml``)."""
    words: dict[str, dict[str, str] | list[str]] = yaml.safe_load(_source("instructions.yaml"))
    return words


@cache
def version() -> str:
    """Fingerprint of all wording: changes whenever a sentence, a value or a word list does."""
    return identifier(*(_source(f"domains/{name}.yaml") for name in DOMAINS), _source("instructions.yaml"))


def _source(path: str) -> str:
    return resources.files("udfs.almanac").joinpath(path).read_text(encoding="utf-8")
