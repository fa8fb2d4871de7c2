"""Checks of pairs against the text they are about, and the scores that stay with a pair.

The published method keeps every pair that can be parsed and asks no question twice; the other checks take out what
teaches nothing or the wrong thing. Each one is a setting named like its reason, and can be switched off.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from importlib import resources

import yaml
from pydantic import Field

from udfs.config import Config
from udfs.synthesis.formats import Parts, decompose
from udfs.synthesis.pairs import Pair, ParsedCompletion, ScoredPair, parse
from udfs.text.language import identify, scripts
from udfs.text.words import words

CHECKS: dict[str, str] = {
    "empty_response": "the response is nothing but punctuation",
    "echo": "the response is the question or the whole text over again",
    "repeated_question": "an earlier pair of the completion asks the same, up to case and punctuation",
    "near_repeated_question": "an earlier pair asks nearly the same and has the same answer",
    "other_language": "the response is in another language than the text",
    "too_long_response": "the response is far longer than the text",
    "unanswerable": "the response says that there is no answer",
    "template_remains": "a placeholder or a mark of a chat template stands in the pair, but not in the text",
}

# Below this many bytes of letters (UTF-8, so fewer letters of richer scripts) a language is not told reliably.
_LANGUAGE_BYTES = 40
# Below this many letters, in the text or in the response, a foreign word (DNA, a name) is more likely than a language.
_SCRIPT_LETTERS = 8
# An exam problem of one line may need a derivation of many.
_SHORT_TEXT = 200
# On 1,042 responses of the almanac and its invented words, no disagreement of text and response reached this.
_LANGUAGE_PROBABILITY = 0.9

_TEMPLATE = re.compile(
    r"(?<![\w\\}^_])\{\{?\s*[A-Za-z_]\w*\s*\}?\}"  # {question}, {{ context }}, but not \frac{a}{b}
    r"|<\|[^|<>\n]{1,40}\|>"  # <|im_start|>
    r"|\[/?INST\]|<</?SYS>>|</?s>"
    r"|^#{2,} ?(?:Instruction|Input|Question|Response|Answer):?\s*$"
    r"|\bOptions:\s*\Z|\bTherefore, the answer is\s*\Z",
    re.MULTILINE,
)

# What is no mere punctuation: signs of calculation and comparison, and what is beyond ASCII and a symbol.
_SIGN = re.compile(r"[+<=>$]|[-*/^](?=\s*\d)|(?<=\d)%|[^\w\s\x00-\x7f]")


class CheckSettings(Config):
    """Which pairs are kept. ``false`` or ``null`` switches a check off."""

    empty_response: bool = True
    echo: bool = True
    repeated_question: bool = True
    # ROUGE-L F1 of the two instructions, from which on they count as the same; 1 is word for word.
    near_repeated_question: float | None = Field(default=0.8, gt=0, le=1)
    other_language: bool = True
    # Characters of the response per character of the text; texts below 200 characters count as that long.
    too_long_response: float | None = Field(default=3.0, gt=0)
    unanswerable: bool = True
    template_remains: bool = True


def read_pairs(completion: str, text: str, settings: CheckSettings) -> ParsedCompletion:
    """The pairs of a completion that pass, with their scores; every other piece with the reason why not.

    Args:
        completion: what was generated about ``text``.
        text: the text as it stands in the corpus.
    """
    checker = _Checker(text, settings)
    parsed = parse(completion, checker.reason)
    return ParsedCompletion([checker.scored(pair) for pair in parsed.pairs], parsed.rejected)


def grounding(response: str, known: set[str]) -> float:
    """Share of the words of ``response`` that are ``known``, those of the text; 0 for a response without words."""
    said = words(response)
    return sum(word in known for word in said) / len(said) if said else 0.0


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words (Lin 2004), in [0, 1]."""
    if not first or not second:
        return 0.0
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for position, other in enumerate(second, start=1):
            above = row[position]
            row[position] = diagonal + 1 if word == other else max(above, row[position - 1])
            diagonal = above
    return 2 * row[-1] / (len(first) + len(second))


class _Checker:
    """The checks of the pairs about one text."""

    def __init__(self, text: str, settings: CheckSettings) -> None:
        self._text, self._settings = text, settings
        self._words = words(text)
        self._known = set(self._words)

    def scored(self, pair: Pair) -> ScoredPair:
        """The pair with the grounding of its response and the response's length relative to the text's."""
        parts = decompose(pair["instruction"], pair["response"])
        return {
            **pair,
            "grounding": grounding(_said(parts), self._known),
            "length_ratio": len(pair["response"]) / max(len(self._text), 1),
        }

    def reason(self, pair: Pair, earlier: Sequence[Pair]) -> str:
        """The first check that the pair fails, empty if it passes all that are on."""
        settings, response = self._settings, pair["response"]
        parts = decompose(pair["instruction"], response)
        if settings.empty_response and _is_empty(parts.final):
            return "empty_response"
        if settings.template_remains and self._has_template(pair):
            return "template_remains"
        if settings.echo and self._is_echo(pair, parts):
            return "echo"
        if settings.unanswerable and _is_unanswerable(parts):
            return "unanswerable"
        if settings.too_long_response is not None:
            longest = settings.too_long_response * max(len(self._text), _SHORT_TEXT)
            if len(response) > longest:
                return "too_long_response"
        if settings.other_language and self._is_foreign(_said(parts)):
            return "other_language"
        return self._repetition(pair, parts, earlier)

    def _has_template(self, pair: Pair) -> bool:
        sides = (pair["instruction"], pair["response"])
        return any(match[0].strip() not in self._text for side in sides for match in _TEMPLATE.finditer(side))

    def _is_echo(self, pair: Pair, parts: Parts) -> bool:
        said = words(pair["response"])
        return bool(said) and said in (words(pair["instruction"]), words(parts.question), self._words)

    def _is_foreign(self, said: str) -> bool:
        letters = scripts(said)
        if min(letters.total(), self._scripts.total()) >= _SCRIPT_LETTERS:
            script, count = letters.most_common(1)[0]
            if count > letters.total() / 2 and script not in self._scripts:
                return True
        # A letter has a byte at least, so long responses need not be counted.
        if letters.total() < _LANGUAGE_BYTES and _letter_bytes(said) < _LANGUAGE_BYTES:
            return False
        # Telling a language costs more than all other checks together, and a response in the text's own words has its.
        if grounding(said, self._known) > 0.5:
            return False
        language, probability = identify(said)
        if probability < _LANGUAGE_PROBABILITY:
            return False
        own, own_probability = self._language
        return own != language and own_probability >= _LANGUAGE_PROBABILITY

    @cached_property
    def _language(self) -> tuple[str, float]:
        return identify(self._text)

    @cached_property
    def _scripts(self) -> Counter[str]:
        return scripts(self._text)

    def _repetition(self, pair: Pair, parts: Parts, earlier: Sequence[Pair]) -> str:
        key, threshold = _key(pair["instruction"]), self._settings.near_repeated_question
        for other in earlier:
            other_key = _key(other["instruction"])
            if self._settings.repeated_question and key == other_key:
                return "repeated_question"
            # Questions that differ in one word and have different answers (the northern, the southern) are two.
            if (
                threshold is not None
                and _key(parts.final) == _key(decompose(other["instruction"], other["response"]).final)
                and rouge_l(key, other_key) >= threshold
            ):
                return "near_repeated_question"
        return ""


def _letter_bytes(text: str) -> int:
    return sum(len(letter.encode()) for letter in text if letter.isalpha())


def _said(parts: Parts) -> str:
    """The response without the words that every conclusion has."""
    return f"{parts.reasoning or ''} {parts.final}".strip()


def _key(text: str) -> list[str]:
    """What two texts that say the same word for word have in common; 7 + 3 is not 7 - 3."""
    found = _SIGN.findall(text)
    signs = [sign for sign in found if sign.isascii() or unicodedata.category(sign)[0] == "S"]
    return words(text) + signs or text.split()


def _is_empty(text: str) -> bool:
    return not any(unicodedata.category(character)[0] in "LNS" for character in text)


def _is_unanswerable(parts: Parts) -> bool:
    # Where it is one of the options, "not enough information" is an answer like the others.
    if parts.options is not None and parts.final in parts.options:
        return False
    return tuple(words(parts.final)) in _unanswerable()


@cache
def _unanswerable() -> frozenset[tuple[str, ...]]:
    file = resources.files("udfs.synthesis").joinpath("unanswerable.yaml")
    answers = yaml.safe_load(file.read_text(encoding="utf-8"))
    return frozenset(tuple(words(answer)) for of_language in answers.values() for answer in of_language)
