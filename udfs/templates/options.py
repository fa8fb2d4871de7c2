"""What is said about the options of a question: their labels, and options that speak of the list itself."""

import re
from collections.abc import Mapping
from functools import cache

from udfs.errors import ConfigError

_ROMAN = ((100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
_LETTERS = (
    r"^((both|either|neither|only|options?|answers?) ){0,2}\(?(?-i:[A-E])\)?((,? and|,? or| nor| &|,|、|和|与|及) ?\(?"
    r"(?-i:[A-E])\)?)+( only|( both| all)?( is| are)( both| all)? (correct|right|true)|[都均皆](对|是|正确))?\.?$"
)
_OF_LETTERS = re.compile(_LETTERS, re.IGNORECASE | re.MULTILINE)
_OF_PLACE = re.compile(
    r"\b(of|all|both) ([a-z]+ ){0,2}(above|below|preceding|following)\b|以上(?=[都皆均全各选两三四说])|上述|"
    + _LETTERS,
    re.IGNORECASE | re.MULTILINE,
)
# The first of two letters that stand for options.
_LETTER = re.compile(r"[A-E]\)?(?:,| [AONaon&])")


def speak_of_place(*options: str) -> bool:
    """Whether one of the options means others by their place or letter ("all of the above", "A and C"): such a list
    keeps its order, or the option would become untrue."""
    text = "\n".join(options)
    if text.isascii() and not _LETTER.search(text):  # the expression takes long, and nearly all lists end here
        small = text.lower()
        if not ("above" in small or "below" in small or "preceding" in small or "following" in small):
            return False
    return _OF_PLACE.search(text) is not None


def speak_of_letters(*options: str) -> bool:
    """Whether one of the options means others by their letter ("A and C"), which they must then have."""
    return _OF_LETTERS.search("\n".join(options)) is not None


def stock_phrases(sections: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What options may say that means no option holds.

    Args:
        sections: section -> id -> phrase.

    Returns:
        The section of each phrase (in small letters, with and without a full stop), and of each section the phrases
        that may be written: those that are true at any place of a list.

    Raises:
        ConfigError: a phrase stands in two sections, or a section has none that may be written.
    """
    stock: dict[str, str] = {}
    for section, phrases in sections.items():
        for key, text in phrases.items():
            for end in ("", ".", "。"):
                if (other := stock.setdefault(text.casefold() + end, section)) != section:
                    raise ConfigError(f"options/{section}/{key}: {text!r} stands in {other}, too. Remove one of them.")
    written = {
        section: {key: text for key, text in phrases.items() if not speak_of_place(text)}
        for section, phrases in sections.items()
    }
    for section, phrases in written.items():
        if not phrases:
            raise ConfigError(f"options/{section} needs a phrase that does not speak of what stands above it.")
    return stock, written


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
