"""Draws about one text: each purpose has a hash of its own, so no draw says anything about another."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from udfs.hashing import digest, digests, fraction


class Named(Protocol):
    """Anything of the bank that has an id."""

    @property
    def id(self) -> str: ...


NamedT = TypeVar("NamedT", bound=Named)


class Draws:
    """Draws about what ``about`` names, with a record of the templates drawn (``used``, in order, each once)."""

    __slots__ = ("_digest", "used")

    def __init__(self, *about: Any) -> None:
        self._digest = digests(digest(*about))
        self.used: list[str] = []

    def unit(self, *purpose: str) -> float:
        """A number in [0, 1)."""
        return fraction(self._digest(*purpose))

    def pick(self, purpose: str, entries: Sequence[NamedT]) -> NamedT:
        """One of ``entries``, all equally likely; its id is recorded."""
        entry = entries[int(self.unit(purpose) * len(entries))]
        if entry.id not in self.used:
            self.used.append(entry.id)
        return entry

    def permutation(self, n: int, *purpose: str) -> list[int]:
        """The numbers 0 to n - 1 in an order drawn uniformly (Fisher-Yates on the bits of a hash)."""
        order = list(range(n))
        bits = 0
        for last in range(n - 1, 0, -1):
            if bits < 1 << 64:  # enough left that the remainder is uniform to within 2**-50
                bits = int.from_bytes(self._digest(last, *purpose), "big")
            bits, other = divmod(bits, last + 1)
            order[last], order[other] = order[other], order[last]
        return order
