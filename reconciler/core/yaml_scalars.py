"""What a plain YAML scalar means to kubectl.

kubectl reads YAML with a Go library that follows neither YAML 1.1 nor 1.2 to the letter: `on` and `y` are booleans,
`017` and `0o17` are fifteen, `1e3` is a thousand, but `2026-12-20` and `12:30:45` are strings. A manifest must mean
here what it means there, so the rules below are that library's; `tests/golden/yaml/table.json`, written by it, is the
proof.

    >>> [resolve(text) for text in ("yes", "017", "1e3", "12:30", "")]
    [True, 15, 1000, '12:30', None]
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None


class ScalarError(ValueError):
    """A scalar that has no meaning in a manifest, for example infinity."""


_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_NOT_FINITE = {sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")} | {".nan", ".NaN", ".NAN"}
_NUMERIC_START = frozenset("+-.0123456789")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)|0[oO]?(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*))"
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INT64 = 2**63
_BASES = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}
#: Longer digits are no number anyone means, and turning them into one takes quadratic time.
_DIGITS_MAX = 400


def resolve(text: str) -> Scalar:
    """The value of the plain (unquoted, untagged) scalar `text`. Raises ScalarError for infinity, NaN and integers that
    do not fit 64 bits: JSON has none of them, or loses digits without a word."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    if text in _NOT_FINITE:
        raise ScalarError(f"{text} is not a number JSON can hold")
    return _number(text)


def _number(text: str) -> Scalar:
    # Underscores are digit separators, except in a scalar that starts with a dot.
    digits = text if text[0] == "." else text.replace("_", "")
    if len(digits) > _DIGITS_MAX:
        return text
    if match := _INTEGER.fullmatch(digits):
        base, found = next((base, match[name]) for name, base in _BASES.items() if match[name] is not None)
        value = int(found, base)
        value = -value if match["sign"] == "-" else value
        if not -_INT64 <= value < _INT64:
            raise ScalarError(f"the integer {text} does not fit 64 bits")
        return value
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        return text if math.isinf(number) else json_number(number)
    return text


def is_integer(text: str) -> bool:
    """True if the plain scalar `text` is written as an integer; `1.0` and `1e3` are not, though their value is one."""
    return _INTEGER.fullmatch(text.replace("_", "")) is not None


def json_number(number: float) -> int | float:
    """`number` as it comes back from JSON text: one without a fraction is an integer."""
    return int(number) if number.is_integer() and abs(number) < _INT64 else number
