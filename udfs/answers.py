"""Comparison of short answers: the usual normalisation of open question answering."""

import re
import string
import unicodedata

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """``text`` in lower case without punctuation, articles and surplus spaces (SQuAD's rule, after Unicode NFKC).

    Where nothing else is in it (group A, the sign +) they stay: no answer is right because nothing was said.
    """
    lower = unicodedata.normalize("NFKC", text).lower()
    plain = lower.translate(_PUNCTUATION)
    return " ".join((_ARTICLES.sub(" ", plain).strip() or plain.strip() or lower).split())
