"""The shipped catalogue: traits, rollout policies, limits and thresholds, read from data.

The files of `policies/` are documents like any other; `reconciler.resources` finds them, this module gives them types.
They are part of the program: a mistake in one is a programmer's error and raises, and a test reads them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from reconciler.core.digest import digest_of
from reconciler.core.documents import RolloutPolicy
from reconciler.core.formats import duration_s
from reconciler.core.health_rules import HealthPolicy
from reconciler.core.parse import parse
from reconciler.core.traits import TraitDefinition, definition_of
from reconciler.core.yaml_kube import load


@dataclass(frozen=True, slots=True)
class Limits:
    """Blast radius: caps over all rollouts and heals together. See `policies/limits.yaml`."""

    restarts_per_cluster_hour: int
    restarts_per_region_hour: int
    deletes_per_commit: int
    changed_targets_per_cluster_hour: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that is shipped. `digest` changes when any trait does; `thresholds` are those of `policies/health.yaml`,
    durations in seconds, keyed as there ("flink.unstableWithin")."""

    traits: Mapping[str, TraitDefinition]
    policies: Mapping[str, RolloutPolicy]
    limits: Limits
    thresholds: Mapping[str, float]
    health_policies: Mapping[str, HealthPolicy]
    digest: str


class CatalogueError(ValueError):
    """The shipped data is broken."""


def load_catalogue(files: Mapping[str, bytes]) -> Catalogue:
    """The catalogue of `files`: path below `policies/` -> content."""
    traits: dict[str, TraitDefinition] = {}
    policies: dict[str, RolloutPolicy] = {}
    health: dict[str, HealthPolicy] = {}
    specs: dict[str, Mapping[str, Any]] = {}
    for path in sorted(files):
        loaded = load(f"policies/{path}", files[path])
        if loaded.problems:
            raise CatalogueError(str(loaded.problems[0]))
        for document in loaded.documents:
            kind = document.value["kind"]
            if kind == "TraitDefinition":
                definition = definition_of(document.value)
                traits[definition.name] = definition
            elif kind == "RolloutPolicy":
                parsed = parse(document)
                if not isinstance(parsed.value, RolloutPolicy):
                    raise CatalogueError(str(parsed.problems[0]))
                policies[parsed.name] = parsed.value
            elif kind == "HealthPolicy":
                parsed = parse(document)
                if not isinstance(parsed.value, HealthPolicy):
                    raise CatalogueError(str(parsed.problems[0]))
                health[parsed.name] = parsed.value
            else:
                specs[kind] = document.value["spec"]
    digest = digest_of({path: content.decode() for path, content in files.items() if path.startswith("traits/")})
    return Catalogue(
        traits=traits,
        policies=policies,
        limits=_limits(specs["BlastRadiusLimits"]),
        thresholds=_thresholds(specs["HealthThresholds"]),
        health_policies=health,
        digest=digest,
    )


def _limits(spec: Mapping[str, Any]) -> Limits:
    camel = {"".join(part.capitalize() for part in field.name.split("_")): field.name for field in fields(Limits)}
    return Limits(**{camel[name[0].upper() + name[1:]]: value for name, value in spec.items()})


def _thresholds(spec: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            flat.update(_thresholds(value, f"{prefix}{name}."))
        else:
            seconds = duration_s(value)
            flat[prefix + name] = float(value) if seconds is None else seconds
    return flat
