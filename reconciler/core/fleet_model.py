"""What compiling a fleet gives: its snapshot at one commit, and what is kept for the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.apply_rules import DEFAULT_RULES, ApplyRules
from reconciler.core.catalogue import Catalogue
from reconciler.core.compile import Compiled
from reconciler.core.documents import Cluster, Parsed, RolloutPolicy
from reconciler.core.fleet_files import ParsedFile
from reconciler.core.health_rules import NO_POLICIES, HealthPolicies
from reconciler.core.model import ObjectKey, Reason, Release
from reconciler.core.objects import Scope
from reconciler.core.problems import Problem


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What the daemon's settings say of one source, and what is shipped."""

    catalogue: Catalogue
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True, slots=True)
class CompiledApplication:
    """One application at one commit. `targets` maps clusters to digests, `releases` digests to releases.

    With `blocked` this commit changes nothing of it: `targets`, `releases` and `policy` are those of the last commit at
    which it was not blocked, or empty if this process saw none; what is assigned to its targets stays assigned."""

    name: str
    labels: Mapping[str, str]
    targets: Mapping[str, str]
    releases: Mapping[str, Release]
    policy: RolloutPolicy | None
    files: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    blocked: Reason | None = None
    apply: ApplyRules = DEFAULT_RULES


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """A fleet at one commit.

    `kept` is set if the commit could not be used at all (a broken or missing fleet.yaml, an empty repository): then all
    but `problems` is that of the last usable one. `deletions_allowed` is False while anything of the source may be
    missing by mistake. `blocked_clusters` are clusters whose document is broken or doubtful: no new release goes there.
    `health` are the health policies in force. `removed_*` were in the snapshot before and are not in this one."""

    fleet: str
    clusters: Mapping[str, Cluster]
    applications: Mapping[str, CompiledApplication]
    problems: tuple[Problem, ...]
    deletions_allowed: bool
    blocked_clusters: Mapping[str, Reason] = field(default_factory=dict)
    removed_applications: tuple[str, ...] = ()
    removed_clusters: tuple[str, ...] = ()
    kept: Reason | None = None
    health: HealthPolicies = NO_POLICIES

    @property
    def target_count(self) -> int:
        """How many targets all applications have."""
        return sum(len(application.targets) for application in self.applications.values())


EMPTY_SNAPSHOT = FleetSnapshot("", {}, {}, (), deletions_allowed=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one application. `key` names the inputs of its compilation but for the clusters, `clusters_key`
    those; `compiled` is the newest compilation and `claims` its objects, each with its clusters; `last` is what the
    snapshot showed when it was last not blocked, and `last_blobs` are the files that it was made of."""

    key: tuple[Any, ...]
    clusters_key: str
    compiled: Compiled
    claims: Mapping[ObjectKey, frozenset[str]]
    last: CompiledApplication | None
    last_blobs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FleetCache:
    """What one compilation leaves for the next. Only a cache: without it everything is read and compiled again.

    `held_blobs` are the files of which an earlier version is in force, because they cannot be read whole now or because
    their application is blocked, each with that version's blob: reading those again first is how a new process comes to
    know what is in force."""

    files: Mapping[str, ParsedFile] = field(default_factory=dict)
    good: Mapping[str, tuple[Parsed, ...]] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    claims: Mapping[ObjectKey, tuple[str, ...]] = field(default_factory=dict)
    held_blobs: Mapping[str, str] = field(default_factory=dict)
    snapshot: FleetSnapshot | None = None


EMPTY_CACHE = FleetCache()


@dataclass(frozen=True, slots=True)
class Counters:
    """What a compilation cost."""

    blobs_read: int = 0
    documents_parsed: int = 0
    applications_compiled: int = 0
    variants_compiled: int = 0
