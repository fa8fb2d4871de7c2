"""Cutting a long context into passages without cutting through an answer."""

import re
from collections.abc import Iterator, Sequence

Span = tuple[int, int]

_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])")
_SPACE = re.compile(r"\s+")
_BOUNDARIES = (_PARAGRAPH, _SENTENCE, _SPACE)

# A character of a script written without spaces counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


def count_words(text: str) -> int:
    """Words separated by white space, and single characters of Chinese and Japanese."""
    return sum(1 for _ in _WORD.finditer(text))


def passages(text: str, kept: Sequence[Span], window: int) -> list[Span]:
    """Cover ``text`` with consecutive passages of at most ``window`` words.

    Passages end at paragraph boundaries; a paragraph longer than the window is cut between sentences, a sentence
    longer than the window between words. No passage ends inside one of the ``kept`` spans: only for their sake, or
    for a run without any boundary, is a passage longer than the window.

    Args:
        text: the text to cut.
        kept: [start, end) character spans that must stay whole.
        window: words per passage.

    Returns:
        [start, end) character spans, in order, from 0 to ``len(text)``.
    """
    return list(_cut(text, (0, len(text)), kept, window, _BOUNDARIES))


def _cut(
    text: str, span: Span, kept: Sequence[Span], window: int, boundaries: Sequence[re.Pattern[str]]
) -> Iterator[Span]:
    if not boundaries or count_words(text[span[0] : span[1]]) <= window:
        yield span
        return
    opened, words = span[0], 0  # the passage that is being filled
    for start, end in _split(text, span, kept, boundaries[0]):
        size = count_words(text[start:end])
        if words + size > window and start > opened:
            yield opened, start
            opened, words = start, 0
        if size > window:
            yield from _cut(text, (start, end), kept, window, boundaries[1:])
            opened = end
        else:
            words += size
    if opened < span[1]:
        yield opened, span[1]


def _split(text: str, span: Span, kept: Sequence[Span], boundary: re.Pattern[str]) -> Iterator[Span]:
    """``span`` at every boundary that lies in no kept span; what a boundary matches stays with what is before it."""
    position = span[0]
    for match in boundary.finditer(text, *span):
        end = match.end()
        if position < end < span[1] and not any(first < end < last for first, last in kept):
            yield position, end
            position = end
    yield position, span[1]
