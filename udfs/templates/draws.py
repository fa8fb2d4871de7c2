"""Draws about one text: each purpose has a hash of its own, so no draw says anything about another."""

from collections.abc import Sequence
from math import factorial
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from udfs.hashing import begun, fraction, framed, framed_before


class Named(Protocol):
    """Anything of the bank that has an id."""

    @property
    def id(self) -> str: ...


NamedT = TypeVar("NamedT", bound=Named)
ValueT = TypeVar("ValueT")


class Draws:
    """Draws about what is named, with a record of the templates drawn (``used``, in order, each once).

    Args:
        name: what the draws are about.
        circumstances: what they depend on besides, shared with draws about others.
    """

    __slots__ = ("_begun", "used")

    def __init__(self, name: Any, *circumstances: Any) -> None:
        self._begun = begun(framed(begun(framed(name) + framed_before(*circumstances)).digest()))
        self.used: dict[str, None] = {}

    def unit(self, purpose: str) -> float:
        """A number in [0, 1)."""
        return fraction(self._digest(framed_before(purpose)))

    def pick(self, purpose: str, entries: Sequence[NamedT]) -> NamedT:
        """One of ``entries``, all equally likely; its id is recorded."""
        entry = entries[int(self.unit(purpose) * len(entries))]
        self.used[entry.id] = None
        return entry

    def shuffled(self, values: Sequence[ValueT], purpose: str, *about: str) -> Sequence[ValueT]:
        """The values in an order drawn uniformly (Fisher-Yates on the bits of a hash)."""
        highest, more = len(values) - 1, framed(*about)
        bits = int.from_bytes(self._digest(framed_before(highest, purpose) + more))
        if orders := _ORDERS.get(len(values)):
            return orders[bits % len(orders)](values)
        order = list(values)
        for last in range(highest, 0, -1):
            if bits < 1 << 64:  # enough left that the remainder is uniform to within 2**-50
                bits = int.from_bytes(self._digest(framed_before(last, purpose) + more))
            bits = _swap(order, last, bits)
        return order

    def _digest(self, parts: bytes) -> bytes:
        state = self._begun.copy()
        state.update(parts)
        return state.digest()


def _swap(order: list[Any], last: int, bits: int) -> int:
    """Puts one of the values up to ``last`` there; gives the bits that are left."""
    bits, other = divmod(bits, last + 1)
    order[last], order[other] = order[other], order[last]
    return bits


def _order(n: int, bits: int) -> "itemgetter[Any]":
    order = list(range(n))
    for last in range(n - 1, 0, -1):
        bits = _swap(order, last, bits)
    return itemgetter(*order)


# All orders of few values: the remainder of the bits decides alone.
_ORDERS = {n: [_order(n, bits) for bits in range(factorial(n))] for n in range(2, 6)}
