"""One pair, written through the patterns of its text: options shuffled and labelled, nothing left out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from udfs.synthesis.formats import PairFormat, Parts, decompose
from udfs.templates.bank import Bank, OptionStyle, Pattern
from udfs.templates.draws import Draws
from udfs.templates.options import label, speak_of_place
from udfs.templates.segments import STOPS, ends_in_stop, lead_in


class Turn(NamedTuple):
    """A pair as its pattern writes it."""

    ask: str
    reply: str
    pattern: Pattern

    @property
    def text(self) -> str:
        """Question and answer with their prefixes."""
        return lead_in(self.pattern.ask_prefix, self.ask) + lead_in(self.pattern.middle, self.reply)


class PairWriter:
    """Writes every pair of one M-shot text in one style: one pattern per format, one way of listing options."""

    def __init__(self, bank: Bank, draws: Draws, mode: str) -> None:
        self._bank = bank
        self._draws = draws
        # Numbered options inside numbered questions could not be told from them.
        styles = bank.option_styles
        self._styles = tuple(style for style in styles if style.labels != "digit") if mode == "numbered" else styles
        self._patterns: dict[PairFormat, Pattern] = {}
        self._list_style: tuple[OptionStyle, str] | None = None

    def write(self, document: str, pair: Mapping[str, str]) -> Turn:
        """``pair`` ({instruction, response}) of the document that ``document`` names."""
        instruction = pair["instruction"]
        kind, parts = presentable(instruction, pair["response"])
        question, options, _, reasoning, final = parts
        values = {"question": question, "answer": final, "reasoning": reasoning or ""}
        if options is not None:
            written, gold = self._reworded(options, final)
            if not speak_of_place(*written):
                order = self._draws.permutation(len(written), "option order", document, instruction)
                written = [written[i] for i in order]
            listed, answer = self._list(written, gold)
            if answer is None:
                values["question"] = f"{question}\n{listed}"
            else:
                values["options"], values["answer"] = listed, answer
        pattern = self._patterns.get(kind)
        if pattern is None:
            pattern = self._patterns[kind] = self._draws.pick(kind.value, self._bank.patterns[kind])
        return Turn(pattern.ask.fill(values), pattern.reply.fill(values), pattern)

    def _reworded(self, options: Sequence[str], gold: str) -> tuple[list[str], str]:
        """The options and the right one, with "none of these" and the like in the words drawn for the text."""
        stock = self._bank.stock
        if stock.keys().isdisjoint(map(str.casefold, options)):
            return list(options), gold
        found = {option: section for option in options if (section := stock.get(option.casefold()))}
        if len(set(found.values())) < len(found):  # two options in the same words could not be told apart
            return list(options), gold
        written = {}
        for option, section in found.items():
            phrase = self._draws.pick(section, getattr(self._bank, section)).text
            written[option] = phrase[:1].upper() + phrase[1:] if option[0].isupper() else phrase
        return [written.get(option, option) for option in options], written.get(gold, gold)

    def _list(self, options: list[str], gold: str) -> tuple[str, str | None]:
        """The listed options, and the right one as the style answers with it; None where it is not among them."""
        if self._list_style is None:
            drawn = self._draws.pick("option style", self._styles)
            self._list_style = drawn, self._draws.pick("option head", self._bank.option_heads).text
        style, head = self._list_style
        joint = style.joint
        if joint[0] in STOPS and any(option[0] in STOPS or ends_in_stop(option) for option in options):
            joint = "\n"  # options with punctuation of their own could not be told apart in one line
        items = [
            style.item.fill({"label": label(style.labels, i), "option": option}) for i, option in enumerate(options)
        ]
        listed = joint.join(items)
        if head:
            gap = "\n" if "\n" in joint else " " if head.isascii() else ""
            listed = lead_in(head + gap, listed)
        if gold not in options:
            return listed, None
        return listed, style.answer.fill({"label": label(style.labels, options.index(gold)), "option": gold})


def presentable(instruction: str, response: str) -> tuple[PairFormat, Parts]:
    """The parts of a pair, and the format whose patterns keep all of them.

    Options that do not hold the answer are part of the question: the format is one without options. A pair of which a
    part would be empty is free-form, whole.
    """
    parts = decompose(instruction, response)
    if not parts.question.strip() or not parts.final.strip():
        parts = Parts(instruction, None, False, None, response)
    elif parts.options is not None and parts.final not in parts.options:
        return parts._replace(options=None).format, parts
    return parts.format, parts
