"""A template string, taken apart once and filled in a single pass.

A slot is ``{name}``. Filling puts each value in once and never looks at it again, so a literal ``{answer}`` inside a
question stays what it is. A punctuation mark that follows a slot is a *stop*: it is written only where the value does
not end in punctuation itself. Scripts without spaces let a full-width mark stand right before a slot: it is written
only where the value does not begin with punctuation. So no seam has a doubled mark and no value is ever altered.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from udfs.errors import ConfigError

WIDE_STOPS = frozenset("…。．？！，、；：")
STOPS = frozenset(".?!,;:") | WIDE_STOPS
# Those of scripts without a bank of their own, and marks that are two in one: no template has them, values may.
_ENDS = STOPS | frozenset("।॥؟۔؛،።｡‼⁇⁈⁉‽")
# Values of these slots are the bank's own and end in a letter, a digit or a bracket; all others hold the corpus's text.
OWN_SLOTS = frozenset({"label", "number", "speaker", "asker", "replier"})

_SLOT = re.compile(r"\{([a-z_]+)\}")
_DOUBLED = re.compile(f"[{re.escape(''.join(sorted(STOPS)))}]{{2}}")
_CLOSING_QUOTES = "\"'”’»」』\n\t "
CLOSING_BRACKETS = "）】」》"
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff]")

_Part = tuple[str, str, str, str]  # literal, stop before the slot, slot, stop behind it


def ends_in_stop(text: str) -> bool:
    """Whether the text ends in punctuation, closing quotes aside."""
    last = text[-1:]
    if last.isalnum():
        return False
    return last in _ENDS or text.rstrip(_CLOSING_QUOTES)[-1:] in _ENDS


def lead_in(prefix: str, value: str) -> str:
    """``prefix`` and ``value``; a full-width stop between them gives way to punctuation that begins the value."""
    return (prefix[:-1] if value[:1] in STOPS and prefix[-1:] in WIDE_STOPS else prefix) + value


class Template:
    """A template with its id. ``fill`` is the only thing that is done with it.

    Args:
        name: id, used in messages and recorded with every text.
        source: the template as written.
        required: slots that must occur, each exactly once.
        optional: slots that may occur, any number of times.

    Raises:
        ConfigError: a slot is missing, repeated or unknown; a brace is left over; the corpus's text would touch a
            character of the template that is neither white space nor a stop nor of a script without spaces;
            punctuation is doubled.
    """

    __slots__ = ("_format", "_parts", "_stops", "_tail", "_values", "id")

    def __init__(self, name: str, source: str, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        self.id = name
        required, optional = tuple(required), tuple(optional)
        pieces = _SLOT.split(source)  # literal, slot, literal, slot, ..., literal
        slots = pieces[1::2]
        for slot in required:
            if (times := slots.count(slot)) != 1:
                raise ConfigError(f"{name}: {{{slot}}} must occur exactly once, not {times} times: {source!r}.")
        for slot in slots:
            if slot not in required and slot not in optional:
                allowed = ", ".join(f"{{{entry}}}" for entry in (*required, *optional)) or "none"
                raise ConfigError(f"{name}: {{{slot}}} is no slot of this template; allowed: {allowed}: {source!r}.")
        check_literal(name, "\0".join(pieces[0::2]))
        parts: list[_Part] = []
        literal = pieces[0]
        for place, (slot, following) in enumerate(zip(slots, pieces[2::2], strict=True), 1):
            before = stop = ""
            if slot not in OWN_SLOTS:
                if literal[-1:] in WIDE_STOPS:
                    before, literal = literal[-1], literal[:-1]
                if following[:1] in STOPS:
                    stop, following = following[0], following[1:]
                open_before = bool(before) or _open_before(literal) or (not literal and place == 1)
                open_behind = _open_behind(following) or (not following and place == len(slots))
                if not (open_before and open_behind):
                    raise ConfigError(
                        f"{name}: a space, the edge, a full-width mark or an ideograph must stand before {{{slot}}}, "
                        f"and a space, the edge, one mark or an ideograph behind it: {source!r}."
                    )
            parts.append((literal, before, slot, stop))
            literal = following
        self._compile(parts, literal)

    def _compile(self, parts: list[_Part], tail: str) -> None:
        self._parts = tuple(parts)
        self._tail = tail
        literals = [literal.replace("%", "%%") for literal in [*[part[0] for part in parts], tail]]
        self._format = "%s".join(literals)
        # Most templates have no stop at a slot, and one formatting operation fills them.
        self._stops = [(i, before, stop) for i, (_, before, _, stop) in enumerate(parts) if before or stop]
        self._values: Any = itemgetter(*[part[2] for part in parts]) if parts else lambda values: ()

    def repeated(self, rows: Iterable[Mapping[str, str]], joint: str) -> "Template":
        """The template once for each of ``rows``, with ``joint`` between, as one template: a row fills own slots for
        good, the slots that are left are filled in order."""
        made = object.__new__(Template)
        made.id = self.id
        parts: list[_Part] = []
        literal = ""
        for row in rows:
            for text, before, slot, stop in self._parts:
                literal += text
                if slot in row:
                    literal += row[slot]
                else:
                    parts.append((literal, before, slot, stop))
                    literal = ""
            literal += self._tail + joint
        made._compile(parts, literal.removesuffix(joint))
        return made

    def fill(self, values: Mapping[str, str]) -> str:
        """The template with ``values`` in its slots; values without a slot are ignored."""
        if not self._stops:
            filled: str = self._format % self._values(values)
            return filled
        return self.fill_in_order([values[slot] for _, _, slot, _ in self._parts])

    def fill_in_order(self, values: Sequence[str]) -> str:
        """The template with one of ``values`` in each of its slots."""
        if self._stops:
            values = list(values)
            for i, before, stop in self._stops:
                value = values[i]
                if stop and not ends_in_stop(value):
                    values[i] = value + stop
                if before and value[:1] not in STOPS:
                    values[i] = before + values[i]
        return self._format % tuple(values)


def check_literal(name: str, text: str) -> str:
    """``text``, if it can stand in a template as it is.

    Raises:
        ConfigError: it has a brace or doubled punctuation.
    """
    if "{" in text or "}" in text:
        raise ConfigError(f"{name}: a brace that is not part of a slot: {text!r}. A slot is {{name}} in lower case.")
    if _DOUBLED.search(text):
        raise ConfigError(f"{name}: doubled punctuation: {text!r}.")
    return text


def _open_before(literal: str) -> bool:
    last = literal[-1:]
    return last.isspace() or (last != "" and last in CLOSING_BRACKETS) or bool(_IDEOGRAPH.fullmatch(last))


def _open_behind(literal: str) -> bool:
    return literal[:1].isspace() or bool(_IDEOGRAPH.match(literal))
