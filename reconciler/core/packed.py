"""Values that are kept and seldom looked at, as a fifth of the bytes that they take otherwise.

A parsed document of 5 KB is some 300 Python objects in 20 KB, and most of a fleet's are not touched by the next commit,
nor by the one after it. Values of one *sort* are much alike (all Services have the same fields), so each is compressed
against the first of its sort: that leaves a third of what compressing it alone would. Packing and unpacking cost some
30 microseconds each; those unpacked last are remembered.

    data = pack({"kind": "Service"}, "service")
    unpack(data, "service")["kind"]

All this never leaves its process.
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
#: What compression looks back at.
_FIRST_MAX_BYTES = 1 << 15
#: Sorts come from what is declared, and may be any number: those beyond are compressed alone.
SORTS_MAX = 256
#: The first of each sort. It stays for good: what was compressed against it needs it.
_FIRST: dict[str, bytes] = {}


def compress(data: bytes, sort: str) -> bytes:
    """`data`, for `decompress` with the same `sort`."""
    if len(_FIRST) < SORTS_MAX:
        _FIRST.setdefault(sort, data[:_FIRST_MAX_BYTES])
    first = _FIRST.get(sort)
    if first is None:
        return zlib.compress(data, _LEVEL)
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, first)
    return stream.compress(data) + stream.flush()


def decompress(data: bytes, sort: str) -> bytes:
    """What `compress` was given with `sort`. The data itself says whether it was compressed against anything."""
    return zlib.decompressobj(zlib.MAX_WBITS, _FIRST.get(sort, b"")).decompress(data)


def pack(value: Any, sort: str) -> bytes:
    """Plain JSON values, tuples and bytes, as bytes."""
    return compress(marshal.dumps(value), sort)


@functools.lru_cache(maxsize=4096)
def common(text: str) -> str:
    """`text`, as one string for all that have the same: kinds, namespaces and labels are few."""
    return text


@functools.lru_cache(maxsize=UNPACKED_MAX)
def unpack(data: bytes, sort: str) -> Any:
    """What `pack` was given, with maps in the same order; never to be changed, for others may be given the same."""
    return marshal.loads(decompress(data, sort))  # noqa: S302  # made by `pack`, in this process


class PackedMap(Mapping[K, V]):
    """Values by key, packed each by itself, and unpacked when they are asked for."""

    __slots__ = ("_packed",)

    def __init__(self, values: Mapping[K, Any]) -> None:
        self._packed = {key: pack(value, self._sort(key)) for key, value in values.items()}

    def _sort(self, key: K) -> str:
        """The sort of the value of `key`."""
        del key
        return type(self).__name__

    def _made(self, key: K, value: Any) -> V:
        """What is given for `key`, where that is more than the value that was packed."""
        del key
        made: V = value
        return made

    def __getitem__(self, key: K) -> V:
        return self._made(key, unpack(self._packed[key], self._sort(key)))

    def __iter__(self) -> Iterator[K]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: object) -> bool:
        return key in self._packed
