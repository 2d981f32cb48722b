"""The simulator's schema tables: complete, compact, and as the real server has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.control_plane import schemas, server

FILES = ("builtin.json", "defaults.json", "flink.json", "resources.json", "specimen.json")


def table(name: str) -> Any:
    """One committed table."""
    return json.loads((schemas.DESTINATION / name).read_text())


@pytest.fixture(scope="module")
def types() -> dict[str, Any]:
    """All types of all tables."""
    found: dict[str, Any] = {}
    for name in ("builtin.json", "flink.json", "specimen.json"):
        found |= table(name)["types"]
    return found


def test_every_reference_and_default_names_a_type_of_the_tables(types: dict[str, Any]) -> None:
    wanted = {name for each in types.values() for name in schemas.references(each)}
    wanted |= {row["type"][1:] for name in ("resources.json", "specimen.json") for row in table(name)["resources"]}
    wanted |= set(schemas.FIXED_DEFAULTS)
    assert wanted - set(types) == set()
    for name, defaults in schemas.FIXED_DEFAULTS.items():
        assert set(defaults) <= set(types[name]["struct"]), name


def test_what_matters_about_ownership_is_there(types: dict[str, Any]) -> None:
    ports = types["core.v1.Container"]["struct"]["ports"]
    assert ports == {"list": "#core.v1.ContainerPort", "keys": ["containerPort", "protocol"]}
    assert types["core.v1.ContainerPort"]["defaults"] == {"protocol": "TCP"}
    assert types["meta.v1.ObjectMeta"]["struct"]["finalizers"] == {"list": "string", "set": True}
    assert types["meta.v1.LabelSelector"]["atomic"] is True
    spec = types["Specimen"]["struct"]["spec"]["struct"]
    assert spec["free"] == {"struct": {}, "open": True}
    assert spec["whole"] == {"map": "string", "atomic": True}
    assert spec["amount"] == "scalar"


def test_the_tables_are_small() -> None:
    assert sum((schemas.DESTINATION / name).stat().st_size for name in FILES) < 200_000


@pytest.mark.controlplane
def test_the_tables_are_not_stale(control_plane: server.ControlPlane) -> None:
    derived = schemas.derive(control_plane)
    assert sorted(derived) == sorted(FILES)
    stale = [name for name, text in derived.items() if (schemas.DESTINATION / name).read_text() != text]
    assert stale == [], "run `make schemas` and commit what changed"
