"""Stable hashes: the only source of ids and of randomness.

Every draw is made from a hash of what it is about (a document id, a seed, a purpose), never from a position or
from a generator that is carried along, so that order, partitioning and repetition cannot change a result.
"""

import hashlib
from typing import Any

_SEPARATOR = b"\x1f"


def digest(*parts: Any) -> bytes:
    """BLAKE2b-128 of the parts. ``("ab", "c")`` and ``("a", "bc")`` differ; 16 bytes."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(str(len(raw)).encode() + _SEPARATOR + raw)
    return state.digest()


def identifier(*parts: Any) -> str:
    """32 hexadecimal digits that name the parts."""
    return digest(*parts).hex()


def unit(*parts: Any) -> float:
    """A number in [0, 1), uniform over different parts and always the same for equal parts."""
    return int.from_bytes(digest(*parts)[:7], "big") / (1 << 56)


def seed(*parts: Any) -> int:
    """A 63-bit seed for a local ``random.Random``; draws for different purposes take different parts."""
    return int.from_bytes(digest(*parts)[:8], "big") >> 1
