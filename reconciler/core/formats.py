"""The small languages inside values: durations, shares, names, label values.

A number that can be read in two ways is refused, never guessed: `bake: 30` may be seconds or minutes, `size: 25` may be
targets or percent.

    >>> duration_s("1h30m"), parse_amount("25%").of(7), parse_amount(2).of(7)
    (5400.0, 1, 2)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconciler.core.field_paths import field_path_problem

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?(?:(\d{1,9})ms)?")
_PERCENT = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?%")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_MEMORY = re.compile(r"\d{1,12}(\.\d{1,3})? ?(b|k|kb|m|mb|g|gb|t|tb|Ki|Mi|Gi|Ti)?")
_WILDCARD = re.compile(r"\*+|\?")
#: More of them take polynomial time to match.
_WILDCARDS_MAX = 3
_FLINK_VERSION = re.compile(r"v\d{1,2}_\d{1,3}")


@dataclass(frozen=True, slots=True)
class Amount:
    """A count, or a share of one in hundredths of a percent."""

    number: int | None = None
    basis_points: int | None = None

    def of(self, total: int) -> int:
        """The amount in a whole of `total`; a share is rounded down."""
        if self.basis_points is not None:
            return total * self.basis_points // 10_000
        return self.number or 0

    def __str__(self) -> str:
        if self.basis_points is not None:
            return f"{self.basis_points / 100:g}%"
        return str(self.number)


def duration_s(text: Any) -> float | None:
    """Seconds of a duration like 30m, 1h30m or 500ms; None if it is not one."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        return None
    days, hours, minutes, seconds, millis = (int(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3_600 + minutes * 60 + seconds + millis / 1000


def exact_duration(seconds: float) -> str:
    """A duration as a document would say it: 1h30m, 45s, 500ms; 0s for none."""
    millis = round(seconds * 1000)
    found = []
    for size, unit in ((3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")):
        number, millis = divmod(millis, size)
        if number:
            found.append(f"{number}{unit}")
    return "".join(found) or "0s"


def rough_duration(seconds: float) -> str:
    """How long something took or has lasted, for people: 12 s, 5 min, 1 h 30 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{minutes} min" if not hours else f"{hours} h {minutes} min" if minutes else f"{hours} h"


def parse_amount(value: Any) -> Amount | None:
    """A whole number (not a boolean) or a percentage from 0% to 100%; None if it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Amount(number=value) if value >= 0 else None
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    points = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    return Amount(basis_points=points) if points <= 10_000 else None


def _is_duration(value: Any) -> str:
    if duration_s(value) is not None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value} has no unit: write {value}s, {value}m or {value}h"
    return "not a duration like 30s, 15m or 1h30m"


def _is_amount(value: Any) -> str:
    return "" if parse_amount(value) else "neither a whole number nor a percentage from 0% to 100%"


def _is_positive_amount(value: Any) -> str:
    amount = parse_amount(value)
    if amount and (amount.number or amount.basis_points):
        return ""
    return "neither a whole number from 1 nor a percentage up to 100%"


def _is_share(value: Any) -> str:
    amount = parse_amount(value)
    if amount and amount.basis_points:
        return ""
    if amount and amount.number:
        return f"{value} may mean targets or percent: write {value}%"
    return "not a percentage above 0% and up to 100%"


def _matches(pattern: re.Pattern[str], limit: int, says: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        return "" if isinstance(value, str) and len(value) <= limit and pattern.fullmatch(value) else says

    return check


is_dns_label = _matches(_LABEL, 63, "not a name of lower-case letters, digits and '-', at most 63 long")
is_dns_subdomain = _matches(_SUBDOMAIN, 253, "not a name of lower-case letters, digits, '-' and '.'")
is_label_value = _matches(_LABEL_VALUE, 63, "not a label value: letters, digits, '-', '_' and '.', at most 63 long")


def _is_repository_path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        return "not a path"
    parts = value.rstrip("/").split("/")
    if value.startswith("/") or "\\" in value or any(part in ("", "..") for part in parts):
        return "not a path inside the repository: it is relative, with no '..' and no empty part"
    if len(value) > 256 or len(_WILDCARD.findall(value)) > _WILDCARDS_MAX:
        return f"a path of at most 256 characters and {_WILDCARDS_MAX} wildcards is allowed"
    return ""


#: Each says what is wrong with a value, or "" if nothing is.
FORMATS: dict[str, Callable[[Any], str]] = {
    "duration": _is_duration,
    "amount": _is_amount,
    "positive-amount": _is_positive_amount,
    "share": _is_share,
    "dns-label": is_dns_label,
    "dns-subdomain": is_dns_subdomain,
    "label-value": is_label_value,
    "memory": _matches(_MEMORY, 24, "not an amount of memory like 2048m, 2g or 2Gi"),
    "flink-version": _matches(_FLINK_VERSION, 8, "not a Flink version as the operator writes it, like v1_20"),
    "repository-path": _is_repository_path,
    "field-path": field_path_problem,
}
