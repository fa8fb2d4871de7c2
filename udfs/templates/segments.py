"""A template string, taken apart once and filled in a single pass.

A slot is ``{name}``. Filling puts each value in once and never looks at it again, so a literal ``{answer}`` inside a
question stays what it is. A punctuation mark that follows a slot is a *stop*: it is written only where the value does
not end in punctuation itself, so no seam has a doubled mark and no value is ever altered.
"""

import re
from collections.abc import Iterable, Mapping

from udfs.errors import ConfigError

STOPS = frozenset(".?!,;:…。？！，；：")
# Values of these slots are the bank's own and end in a letter, a digit or a bracket; all others hold the corpus's text.
OWN_SLOTS = frozenset({"label", "number", "speaker", "asker", "replier"})

_SLOT = re.compile(r"\{([a-z_]+)\}")
_DOUBLED = re.compile(r"[.?!,;:…。？！，；：]{2}")
_CLOSING_QUOTES = "\"'”’»\n\t "


def ends_in_stop(text: str) -> bool:
    """Whether the text ends in punctuation, closing quotes aside."""
    last = text[-1:]
    if last.isalnum():
        return False
    return last in STOPS or text.rstrip(_CLOSING_QUOTES)[-1:] in STOPS


class Template:
    """A template with its id. ``fill`` is the only thing that is done with it.

    Args:
        name: id, used in messages and recorded with every text.
        source: the template as written.
        required: slots that must occur, each exactly once.
        optional: slots that may occur, any number of times.

    Raises:
        ConfigError: a slot is missing, repeated or unknown; a brace is left over; the corpus's text would touch a
            character of the template that is neither white space nor a stop; punctuation is doubled.
    """

    __slots__ = ("_parts", "_tail", "id")

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
        parts: list[tuple[str, str, str]] = []
        literal = pieces[0]
        for place, (slot, following) in enumerate(zip(slots, pieces[2::2], strict=True), 1):
            stop = following[0] if following and following[0] in STOPS else ""
            following = following[len(stop) :]
            open_before = literal[-1:].isspace() or (not literal and place == 1)
            open_behind = following[:1].isspace() or (not following and place == len(slots))
            if slot not in OWN_SLOTS and not (open_before and open_behind):
                raise ConfigError(
                    f"{name}: white space or the edge must stand before {{{slot}}}, and white space, the edge or one "
                    f"punctuation mark behind it: {source!r}."
                )
            parts.append((literal, slot, stop))
            literal = following
        self._parts = tuple(parts)
        self._tail = literal

    def fill(self, values: Mapping[str, str]) -> str:
        """The template with ``values`` in its slots; values without a slot are ignored."""
        out = []
        for literal, slot, stop in self._parts:
            value = values[slot]
            out.append(literal)
            out.append(value)
            if stop and not ends_in_stop(value):
                out.append(stop)
        out.append(self._tail)
        return "".join(out)


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
