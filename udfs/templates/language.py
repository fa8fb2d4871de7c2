"""Which template bank suits a text.

No table tells the language of a document, so its script decides: a pure function of the text, with no model behind it.
Text that is mostly ideographs, and not Japanese, takes the Chinese bank. Every other text takes the fallback, also
where its script would tell more: there is no bank for it.
"""

import re
from collections.abc import Iterable

FALLBACK = "en"
CHINESE = "zh"
LANGUAGES = (FALLBACK, CHINESE)

# Of each text; the beginning shows the language, and long documents need not be read to the end.
_SAMPLE = 2_000
_IDEOGRAPHS = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3041-\u30ff]")


def bank_language(texts: Iterable[str]) -> str:
    """The language of the bank for ``texts``, which are rendered together.

    An ideograph says about as much as two letters, so they count twice; a tenth as many kana make a text Japanese.
    """
    sample = "".join(text[:_SAMPLE] for text in texts)
    if sample.isascii():
        return FALLBACK
    ideographs, kana = len(_IDEOGRAPHS.findall(sample)), len(_KANA.findall(sample))
    letters = sum(map(str.isalpha, sample)) - ideographs - kana
    return CHINESE if 2 * ideographs > letters and 10 * kana < ideographs else FALLBACK
