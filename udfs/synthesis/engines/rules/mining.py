"""Tasks mined from a text by rules: the six kinds of AdaptLLM (Cheng et al., ICLR 2024, section 3), without a model.

Everything that is answered stands in the text, cut out and not changed beyond its first letter and its last stop.
Which sentences are taken follows from their order in the text, which wording from a hash of the document.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from udfs.hashing import unit
from udfs.synthesis.engines.rules.bank import RELATIONS, RuleBank
from udfs.synthesis.formats import compose_question
from udfs.synthesis.pairs import MARKERS, Pair, make_pair
from udfs.text.chunk import sentence_spans

# Characters of a sentence that says enough to ask about; the published least, and what still reads as one statement.
SENTENCE_LENGTH = (50, 400)
# The least of the parts of a sentence: an effect, a cause, a definition.
_PART_LENGTH = 10
_TITLE_LENGTH = (3, 100)
# As published: of the pairs of sentences with a relation most are classified, the others generated.
_CLASSIFIED = 0.8
_KEYWORDS = 3
_COMPLETION_SENTENCES = 4
_COMPLETION_CHARACTERS = 600

# Kind, place in the text, slots of the wording, and response.
_Candidate = tuple[str, int, dict[str, str], str]

_STOP = ".!?…。！？"
_QUOTES = "\"'”’»)]"
_LETTERS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass(frozen=True)
class Sentence:
    """A sentence, where it starts in the text, and whether a new paragraph starts with it."""

    text: str
    start: int
    opens_paragraph: bool


@dataclass(frozen=True)
class Task:
    """A mined pair. ``kind`` is a key of the wordings; ``start`` the place in the text that it is about."""

    kind: str
    start: int
    pair: Pair


def mine(text: str, name: str, bank: RuleBank, per_kind: int) -> list[Task]:
    """The tasks of a text in the order of the text.

    Args:
        name: what the draws are about: the document's key.
        per_kind: most tasks of each kind.
    """
    return sorted(_Miner(text, name, bank, per_kind).tasks(), key=lambda task: (task.start, task.kind))


class _Miner:
    def __init__(self, text: str, name: str, bank: RuleBank, per_kind: int) -> None:
        self._text, self._name, self._bank, self._per_kind = text, name, bank, per_kind
        spans = list(sentence_spans(text))
        gaps = [True, *("\n" in text[end:start] for (_, end), (start, _) in pairwise(spans))]
        self._sentences = [Sentence(text[start:end], start, gap) for (start, end), gap in zip(spans, gaps, strict=True)]

    def tasks(self) -> Iterator[Task]:
        found: dict[str, int] = {}
        for kind, start, values, response in self._candidates():
            if found.get(kind, 0) == self._per_kind or any(
                marker in value for value in (*values.values(), response) for marker in MARKERS
            ):
                continue
            found[kind] = found.get(kind, 0) + 1
            instruction = self._bank.word(kind, unit(self._name, kind), values)
            if kind == "relation":
                instruction = compose_question(instruction, [self._bank.relations[one] for one in RELATIONS])
            yield Task(kind, start, make_pair(instruction, response))

    def _candidates(self) -> Iterator[_Candidate]:
        yield from self._title()
        for sentence in self._sentences:
            if _is_whole(sentence.text):
                yield from self._topic(sentence)
                yield from self._definition(sentence)
                yield from self._keywords(sentence)
                yield from self._cause(sentence)
        for first, second in pairwise(self._sentences):
            if not second.opens_paragraph and _is_whole(first.text) and first.text[-1] not in "?？":
                yield from self._joined(first, second)
        yield from self._completion()

    def _title(self) -> Iterator[_Candidate]:
        title, _, rest = self._text.strip().partition("\n")
        title = title.strip()
        least, most = _TITLE_LENGTH
        if (
            least <= len(title) <= most
            and title[-1] not in _STOP + ",;:"
            and _LETTERS.search(title)
            and len(rest.strip()) >= SENTENCE_LENGTH[0]
        ):
            yield "title", 0, {}, title

    def _topic(self, sentence: Sentence) -> Iterator[_Candidate]:
        subjects, phrases = _any_of(self._bank.topic_subjects), _any_of(self._bank.topic_phrases)
        match = re.match(
            rf"(?:\w+ ){{1,3}}(?P<subject>{subjects}) (?P<phrase>{phrases}) (?P<topic>[^\d\W].*)", sentence.text
        )
        if match and len(_unstopped(match["topic"])) >= _PART_LENGTH:
            slots = {"subject": match["subject"], "phrase": match["phrase"]}
            yield "topic", sentence.start, slots, _unstopped(match["topic"])

    def _definition(self, sentence: Sentence) -> Iterator[_Candidate]:
        phrases = _any_of(self._bank.definition_phrases)
        match = re.match(rf"(?P<term>[^,;:]{{2,60}}?) (?:{phrases}) (?P<definition>.+)", sentence.text)
        if match and len(match["definition"]) >= _PART_LENGTH:
            yield "definition", sentence.start, {"term": match["term"]}, _capitalised(match["definition"])

    def _keywords(self, sentence: Sentence) -> Iterator[_Candidate]:
        long = [word for word in _LETTERS.findall(sentence.text) if len(word) >= self._bank.keyword_letters]
        distinct = list({word.casefold(): word for word in reversed(long)}.values())[::-1]
        if len(distinct) < _KEYWORDS:
            return
        keywords = ", ".join(distinct[:_KEYWORDS])
        if unit(self._name, "keywords", sentence.text) < 0.5:
            yield "keywords_to_sentence", sentence.start, {"keywords": keywords}, sentence.text
        else:
            yield "sentence_to_keywords", sentence.start, {"sentence": sentence.text}, keywords

    def _cause(self, sentence: Sentence) -> Iterator[_Candidate]:
        match = re.match(rf"(?P<effect>.+?),? (?P<joint>{_any_of(self._bank.causes)}) (?P<cause>.+)", sentence.text)
        if not match or min(len(match["effect"]), len(match["cause"])) < _PART_LENGTH:
            return
        if match["effect"].rsplit(" ", 1)[-1].casefold() not in self._bank.causes_not_after:
            effect = match["effect"] + sentence.text.rstrip(_QUOTES)[-1]
            yield (
                "effect_to_cause",
                sentence.start,
                {"second": effect},
                _capitalised(f"{match['joint']} {match['cause']}"),
            )

    def _joined(self, first: Sentence, second: Sentence) -> Iterator[_Candidate]:
        """What a connective at the beginning of the second sentence tells about the two."""
        for relation, connectives in self._bank.connectives.items():
            said = _after(connectives, second.text)
            if said is None or not _is_whole(said):
                continue
            both = {"first": first.text, "second": said}
            draw = unit(self._name, relation, first.text)
            if relation == "effect":
                kind, response = ("cause_to_effect", said) if draw < 0.5 else ("effect_to_cause", first.text)
            elif relation in RELATIONS and draw < _CLASSIFIED:
                kind, response = "relation", self._bank.relations[relation]
            else:
                kind, response = relation, said
            yield kind, first.start, both, response

    def _completion(self) -> Iterator[_Candidate]:
        """The second half of the text, as many whole sentences of it as are read in one go."""
        half = len(self._sentences) // 2
        if len(self._sentences) < _COMPLETION_SENTENCES or not _is_whole(self._sentences[half - 1].text):
            return
        start = self._sentences[half].start
        ends = [one.start + len(one.text) for one in self._sentences[half:]]
        fitting = [end for end in ends if end - start <= _COMPLETION_CHARACTERS]
        if fitting:
            before = self._sentences[half - 1]
            yield "completion", before.start, {"sentence": before.text}, self._text[start : fitting[-1]]


def _is_whole(text: str) -> bool:
    """Whether this is a sentence of fitting length, and no heading or line of a table."""
    least, most = SENTENCE_LENGTH
    return least <= len(text) <= most and text.rstrip(_QUOTES)[-1:] in tuple(_STOP)


def _after(connectives: tuple[str, ...], sentence: str) -> str | None:
    """What follows the connective that ``sentence`` begins with, as a sentence of its own; None without one."""
    for connective in sorted(connectives, key=len, reverse=True):
        if sentence.startswith(f"{connective} "):
            return _capitalised(sentence[len(connective) + 1 :].lstrip())
    return None


def _any_of(phrases: tuple[str, ...]) -> str:
    """A pattern for any of ``phrases``, the longest that fits."""
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _unstopped(text: str) -> str:
    return text.rstrip(_STOP + _QUOTES)
