"""The schema of a kind as JSON Schema, for editors and other tools.

What our own `schema.check` understands beyond the standard is put into words: formats are small languages of ours (JSON
Schema's "duration" is another one), and what is not enforced or refused is said where it stands.

    >>> published({"properties": {"bake": {"format": "duration"}}})["properties"]["bake"]
    {'description': 'format: duration'}
"""

from __future__ import annotations

from typing import Any

from reconciler.core.schema import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_AS_THEY_ARE = ("title", "type", "enum", "minimum", "maximum", "minItems", "maxLength", "default")


def published(schema: Schema) -> dict[str, Any]:
    """A whole document's schema in the standard's words."""
    return {"$schema": DIALECT, **_published(schema)} if "title" in schema else _published(schema)


def _published(schema: Schema) -> dict[str, Any]:
    if "x-unsupported" in schema:
        return {"not": {}, "description": schema["x-unsupported"]}
    found: dict[str, Any] = {name: schema[name] for name in _AS_THEY_ARE if name in schema}
    words = [schema.get("description", ""), f"format: {schema['format']}" if "format" in schema else ""]
    words.append(schema.get("x-not-enforced", ""))
    if any(words):
        found["description"] = "; ".join(word for word in words if word)
    if "pattern" in schema:
        found["pattern"] = f"^(?:{schema['pattern']})$"  # ours has to match the whole text
    if schema.get("required"):
        found["required"] = list(schema["required"])
    if "items" in schema:
        found["items"] = _published(schema["items"])
    if "properties" in schema:
        found["properties"] = {name: _published(member) for name, member in schema["properties"].items()}
    additional = schema.get("additionalProperties", not schema["properties"] if "properties" in schema else True)
    if additional is not True:
        found["additionalProperties"] = additional if additional is False else _published(additional)
    return found
