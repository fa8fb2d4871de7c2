"""Encoding word by word, for tokenizers in which no token crosses a space or a line break.

In the vocabularies of Llama 1/2, Mistral 7B and other sentencepiece models the mark ``▁``, which stands for a space,
is found only at the beginning of a token, and a line break only alone. No merge can therefore reach over the start of
a word or over a line break, and the ids of a text are those of its words, one after another. ``WordEncoder`` looks up
the words it has met before, which is several times as fast as encoding the text, and gives the same ids.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

MARK = "▁"
# Words of this many characters are kept at most, and this many of them: about 60 MB.
_KEPT_CHARACTERS = 32
_KEPT_WORDS = 1 << 18
# Characters that are taken apart at a time, so that memory stays flat however long a text is.
WINDOW = 1 << 20
# A part without a place to cut ends here all the same: merging takes 140 bytes of memory a character.
LONGEST = 4 * WINDOW

_WORD = re.compile(r"\n| *[^ \n]+| +")
_CUT = re.compile(r"(?<=\S) |\n")
_SPACES_INSIDE = re.compile(rf"[^{MARK}]{MARK}|.\n|\n.", re.DOTALL)


class WordEncoder:
    """Ids of texts, word by word. Make it with ``of``, which tells whether a tokenizer allows it.

    Args:
        backend: a ``tokenizers.Tokenizer`` without the normalizer that puts a mark before a text.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._known: dict[str, bytes] = {}

    @classmethod
    def of(cls, definition: str) -> "WordEncoder | None":
        """An encoder for the tokenizer of that definition (its JSON); None where words cannot be encoded alone."""
        from tokenizers import Tokenizer as Backend

        tree = json.loads(definition)
        normalizers = (tree["normalizer"] or {}).get("normalizers")
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
        if tree["pre_tokenizer"] is not None or normalizers != [{"type": "Prepend", "prepend": MARK}, replace]:
            return None
        if any(_SPACES_INSIDE.search(piece) for piece in tree["model"]["vocab"]):
            return None
        if any(not token["special"] for token in tree["added_tokens"]):
            return None  # such a token may have a space inside, or take those around it
        backend = Backend.from_str(json.dumps({**tree, "normalizer": replace}))
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        return cls(backend)

    def encode(self, text: str) -> np.ndarray:
        """[tokens] uint32 ids of ``text``, without BOS and EOS."""
        # The mark before the text, and what the tokenizer takes for a space.
        marked = f" {text}".replace(MARK, " ") if text else ""
        found = b"".join(self._of_words(_WORD.findall(part)) for part in windows(marked, WINDOW))
        return np.frombuffer(found, np.uint32)

    def _of_words(self, words: list[str]) -> bytes:
        known = self._known
        try:
            return b"".join([known[word] for word in words])
        except KeyError:
            new = list(set(words) - known.keys())
            encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
            found = {
                word: np.array(encoding.ids, np.uint32).tobytes() for word, encoding in zip(new, encodings, strict=True)
            }
        kept = {word: ids for word, ids in found.items() if len(word) <= _KEPT_CHARACTERS}
        self._known = kept if len(known) + len(kept) > _KEPT_WORDS else known | kept
        return b"".join([found[word] if word in found else known[word] for word in words])


def windows(text: str, size: int) -> Iterator[str]:
    """``text`` in parts of at most ``size`` characters; where there is no place to cut, of at most ``LONGEST``.

    A cut is before a space that begins a word, else before a line break: at the first, tokenizers like those of Llama,
    Mistral and GPT give the parts the ids of the whole, sentencepiece models and our own at both. After ``LONGEST``
    characters it is anywhere, and the ids around it can differ.
    """
    start = 0
    while len(text) - start > size:
        cut = text.rfind(" ", start + 1, start + size)
        while cut > start and text[cut - 1].isspace():
            cut = text.rfind(" ", start + 1, cut)
        if cut <= start:
            cut = text.rfind("\n", start + 1, start + size)
        if cut <= start:
            last = min(start + max(LONGEST, size), len(text))
            following = _CUT.search(text, start + size, last)
            cut = following.start() if following else last
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]
