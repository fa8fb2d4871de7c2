"""Language of a text, by the model that comes with ``py3langid`` (97 languages and more, nothing to download)."""

import unicodedata
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Written side by side; the last is the mark of a long vowel.
_KANA = {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}


def identify(text: str) -> tuple[str, float]:
    """ISO 639 code of the most likely language of ``text`` and its probability, in [0, 1]. Short texts are guesses."""
    code, probability = _identifier().classify(text)
    return str(code), float(probability)


def scripts(text: str) -> Counter[str]:
    """Letters of ``text`` in each script: ``LATIN``, ``CJK``, ``ARABIC``, ... as their names begin, whatever their
    width; ``KANA`` are those of Japanese."""
    found: Counter[str] = Counter()
    for character, count in Counter(unicodedata.normalize("NFKC", text)).items():
        if character.isalpha():
            script = unicodedata.name(character, "UNKNOWN").partition(" ")[0]
            found["KANA" if script in _KANA else script] += count
    return found


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
