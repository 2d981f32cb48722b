"""The pages of docs/spec name every field of every kind, and their examples are valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import resources
from reconciler.core import schemas
from reconciler.core.components import COMPONENT_TYPES, LATER_TYPES
from reconciler.core.parse import parse
from reconciler.core.yaml_kube import load

PAGES = Path(__file__).parent.parent.parent / "docs/spec"
KINDS = {
    "Fleet": "fleet.md",
    "Cluster": "cluster.md",
    "Application": "application.md",
    "RolloutPolicy": "rollout-policy.md",
    "HealthPolicy": "health-policy.md",
}


def fields(schema: Any) -> Iterator[str]:
    """The names of all properties in a schema."""
    for name, member in schema.get("properties", {}).items():
        yield name
        yield from fields(member)
    if "items" in schema:
        yield from fields(schema["items"])


def missing(page: str, names: set[str]) -> set[str]:
    """Those of `names` that stand in no code span of the page, alone or as a part of a dotted name."""
    text = re.sub(r"```.*?```", "", (PAGES / page).read_text(), flags=re.DOTALL)
    spans = {part for span in re.findall(r"`([^`]+)`", text) for part in re.split(r"[.\[\]: ]+", span)}
    return names - spans


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_is_described(kind: str) -> None:
    common = {"apiVersion", "kind", "metadata", "annotations", "spec"}
    assert missing(KINDS[kind], set(fields(schemas.SCHEMAS[kind])) - common - {"labels"}) == set()


def test_every_property_and_type_is_described() -> None:
    of_ingress = {"template", "className", "annotations", "labels", "tls"}
    names = set(fields(schemas.FLINK_APPLICATION_PROPERTIES)) - of_ingress
    names |= set(fields(schemas.MANIFESTS_PROPERTIES)) | set(fields(schemas.TOPOLOGY)) | set(fields(schemas.OVERRIDE))
    assert missing("application.md", names | set(COMPONENT_TYPES) | set(LATER_TYPES)) == set()


def test_every_trait_is_described() -> None:
    for trait in resources.catalogue().traits.values():
        assert f"\n## {trait.name}\n" in (PAGES / "traits.md").read_text()
        assert missing("traits.md", set(fields(trait.schema))) == set()


def test_every_later_kind_is_named() -> None:
    assert missing("README.md", {*schemas.LATER_KINDS, *KINDS}) == set()


@pytest.mark.parametrize("page", sorted(KINDS.values()))
def test_examples_are_valid(page: str) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)
    assert examples
    for example in examples:
        for document in load(page, example.encode()).documents:
            assert not parse(document).problems
