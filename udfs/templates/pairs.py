"""One pair, written through the patterns of its text: options shuffled and labelled, nothing left out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from udfs.errors import DataError
from udfs.synthesis.formats import FORMATS, PairFormat, Parts, decompose
from udfs.templates.bank import Bank, OptionStyle, Pattern, option_list
from udfs.templates.draws import Draws
from udfs.templates.options import label, speak_of_letters, speak_of_place
from udfs.templates.segments import STOPS, ends_in_stop, lead_in


class Turn(NamedTuple):
    """A pair and the pattern that writes it."""

    pattern: Pattern
    values: dict[str, str]

    @property
    def ask(self) -> str:
        """The question, with its options."""
        return self.pattern.ask.fill(self.values)

    @property
    def reply(self) -> str:
        """The answer, with its reasoning."""
        return self.pattern.reply.fill(self.values)


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
        """``pair`` ({instruction, response}) of the document that ``document`` names.

        Raises:
            DataError: the instruction or the response is empty.
        """
        instruction = pair["instruction"] or ""
        try:
            kind, parts = presentable(instruction, pair["response"] or "")
        except DataError as error:
            raise DataError(f"document {document}: {error}") from None
        question, given, _, reasoning, final = parts
        options: Sequence[str] | None = given
        values = {"question": question, "answer": final, "reasoning": reasoning or ""}
        if options is not None:
            # Where the answer is not among them, it may say the same in words of its own, which stay.
            if not self._bank.stock.keys().isdisjoint(map(str.casefold, options)) and final in options:
                options, final = self._reworded(options, final)
            lettered = False
            if speak_of_place(*options):
                lettered = speak_of_letters(*options)
            else:
                options = self._draws.shuffled(options, "option order", document, instruction)
            listed, answer = self._list(options, final, lettered)
            if answer is None:
                values["question"] = f"{question}\n{listed}"
            else:
                values["options"], values["answer"] = listed, answer
        pattern = self._patterns.get(kind)
        if pattern is None:
            pattern = self._patterns[kind] = self._draws.pick(kind.value, self._bank.patterns[kind])
        return Turn(pattern, values)

    @property
    def separator(self) -> str:
        """What stands between two pairs: the widest that a pattern in use asks for."""
        return max([pattern.separator for pattern in self._patterns.values()], key=len)

    def _reworded(self, options: Sequence[str], gold: str) -> tuple[Sequence[str], str]:
        """The options and the right one, with "none of these" and the like in the words drawn for the text."""
        stock = self._bank.stock
        found = {option: section for option in options if (section := stock.get(option.casefold()))}
        if len(set(found.values())) < len(found):  # two options in the same words could not be told apart
            return options, gold
        written = {}
        for option, section in found.items():
            phrase = self._draws.pick(section, getattr(self._bank, section)).text
            written[option] = phrase[:1].upper() + phrase[1:] if option[0].isupper() else phrase
        return [written.get(option, option) for option in options], written.get(gold, gold)

    def _list(self, options: Sequence[str], gold: str, lettered: bool) -> tuple[str, str | None]:
        """The listed options, and the right one as the style answers with it; None where it is not among them.

        Options that speak of letters have letters, whatever the style of the text.
        """
        if self._list_style is None:
            drawn = self._draws.pick("option style", self._styles)
            self._list_style = drawn, self._draws.pick("option head", self._bank.option_heads).text
        style, head = self._list_style
        if lettered and style.labels != "upper":
            upper = [style for style in self._styles if style.labels == "upper"]
            style = self._draws.pick("lettered option style", upper or self._styles)
        joint = style.joint
        if joint[0] in STOPS and any(option[:1] in STOPS or ends_in_stop(option) for option in options):
            joint = "\n"  # options with punctuation of their own could not be told apart in one line
        elif style.labels == "none" and any(joint in option for option in options):
            joint = "\n"  # nor could those that hold what stands between them
        listed = option_list(style, len(options), joint).fill_in_order(options)
        if head:
            gap = "\n" if "\n" in joint else " " if head.isascii() else ""
            listed = lead_in(head + gap, listed)
        try:
            place = options.index(gold)
        except ValueError:
            return listed, None
        return listed, style.answer.fill({"label": label(style.labels, place), "option": gold})


def presentable(instruction: str, response: str) -> tuple[PairFormat, Parts]:
    """The parts of a pair, and the format whose patterns keep all of them.

    Options that do not hold the answer are part of the question: the format is one without options. A pair of which a
    part would be empty is free-form, whole.

    Raises:
        DataError: the instruction or the response is empty.
    """
    parts = decompose(instruction, response)
    question, options, _, reasoning, final = parts
    if not question.strip() or not final.strip():
        if not instruction.strip() or not response.strip():
            raise DataError("a pair has an empty instruction or response.")
        return PairFormat.FREE_FORM, Parts(instruction, None, False, None, response)
    return FORMATS[options is not None and final in options][reasoning is not None], parts
