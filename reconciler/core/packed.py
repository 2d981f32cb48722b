"""Values that are kept and seldom looked at, as a fifth of the bytes that they take otherwise.

A parsed document of 5 KB is some 300 Python objects in 20 KB, and most of a fleet's are not touched by the next commit,
nor by the one after it. Packing and unpacking cost some 30 microseconds each; those unpacked last are remembered.

    data = pack({"kind": "Service"})
    unpack(data)["kind"]
"""

from __future__ import annotations

import functools
import marshal
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: How many values are remembered unpacked: a commit that touches a few applications looks at each several times.
UNPACKED_MAX = 64
_LEVEL = 1  # the higher ones save a twentieth and cost twice the time


def pack(value: Any) -> bytes:
    """Plain JSON values, tuples and bytes, as bytes. They never leave this process."""
    return zlib.compress(marshal.dumps(value), _LEVEL)


@functools.lru_cache(maxsize=4096)
def common(text: str) -> str:
    """`text`, as one string for all that have the same: kinds, namespaces and labels are few."""
    return text


@functools.lru_cache(maxsize=UNPACKED_MAX)
def unpack(data: bytes) -> Any:
    """What `pack` was given, with maps in the same order; never to be changed, for others may be given the same."""
    return marshal.loads(zlib.decompress(data))  # noqa: S302  # made by `pack`, in this process


class PackedMap(Mapping[K, V]):
    """Values by key, packed each by itself, and unpacked when they are asked for."""

    __slots__ = ("_packed",)

    def __init__(self, values: Mapping[K, Any]) -> None:
        self._packed = {key: pack(value) for key, value in values.items()}

    def _made(self, key: K, value: Any) -> V:
        """What is given for `key`, where that is more than the value that was packed."""
        del key
        made: V = value
        return made

    def __getitem__(self, key: K) -> V:
        return self._made(key, unpack(self._packed[key]))

    def __iter__(self) -> Iterator[K]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: object) -> bool:
        return key in self._packed
