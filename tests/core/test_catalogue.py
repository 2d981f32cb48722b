"""What is shipped in policies/ is complete and well-formed."""

from __future__ import annotations

import pytest

from reconciler import resources
from reconciler.core.catalogue import CatalogueError, load_catalogue
from reconciler.core.schema import check
from reconciler.core.traits import property_at


def test_traits_patch_only_properties_they_have() -> None:
    traits = resources.catalogue().traits
    assert sorted(traits) == ["checkpointing", "resources", "upgrade-strategy"]
    for trait in traits.values():
        for patch in trait.patches:
            schema = trait.schema
            for part in patch.source.split("."):
                schema = schema["properties"][part]
            if patch.table is not None:
                values = schema.get("enum", ["true", "false"])
                assert set(patch.table) == set(values), (trait.name, patch.source)
        for rule in trait.requires:
            assert rule.trait in traits
            assert set(rule.when_in) <= set(trait.schema["properties"][rule.when_property]["enum"])
        assert set(trait.conflicts_with) <= set(traits)
        defaults = {n: m["default"] for n, m in trait.schema["properties"].items() if "default" in m}
        assert [f for f in check(trait.schema, defaults) if f.code != "missing-field"] == []


def test_limits_and_thresholds() -> None:
    catalogue = resources.catalogue()
    assert catalogue.limits.deletes_per_commit == 20
    assert catalogue.limits.restarts_per_cluster_hour < catalogue.limits.restarts_per_region_hour
    assert catalogue.thresholds["flink.unstableDegradedAfter"] == 120
    assert catalogue.thresholds["flink.unstableTimes"] == 3
    assert catalogue.thresholds["flink.unstableWithin"] == 600


def test_a_broken_catalogue_is_refused() -> None:
    with pytest.raises(CatalogueError, match=r"policies/rollout/x\.yaml"):
        load_catalogue({"rollout/x.yaml": b"a: ["})


def test_properties_by_dots() -> None:
    assert property_at({"a": {"b": 1}}, "a.b") == 1
    assert property_at({"a": 1}, "a.b") is None
