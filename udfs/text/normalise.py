"""Normal form of a text: Unicode NFC, one kind of line end, no control characters, regular white space."""

import re
import unicodedata

# Line separator, next line, vertical tab and form feed end a line as well (UAX 14); a paragraph separator ends two.
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028]")
_PARAGRAPH_END = re.compile("\u2029")
# Control characters but tab and line feed; characters without width that only steer line breaks (soft hyphen, zero
# width space, word joiner, byte order mark); noncharacters. Joiners that shape letters and emoji (200C, 200D) stay.
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\ufffe\uffff]")
# Every space Unicode has (category Zs), and the tab.
_SPACES = re.compile("[ \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_SPACE_AT_LINE = re.compile(" ?\n ?")
_BLANK_LINES = re.compile("\n{3,}")
# Unicode's Stream-Safe Text Process (UAX 15, section 13): more combining marks in a row than any script writes are
# parted by a joiner that is not seen, since putting n of them in order takes n * n steps: a text of a megabyte, hours.
_MARKS_IN_A_ROW = 30
_JOINER = "\u034f"
_MAY_BE_MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{_MARKS_IN_A_ROW + 1},}}")


def normalise(text: str) -> str:
    """The normal form of ``text``; normalising twice changes nothing more.

    A run of spaces becomes one, spaces at line ends and at line beginnings go, and at most one blank line separates
    paragraphs. The result has no white space around it and is empty where nothing else was there.
    """
    text = _PARAGRAPH_END.sub("\n\n", _LINE_END.sub("\n", text))
    text = _MAY_BE_MARKS.sub(_parted, _UNPRINTABLE.sub("", text))
    text = unicodedata.normalize("NFC", text)
    text = _SPACE_AT_LINE.sub("\n", _SPACES.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", text).strip(" \n")


def _parted(run: re.Match[str]) -> str:
    """The characters of a run, with a joiner wherever another mark would be one too many."""
    found, marks = [], 0
    for character in run[0]:
        # Some marks stand for two, and some are taken apart into marks though they are none.
        parts = unicodedata.normalize("NFD", character)
        own = len(parts) if unicodedata.combining(parts[0]) else 0
        marks = marks + own if own else len(parts) - 1
        if marks > _MARKS_IN_A_ROW:
            found.append(_JOINER)
            marks = own
        found.append(character)
    return "".join(found)
