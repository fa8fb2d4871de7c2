"""Overlap of pairs with evaluation sets, by n-grams of words.

A pair is contaminated if it shares ``n`` words in a row with an item (Brown et al., 2020, with n = 13). An item with
fewer words is looked for as a whole, unless it is so short that it says nothing of its own.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from udfs.errors import DataError
from udfs.hashing import digest
from udfs.text.words import words

# Questions of fewer words ("Who was born first?") are asked about anything.
FEWEST_WORDS = 6


@dataclass(frozen=True)
class Hit:
    """What a pair shares with an evaluation set: the words, and the file and line of the item."""

    words: str
    item: str


class EvaluationSets:
    """The n-grams of evaluation items.

    Args:
        items: texts with what names each.
        n: words of an n-gram.
    """

    def __init__(self, items: Iterable[tuple[str, str]], n: int) -> None:
        # Length of the n-gram -> its hash -> the item it is of.
        self._grams: dict[int, dict[bytes, str]] = {}
        for name, text in items:
            said = words(text)
            length = min(n, len(said))
            if length >= FEWEST_WORDS:
                known = self._grams.setdefault(length, {})
                for gram in _grams(said, length):
                    known.setdefault(_hash(gram), name)

    def hit(self, pair: Mapping[str, Any]) -> Hit | None:
        """The first words that ``pair`` (``instruction`` and ``response``) shares with an item; None for none."""
        said = words(f"{pair['instruction']}\n{pair['response']}")
        for length, known in sorted(self._grams.items(), reverse=True):
            for gram in _grams(said, length):
                if (name := known.get(_hash(gram))) is not None:
                    return Hit(" ".join(gram), name)
        return None


def load_evaluation_sets(paths: tuple[str, ...], n: int) -> EvaluationSets:
    """The n-grams of all texts inside files of JSON lines; kept by the process until a file changes.

    Raises:
        DataError: a file cannot be read, or a line is not JSON.
    """
    return _loaded(paths, n, tuple(map(_state, paths)))


@lru_cache(maxsize=2)
def _loaded(paths: tuple[str, ...], n: int, states: tuple[tuple[int, int] | None, ...]) -> EvaluationSets:
    return EvaluationSets((item for path in paths for item in _items(Path(path))), n)


def _state(path: str) -> tuple[int, int] | None:
    """What changes with a file; None where it cannot be told, as reading it will tell."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _items(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                for text in _texts(json.loads(line)) if line.strip() else ():
                    yield f"{path.name}:{number}", text
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable file of JSON lines ({error}). Give evaluation sets as such."
        ) from error


def _texts(value: Any) -> Iterator[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)


def _grams(said: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    return (said[start : start + length] for start in range(len(said) - length + 1))


def _hash(gram: Sequence[str]) -> bytes:
    return digest(*gram)[:8]
