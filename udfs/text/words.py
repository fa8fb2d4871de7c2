"""Words of a text, for comparing texts by them."""

import re
import unicodedata

# Scripts written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han. Each character counts as a word.
_UNSPACED = "฀-໿က-႟ក-៿぀-ヿ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
# Vowel signs and the like, written onto the letter before them, which `\w` leaves out: half of a Hindi word. What
# chooses between two forms of a sign is none of them, and those beyond 0xFFFF would make every search slow.
_MARKS = "".join(
    mark
    for mark in map(chr, range(0x300, 0x10000))
    if unicodedata.category(mark) in ("Mn", "Mc") and not "\ufe00" <= mark <= "\ufe0f"
)
_LETTER = f"[^\\W_{_UNSPACED}]"
_WORD = re.compile(f"[{_UNSPACED}]|{_LETTER}+(?:[{_MARKS}]{_LETTER}*)*")


def words(text: str) -> list[str]:
    """Words of ``text`` in order, after NFKC and case folding, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
