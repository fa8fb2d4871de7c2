"""One pair, written through the patterns of its text: options shuffled and labelled, nothing left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from udfs.synthesis.formats import COT_CUE, PairFormat, Parts, decompose
from udfs.templates.bank import Bank, Pattern
from udfs.templates.draws import Draws
from udfs.templates.segments import STOPS, ends_in_stop

_ROMAN = ((100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


@dataclass(frozen=True)
class Turn:
    """A pair as its pattern writes it."""

    ask: str
    reply: str
    pattern: Pattern

    @property
    def text(self) -> str:
        """Question and answer with their prefixes."""
        return self.pattern.ask_prefix + self.ask + self.pattern.middle + self.reply


class PairWriter:
    """Writes every pair of one M-shot text in one style: one pattern per format, one way of listing options."""

    def __init__(self, bank: Bank, draws: Draws, mode: str) -> None:
        self._bank = bank
        self._draws = draws
        # Numbered options inside numbered questions could not be told from them.
        styles = bank.option_styles
        self._styles = tuple(style for style in styles if style.labels != "digit") if mode == "numbered" else styles
        self._patterns: dict[PairFormat, Pattern] = {}

    def write(self, document: str, pair: Mapping[str, str]) -> Turn:
        """``pair`` ({instruction, response}) of the document that ``document`` names."""
        instruction = pair["instruction"]
        kind, parts = presentable(instruction, pair["response"])
        values = {"question": parts.question, "answer": parts.final, "reasoning": parts.reasoning or ""}
        if parts.options is not None:
            order = self._draws.permutation(len(parts.options), "option order", document, instruction)
            values["options"], values["answer"] = self._list([parts.options[i] for i in order], parts.final)
        pattern = self._patterns.get(kind)
        if pattern is None:
            pattern = self._draws.pick(kind.value, self._bank.patterns[kind])
            self._patterns[kind] = pattern
        return Turn(pattern.ask.fill(values), pattern.reply.fill(values), pattern)

    def _list(self, options: list[str], gold: str) -> tuple[str, str]:
        """The listed options, and the right one as the style answers with it."""
        style = self._draws.pick("option style", self._styles)
        head = self._draws.pick("option head", self._bank.option_heads).text
        joint = style.joint
        if joint[0] in STOPS and any(ends_in_stop(option) for option in options):
            joint = "\n"  # options with punctuation of their own could not be told apart in one line
        items = [
            style.item.fill({"label": label(style.labels, i), "option": option}) for i, option in enumerate(options)
        ]
        listed = joint.join(items)
        if head:
            listed = head + ("\n" if "\n" in joint else " ") + listed
        return listed, style.answer.fill({"label": label(style.labels, options.index(gold)), "option": gold})


def presentable(instruction: str, response: str) -> tuple[PairFormat, Parts]:
    """The parts of a pair such that a pattern of the format keeps all of them.

    Options that do not hold the answer stay inside the question, and the pair counts as one without options. A pair
    of which a part would be empty is free-form, whole.
    """
    parts = decompose(instruction, response)
    if not parts.question.strip() or not parts.final.strip():
        parts = Parts(instruction, None, False, None, response)
    elif parts.options is not None and parts.final not in parts.options:
        question = instruction.removesuffix(COT_CUE)
        parts = Parts(question, None, parts.cue, parts.reasoning, parts.final)
    return parts.format, parts


@cache
def label(kind: str, index: int) -> str:
    """Label of the option at ``index`` (from 0): a, b, ... z, aa; or 1, 2; or i, ii; empty for kind ``none``."""
    if kind == "none":
        return ""
    number = index + 1
    if kind == "digit":
        return str(number)
    text = ""
    if kind == "roman":
        for value, numeral in _ROMAN:
            count, number = divmod(number, value)
            text += numeral * count
        return text
    while number:
        number, letter = divmod(number - 1, 26)
        text = chr(ord("a") + letter) + text
    return text.upper() if kind == "upper" else text
