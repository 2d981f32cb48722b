"""Selectors: which objects a list or a watch is about.

    parse_labels("app=orders,tier in (a, b),!legacy")({"app": "orders", "tier": "a"}) is True

Label selectors have the full syntax; of field selectors only metadata.name and metadata.namespace exist for every kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from reconciler.sim.problems import bad_request

Labels = Mapping[str, str]
Match = Callable[[Labels], bool]

_NAME = r"[A-Za-z0-9_./-]+"
_SET = re.compile(rf"\s*({_NAME})\s+(in|notin)\s+\(([^)]*)\)\s*$")
_EQUAL = re.compile(rf"\s*({_NAME})\s*(==|=|!=)\s*([A-Za-z0-9_.-]*)\s*$")
_EXISTS = re.compile(rf"\s*(!?)\s*({_NAME})\s*$")


def everything(labels: Labels) -> bool:  # noqa: ARG001 - a Match takes labels
    """The empty selector."""
    return True


def _split(text: str) -> list[str]:
    """The requirements: commas separate them, but not inside parentheses."""
    return re.split(r",(?![^(]*\))", text)


def _requirement(text: str) -> Match:
    if found := _SET.match(text):
        key, operator = found[1], found[2]
        values = frozenset(part.strip() for part in found[3].split(","))
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(text):
        key, operator, value = found[1], found[2], found[3]
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(text):
        absent, key = bool(found[1]), found[2]
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {text.strip()!r} is not a label selector")


@lru_cache(maxsize=1024)
def parse_labels(text: str) -> Match:
    """A predicate over labels. ApiError 400 when the selector is malformed."""
    if not text.strip():
        return everything
    requirements = [_requirement(part) for part in _split(text)]
    if len(requirements) == 1:
        return requirements[0]
    return lambda labels: all(one(labels) for one in requirements)


def parse_fields(text: str) -> Callable[[str, str], bool] | None:
    """A predicate over (namespace, name); None for the empty selector."""
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        found = re.match(r"([^=!]+?)\s*(==|=|!=)\s*(.*)$", part)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        if found[1] not in ("metadata.name", "metadata.namespace"):
            names = '"metadata.name", "metadata.namespace"'
            raise bad_request(f'"{found[1]}" is not a known field selector: only {names}')
        tests.append((found[1], found[2] != "!=", found[3]))
    if not tests:
        return None

    def match(namespace: str, name: str) -> bool:
        return all(
            ((name if field == "metadata.name" else namespace) == value) is wanted for field, wanted, value in tests
        )

    return match
