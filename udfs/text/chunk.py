"""Cutting a text into chunks of a token budget, at paragraphs, else sentences, else words.

A chunk ends at the last paragraph end in the second half of its budget, so that chunks are about half full at least;
where there is none, at the last sentence end there, then at the last word end, and inside a word (a text without
spaces) at any character. Only the white space at a cut is lost.
"""

import re
from collections.abc import Callable, Iterator

Count = Callable[[str], int]

# From here on a chunk counts as full: searching on for the last few tokens would only cost encodings.
_FULL = 0.9
# No chunk needs fewer tokens than its shortest piece, one character: four bytes and the mark some tokenizers put first.
MIN_TOKENS = 16

# Each matches up to the end of what comes before a cut; the white space after it is not part of the match.
_PARAGRAPH = re.compile(r"(?=\n\n)")
_SENTENCE = re.compile(
    r"(?=\n)"  # a line of a list, a table or a poem
    r"|[.!?…][\"'”’»)\]]*(?=\s)(?!\s+[a-z])"  # not before a small letter: abbreviations inside a sentence
    r"|[。！？｡][”’」』）]*"  # scripts that put no space after a sentence
)
_WORD = re.compile(r"(?=\s)")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|vs|etc|al|e\.g|i\.e|cf|ca|approx)\.$")


def chunk(text: str, limit: int, count: Count) -> Iterator[tuple[str, int]]:
    """The chunks of ``text`` in order, each with its number of tokens.

    Args:
        text: a normalised text.
        limit: tokens a chunk may have, at least ``MIN_TOKENS``.
        count: tokens of a string in the tokenizer in question.

    Yields:
        ``(chunk, tokens)``: chunks are not empty, have no white space around them and at most ``limit`` tokens.
    """
    assert limit >= MIN_TOKENS, f"limit {limit} is below {MIN_TOKENS}"
    start, end = 0, len(text.rstrip())
    rate = 4.0  # characters per token: a guess at first, then what the last chunk had
    while True:
        while start < end and text[start].isspace():
            start += 1
        if start >= end:
            return
        fits = _longest(text, start, end, limit, rate, count)
        if 0 < end - fits < (fits - start) // 2:
            # Little is left behind this chunk: cut earlier, so that the last one is no mere scrap of text.
            fits = start + (end - start) * 2 // 3
        while True:
            cut = end if fits == end else _boundary(text, start, fits)
            piece = text[start:cut].rstrip()
            tokens = count(piece)
            if tokens <= limit or len(piece) == 1:
                break
            # A cut can take tokens apart and so need more of them than the longer text did.
            fits = start + max(1, len(piece) - 1)
        yield piece, tokens
        rate = max(1.0, len(piece) / max(tokens, 1))
        start = cut


def _longest(text: str, start: int, end: int, limit: int, rate: float, count: Count) -> int:
    """A position up to which the text fits: ``end``, or one that leaves little of the budget (``_FULL``) unused."""
    low, used = start, 0  # fits
    high = end + 1  # does not fit, or lies beyond the text
    position = min(end, start + int(limit * rate))
    while True:
        position = max(low + 1, min(position, high - 1, end))
        tokens = count(text[start:position].rstrip())
        if tokens <= limit:
            low, used = position, tokens
            if low == end:
                return low
        else:
            high = position
        if high - low <= 1 or (used >= _FULL * limit and high <= end):
            return max(low, start + 1)
        density = tokens / (position - start)
        # Aim a little below the limit from above and a little beyond it from below, and never less than halve the rest.
        aim = start + int(limit * (0.97 if tokens > limit else 1.03) / max(density, 1e-9))
        middle = (low + high) // 2
        position = aim if low < aim < high and (tokens > limit or aim > low) else middle


def _boundary(text: str, start: int, fits: int) -> int:
    """The last paragraph or sentence end in the second half of ``text[start:fits]``, else the last word end in all of
    it, else ``fits``."""
    half = start + (fits - start + 1) // 2
    for pattern, earliest in ((_PARAGRAPH, half), (_SENTENCE, half), (_WORD, start + 1)):
        # A little beyond `fits`, because the patterns look at what follows a boundary.
        ends = [match.end() for match in pattern.finditer(text, earliest, fits + 3)]
        found = [end for end in ends if end <= fits and not _ABBREVIATION.search(text, max(start, end - 12), end)]
        if found:
            return found[-1]
    return fits


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the sentences and lines of ``text``, white space around them left out, in order."""
    start = 0
    for end in (*(match.end() for match in _SENTENCE.finditer(text)), len(text)):
        if end < len(text) and _ABBREVIATION.search(text, max(start, end - 12), end):
            continue
        piece = text[start:end]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        start = end
