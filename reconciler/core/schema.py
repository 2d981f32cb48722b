"""A small JSON Schema: one description per kind that validates, documents and completes.

Documents of the fleet, properties of components and properties of traits are all checked by `check`. It understands the
keywords below and nothing else, so a schema is data that cannot run away: `type properties required
additionalProperties items enum format pattern minimum maximum minItems maxLength default`, and three of our own:

- `x-not-enforced: sentence`  the field is part of the schema, but this version does not act on it: a warning.
  `x-enforced-values` lists the values that are acted upon all the same.
- `x-unsupported: sentence`   the field is known and refused.

    >>> [str(finding) for finding in check({"properties": {"image": {"type": "string"}}}, {"imgae": "x"})]
    ["/imgae: no field 'imgae' here (did you mean 'image'?)"]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core.formats import FORMATS
from reconciler.core.problems import Severity
from reconciler.core.yaml_kube import Path

Schema = Mapping[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
_ARTICLES = {"object": "a map", "array": "a list", "string": "a string", "integer": "a whole number"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong at one path of a value."""

    path: Path
    code: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return f"/{'/'.join(map(str, self.path))}: {self.message}" + (f" ({self.hint})" if self.hint else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of `known`, or lists a few of them; "" if there are none."""
    candidates = sorted(known)
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(candidates[:12])}" + (", ..." if len(candidates) > 12 else "") if candidates else ""


def check(schema: Schema, value: Any, path: Path = ()) -> list[Finding]:
    """Everything wrong with `value`, in the order it stands. A null member counts as absent, as it does to kubectl."""
    return list(_check(schema, value, path))


def _check(schema: Schema, value: Any, path: Path) -> Iterator[Finding]:
    if "x-unsupported" in schema:
        yield Finding(path, "unsupported", schema["x-unsupported"])
        return
    wrong = _wrong_type(schema, value)
    if wrong:
        yield Finding(path, "invalid-type", f"{_name(path)} is {wrong}", _quote_hint(schema, value))
        return
    if value not in (None, [], {}) and "x-not-enforced" in schema and value not in schema.get("x-enforced-values", ()):
        yield Finding(path, "not-yet-enforced", schema["x-not-enforced"], "waves stay closed", Severity.WARNING)
    yield from _check_scalar(schema, value, path)
    if isinstance(value, dict):
        yield from _check_object(schema, value, path)
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield Finding(path, "missing-field", f"{_name(path)} is empty")
        if len(value) > schema.get("maxItems", len(value)):
            says = f"{_name(path)} has {len(value)} items: at most {schema['maxItems']} are allowed"
            yield Finding(path, "invalid-value", says)
        for index, item in enumerate(value):
            yield from _check(schema.get("items", {}), item, (*path, index))


def _name(path: Path) -> str:
    return repr(".".join(map(str, path[-2:] if path and isinstance(path[-1], int) else path[-1:]))) if path else "this"


def _wrong_type(schema: Schema, value: Any) -> str:
    wanted = schema.get("type")
    if wanted is None:
        return ""
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool)):
            return ""
    return f"{describe(value)}, not {' or '.join(_ARTICLES.get(name, f'a {name}') for name in names)}"


def describe(value: Any) -> str:
    """What a value is, for a message."""
    if value is None:
        return "blank"
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"the number {value}" if isinstance(value, int | float) else "a string"


def _quote_hint(schema: Schema, value: Any) -> str:
    if schema.get("type") == "string" and isinstance(value, bool | int | float):
        return "put it in quotes to make it a string"
    if schema.get("type") == "integer" and isinstance(value, str) and value.isascii() and value.isdigit():
        return f"write {value} without quotes"
    return ""


def _check_scalar(schema: Schema, value: Any, path: Path) -> Iterator[Finding]:
    says = FORMATS[schema["format"]](value) if "format" in schema else ""
    if says:
        yield Finding(path, "invalid-value", f"{_name(path)} is {_shown(value)}: {says}")
    if "enum" in schema and value not in schema["enum"]:
        choices = [str(choice) for choice in schema["enum"]]
        yield Finding(path, "invalid-value", f"{_name(path)} is {_shown(value)}", suggest(str(value), choices))
    if "pattern" in schema and isinstance(value, str) and not re.fullmatch(schema["pattern"], value):
        yield Finding(path, "invalid-value", f"{_name(path)} is {_shown(value)}", schema.get("description", ""))
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = " and ".join(
                text for text in (low is not None and f"at least {low}", high is not None and f"at most {high}") if text
            )
            yield Finding(path, "invalid-value", f"{_name(path)} is {value}: {limits} is allowed")
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        limit = schema["maxLength"]
        yield Finding(path, "invalid-value", f"{_name(path)} is {len(value)} long: at most {limit} are allowed")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_object(schema: Schema, value: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if value.get(name) in (None, "", [], {}):
            says = "is blank" if name in value else "is missing"
            yield Finding((*path, name), "missing-field", f"the field {name!r} {says}")
    additional = schema.get("additionalProperties", not properties)
    for name, member in value.items():
        if member is None:
            if name not in properties and additional is False:
                yield _unknown(name, properties, path)
        elif name in properties:
            if not (member in ("", [], {}) and name in schema.get("required", ())):
                yield from _check(properties[name], member, (*path, name))
        elif additional is False:
            yield _unknown(name, properties, path)
        elif additional is not True:
            yield from _check(additional, member, (*path, name))


def _unknown(name: str, properties: Mapping[str, Schema], path: Path) -> Finding:
    return Finding((*path, name), "unknown-field", f"no field {name!r} here", suggest(name, properties))


def with_defaults(schema: Schema, value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the defaults of the schema's top-level properties, and without nulls."""
    filled = {name: member["default"] for name, member in schema.get("properties", {}).items() if "default" in member}
    filled.update({name: member for name, member in value.items() if member is not None})
    return filled
