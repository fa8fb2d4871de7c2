"""Stable hashes: the only source of ids and of randomness.

Every draw is made from a hash of what it is about (a document id, a seed, a purpose), never from a position or
from a generator that is carried along, so that order, partitioning and repetition cannot change a result.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any


def digest(*parts: Any) -> bytes:
    """BLAKE2b-128 of the parts. ``("ab", "c")`` and ``("a", "bc")`` differ; 16 bytes."""
    return hashlib.blake2b(b"".join([_framed(part) for part in parts]), digest_size=16).digest()


def digests(*about: Any) -> Callable[..., bytes]:
    """A function of further parts: ``digests(a)(b, c)`` is ``digest(a, b, c)``, with the work on ``a`` done once, and
    that on ``b`` too where it comes again and again, as the purpose of a draw does."""
    state = hashlib.blake2b(b"".join([_framed(part) for part in about]), digest_size=16)

    def of(first: Any, *parts: Any) -> bytes:
        continued = state.copy()
        continued.update(_framed_before(first))
        for part in parts:
            continued.update(_framed(part))
        return continued.digest()

    return of


def _framed(part: Any) -> bytes:
    # The length comes first, so no two lists of parts have the same bytes.
    raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
    return b"%d\x1f%b" % (len(raw), raw)


# Equal numbers of different types are different parts.
_framed_before = lru_cache(maxsize=1024, typed=True)(_framed)


def identifier(*parts: Any) -> str:
    """32 hexadecimal digits that name the parts."""
    return digest(*parts).hex()


def unit(*parts: Any) -> float:
    """A number in [0, 1), uniform over different parts and always the same for equal parts."""
    return fraction(digest(*parts))


def fraction(digested: bytes) -> float:
    """A digest as a number in [0, 1)."""
    return int.from_bytes(digested[:7], "big") / (1 << 56)


def seed(*parts: Any) -> int:
    """A 63-bit seed for a local ``random.Random``; draws for different purposes take different parts."""
    return int.from_bytes(digest(*parts)[:8], "big") >> 1
