"""Words of a text, for comparing texts by them."""

import re
import unicodedata

# Scripts written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han. Each character counts as a word.
_UNSPACED = "฀-໿က-႟ក-៿぀-ヿ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Words of ``text`` in order, after NFKC and case folding, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
