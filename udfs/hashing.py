"""Stable hashes: the only source of ids and of randomness.

Every draw is made from a hash of what it is about (a document id, a seed, a purpose), never from a position or
from a generator that is carried along, so that order, partitioning and repetition cannot change a result.
"""

import hashlib
from functools import lru_cache
from typing import Any

_NOTHING = hashlib.blake2b(digest_size=16)


def digest(*parts: Any) -> bytes:
    """BLAKE2b-128 of the parts. ``("ab", "c")`` and ``("a", "bc")`` differ; 16 bytes."""
    return begun(framed(*parts)).digest()


def begun(parts: bytes) -> "hashlib.blake2b":
    """The state of ``digest`` after ``framed`` parts: a copy of it that others are added to gives the digest of all."""
    state = _NOTHING.copy()  # quicker than a new one
    state.update(parts)
    return state


def framed(*parts: Any) -> bytes:
    """What parts add to a digest. The length of each comes first, so no two lists of parts have the same bytes."""
    found = b""
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        found += b"%d\x1f%b" % (len(raw), raw)
    return found


# For parts that come again and again, like the purpose of a draw. Equal numbers of different types are different parts.
framed_before = lru_cache(maxsize=1024, typed=True)(framed)


def identifier(*parts: Any) -> str:
    """32 hexadecimal digits that name the parts."""
    return digest(*parts).hex()


def unit(*parts: Any) -> float:
    """A number in [0, 1), uniform over different parts and always the same for equal parts."""
    return fraction(digest(*parts))


def fraction(digested: bytes) -> float:
    """A digest as a number in [0, 1)."""
    return int.from_bytes(digested[:7]) * 2.0**-56


def seed(*parts: Any) -> int:
    """A 63-bit seed for a local ``random.Random``; draws for different purposes take different parts."""
    return int.from_bytes(digest(*parts)[:8], "big") >> 1
