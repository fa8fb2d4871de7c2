"""The judge: is a pair that somebody wrote about a text right, by the almanac's truth?

It knows a question only in the wordings of the tuning sets, asked about an entity that the text names; whatever else a
question says is left unjudged rather than guessed at.
"""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

from udfs.almanac import bank
from udfs.almanac.world import Fact
from udfs.errors import DataError
from udfs.synthesis.formats import CONCLUSION, decompose

Verdict = Literal["right", "wrong", "unjudged"]

_WORD = re.compile(r"\w+")


class Judge:
    """Decides pairs against a set of facts."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._facts: dict[str, list[Fact]] = {}
        for fact in facts:
            self._facts.setdefault(fact.entity, []).append(fact)

    @classmethod
    def from_file(cls, path: Path) -> "Judge":
        """The judge of an almanac's ``truth/facts.jsonl``.

        Raises:
            DataError: the file cannot be read, or a line of it is not a fact.
        """
        try:
            with path.open(encoding="utf-8") as lines:
                return cls(Fact(**json.loads(line)) for line in lines)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is not a readable file of facts ({error}). Generate the almanac again.") from error

    def fact_asked(self, text: str, question: str) -> Fact | None:
        """The fact about an entity named in ``text`` that ``question`` (without options and cue) asks for, or None."""
        words = _WORD.findall(text)
        for first, second in pairwise(words):
            for fact in self._facts.get(f"{first} {second}", ()):
                wordings = bank.domain(fact.domain).relations[fact.relation].questions
                if any(question == wording.format(name=fact.entity) for wording in wordings):
                    return fact
        return None

    def verdict(self, text: str, pair: Mapping[str, str]) -> Verdict:
        """Judge ``pair`` (``instruction`` with options and cue inside, and ``response``) about ``text``.

        Right: the final answer is the true value, letter for letter; where there are options it is one of them and
        none is listed twice; where reasoning is asked for, the response gives it. Unjudged: the question is not
        recognised.
        """
        parts = decompose(pair["instruction"], pair["response"])
        fact = self.fact_asked(text, parts.question)
        if fact is None:
            return "unjudged"
        if parts.final != fact.value or (parts.cue and parts.reasoning is None):
            return "wrong"
        if parts.options is not None and (
            fact.value not in parts.options or len(set(parts.options)) != len(parts.options)
        ):
            return "wrong"
        return "right"


def final_answer(response: str) -> str:
    """What ``response`` concludes: the text after its last ``Therefore, the answer is``, or all of it."""
    return response.rpartition(CONCLUSION)[2]


def grounded(response: str, text: str) -> float:
    """Share of the words of the final answer, case ignored, that stand in ``text``; 0 for an answer without words."""
    answer = _WORD.findall(final_answer(response).casefold())
    known = set(_WORD.findall(text.casefold()))
    return sum(word in known for word in answer) / len(answer) if answer else 0.0
