"""Digests: equal values have equal bytes, and so the same name.

>>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
True
"""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> bytes:
    """`value` as JSON with sorted keys and no spaces: the same value is always the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: object, *, length: int = 16) -> str:
    """Hex SHA-256 over the canonical JSON of `value`, cut to `length` characters (64 bits by default)."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:length]
