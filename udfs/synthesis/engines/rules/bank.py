"""What tasks are mined by in one language: connectives, phrases and wordings, from a YAML file beside this module.

Another language is another file. Connectives and phrases are plain text, never patterns, so no character of them acts
as one. Wordings have slots in braces, filled once and all together: what a text says in braces stays as it is.
"""

import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from udfs.config import Config, build, fingerprint
from udfs.errors import ConfigError

SLOTS: dict[str, set[str]] = {
    "title": set(),
    "topic": {"subject", "phrase"},
    "keywords_to_sentence": {"keywords"},
    "sentence_to_keywords": {"sentence"},
    "definition": {"term"},
    "relation": {"first", "second"},
    "entailment": {"first"},
    "neutral": {"first"},
    "contradiction": {"first"},
    "cause_to_effect": {"first"},
    "effect_to_cause": {"second"},
    "similar": {"first"},
    "different": {"first"},
    "completion": {"sentence"},
}
RELATIONS = ("entailment", "neutral", "contradiction")
CONNECTIVES = (*RELATIONS, "effect", "similar", "different")

Phrases = tuple[str, ...]


class RuleBank(Config):
    """The rules of one language."""

    keyword_letters: int = Field(ge=1)
    # Name of each relation of two sentences, shown as options in this order.
    relations: dict[str, str]
    # At the beginning of a sentence: what it is to the sentence before.
    connectives: dict[str, Phrases]
    # Inside a sentence, between effect and cause, and the words that must not stand before.
    causes: Phrases
    causes_not_after: Phrases
    topic_subjects: Phrases
    topic_phrases: Phrases
    definition_phrases: Phrases
    wordings: dict[str, Phrases]

    @model_validator(mode="after")
    def _check(self) -> "RuleBank":
        for name, found, expected in (
            ("relations", self.relations, RELATIONS),
            ("connectives", self.connectives, CONNECTIVES),
            ("wordings", self.wordings, tuple(SLOTS)),
        ):
            if set(found) != set(expected):
                raise ValueError(f"{name} must have the keys {', '.join(expected)}, not {', '.join(found)}")
        for kind, wordings in self.wordings.items():
            for wording in wordings:
                slots = {field for _, field, _, _ in string.Formatter().parse(wording) if field is not None}
                if slots != SLOTS[kind]:
                    raise ValueError(f"the wording {wording!r} of {kind} must have the slots {sorted(SLOTS[kind])}")
        if not all(self.wordings.values()):
            raise ValueError("every kind needs a wording")
        return self

    @property
    def version(self) -> str:
        """Fingerprint of all rules."""
        return fingerprint(self)

    def word(self, kind: str, draw: float, values: Mapping[str, str]) -> str:
        """The wording of ``kind`` that ``draw`` in [0, 1) chooses, with its slots filled."""
        wordings = self.wordings[kind]
        return wordings[int(draw * len(wordings))].format_map(values)


def languages() -> list[str]:
    """Languages that there are rules for."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))


@cache
def load_rules(language: str) -> RuleBank:
    """The rules of a language.

    Raises:
        ConfigError: there are none, or their file breaks the grammar above.
    """
    if language not in languages():
        raise ConfigError(f"there are no rules for the language {language!r}. Languages: {', '.join(languages())}.")
    path = Path(__file__).with_name(f"{language}.yaml")
    tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    return build(RuleBank, tree, path.name)
