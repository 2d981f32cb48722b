"""Chance that repeats itself: numbers drawn by hashing a seed with the name of what is decided.

A stream of random numbers depends on who asked before; a hash of (seed, point, count) does not. So one more call at one
place changes nothing anywhere else, and a run can be resumed from a copy without carrying a generator's state along.

    >>> fraction(7, "latency", 0) == fraction(7, "latency", 0)
    True
"""

from __future__ import annotations

import hashlib

_RANGE = float(2**53)


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on the text of `parts` alone (never on Python's hash seed)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / _RANGE


def between(low: float, high: float, *parts: object) -> float:
    """A number in [low, high)."""
    return low + (high - low) * fraction(*parts)


def jitter(value_s: float, share: float, *parts: object) -> float:
    """`value_s` moved by at most `share` of itself either way."""
    return value_s * (1.0 + share * (2.0 * fraction(*parts) - 1.0))
