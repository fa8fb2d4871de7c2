"""The four pair formats and how options, reasoning and the final answer stand inside a question and its answer.

Source of the strings: the instruction-synthesizer's published data and parsing code.

- multiple choice: ``{question}\\nOptions:\\n- {option}\\n- {option}``; the answer is the text of an
  option, not its letter
- chain of thought: the question ends in ``\\nLet's think step by step.`` and the answer is
  ``{reasoning}\\nTherefore, the answer is {final}``
- both: options first, then the cue
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from udfs.errors import DataError

OPTIONS_HEADER = "\nOptions:"
OPTION_BULLET = "\n- "
COT_CUE = "\nLet's think step by step."
CONCLUSION = "\nTherefore, the answer is "

_OPTIONS_AT_END = re.compile(r"\nOptions:(?P<items>(?:\n- [^\n]+)+)\Z")


class PairFormat(StrEnum):
    """What a pair asks for: a free answer, a choice, and each of them with or without its reasoning."""

    FREE_FORM = "free_form"
    MULTIPLE_CHOICE = "multiple_choice"
    CHAIN_OF_THOUGHT = "chain_of_thought"
    MULTIPLE_CHOICE_CHAIN_OF_THOUGHT = "multiple_choice_chain_of_thought"


# By whether the answer is chosen among options, and whether there is reasoning.
FORMATS = (
    (PairFormat.FREE_FORM, PairFormat.CHAIN_OF_THOUGHT),
    (PairFormat.MULTIPLE_CHOICE, PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT),
)


class Parts(NamedTuple):
    """A pair taken apart. ``cue`` says that the instruction asks for reasoning; ``reasoning`` is None where the
    response gives none, and then ``final`` is the whole response."""

    question: str
    options: tuple[str, ...] | None
    cue: bool
    reasoning: str | None
    final: str

    @property
    def format(self) -> PairFormat:
        """Chain of thought only where reasoning is both asked for and given."""
        return FORMATS[self.options is not None][self.reasoning is not None]


# What `Parts(...)` does, without a call of Python's own in between.
_parts: Callable[[tuple[Any, ...]], Parts] = partial(tuple.__new__, Parts)


def compose_question(question: str, options: Sequence[str] | None = None, chain_of_thought: bool = False) -> str:
    """The instruction of a pair.

    Raises:
        DataError: an option is empty or has a line break, or the list is empty: it could not be read back.
    """
    text = question
    if options is not None:
        if not options:
            raise DataError(f"the question {question!r} has an empty list of options. Pass None where there are none.")
        for option in options:
            if not option.strip() or "\n" in option:
                raise DataError(
                    f"option {option!r} of the question {question!r} cannot be written: an option is one line of text. "
                    "Join its lines or drop the question."
                )
        text += OPTIONS_HEADER + "".join(OPTION_BULLET + option.strip() for option in options)
    return text + COT_CUE if chain_of_thought else text


def compose_answer(final: str, reasoning: str | None = None) -> str:
    """The response of a pair; ``reasoning`` comes first where there is any."""
    return f"{reasoning}{CONCLUSION}{final}" if reasoning else final


def decompose(instruction: str, response: str) -> Parts:
    """The parts of a pair: the inverse of ``compose_question`` and ``compose_answer``.

    The response is split at its last conclusion, and only if the instruction asks for reasoning.
    """
    cue = instruction.endswith(COT_CUE)
    question = instruction[: -len(COT_CUE)] if cue else instruction
    options: tuple[str, ...] | None = None
    header = question.rfind(OPTIONS_HEADER)
    if header >= 0 and (match := _OPTIONS_AT_END.match(question, header)):
        options = tuple(map(str.strip, match["items"].split(OPTION_BULLET)[1:]))
        question = question[:header]
    if not cue:
        return _parts((question, options, False, None, response))
    reasoning, _, final = response.rpartition(CONCLUSION)
    if not reasoning:
        return _parts((question, options, True, None, response))
    return _parts((question, options, True, reasoning, final))


def recognise(instruction: str, response: str) -> PairFormat:
    """Which of the four formats a pair has."""
    return decompose(instruction, response).format
