"""The published schemas say in the standard's words what `schema.check` checks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.core.published_schema import DIALECT, published
from reconciler.core.schemas import SCHEMAS

KEYWORDS = {
    "$schema", "additionalProperties", "default", "description", "enum", "items", "maxLength", "maximum", "minItems",
    "minimum", "not", "pattern", "properties", "required", "title", "type",
}  # fmt: skip


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and all that it is made of."""
    yield schema
    below = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for part in below:
        if isinstance(part, dict):
            yield from parts(part)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_a_schema_has_standard_keywords_only_and_is_closed(kind: str) -> None:
    schema = json.loads(json.dumps(published(SCHEMAS[kind])))
    assert schema["$schema"] == DIALECT
    assert schema["title"] == kind
    for part in parts(schema):
        assert part.keys() <= KEYWORDS
        if "properties" in part:
            assert part["additionalProperties"] is False
        if "pattern" in part:
            re.compile(part["pattern"])


def test_what_only_we_understand_is_put_into_words() -> None:
    found = published(
        {
            "properties": {
                "bake": {"format": "duration", "description": "how long"},
                "gates": {"type": "array", "x-not-enforced": "gates are not enforced yet"},
                "workflow": {"x-unsupported": "it is not run"},
                "name": {"pattern": "[a-z]+"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["bake"],
        }
    )
    assert found == {
        "properties": {
            "bake": {"description": "how long; format: duration"},
            "gates": {"type": "array", "description": "gates are not enforced yet"},
            "workflow": {"not": {}, "description": "it is not run"},
            "name": {"pattern": "^(?:[a-z]+)$"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["bake"],
        "additionalProperties": False,
    }
