"""What compiling a fleet gives: its snapshot at one commit, and what is kept for the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.apply_rules import DEFAULT_RULES, ApplyRules
from reconciler.core.catalogue import Catalogue
from reconciler.core.compile import Compiled, Releases
from reconciler.core.documents import Cluster, Fleet, RolloutPolicy
from reconciler.core.fleet_files import Held, Listing, ParsedFile, Selected
from reconciler.core.fleet_health import BlockedHealth
from reconciler.core.fleet_held import NOTHING_HELD, Blobs, HeldBack
from reconciler.core.health_rules import NO_POLICIES, HealthPolicies
from reconciler.core.model import ObjectKey, Reason
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
    releases: Releases
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
    those; `compiled` is the newest compilation; `last` is what the snapshot showed when it was last not blocked, and
    `last_blobs` are the files that it was made of."""

    key: tuple[Any, ...]
    clusters_key: str
    compiled: Compiled
    last: CompiledApplication | None
    last_blobs: Blobs = ()

    @property
    def blobs(self) -> Blobs:
        """The files that `compiled` was made of."""
        return self.key[1] if self.key else ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The files of a commit. `held` is what is in force of each, `problems` what is wrong with those that have any;
    `broken` are those of which something may be missing, `unread` those that are not whole, `held_back` those of which
    an earlier version is in force."""

    files: Mapping[str, ParsedFile]
    held: Mapping[str, tuple[Held, ...]]
    problems: Mapping[str, tuple[Problem, ...]]
    broken: frozenset[str]
    unread: frozenset[str]
    held_back: frozenset[str]
    blobs_read: int = 0
    documents_parsed: int = 0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all applications of a fleet have in common."""

    fleet: Fleet
    clusters: Mapping[str, Cluster]
    clusters_key: str
    blocked_clusters: Mapping[str, Reason]
    policies: Mapping[str, RolloutPolicy]
    blocked_policies: Mapping[str, Reason]
    health: HealthPolicies
    blocked_health: tuple[BlockedHealth, ...]
    settings: FleetSettings
    problems: tuple[Problem, ...]
    unmatched_directories: bool


@dataclass(frozen=True, slots=True)
class Index:
    """Where to look among the applications of a fleet without looking at each: the file each stands in, what those that
    were renamed were before, which are blocked, and which have problems."""

    files: Mapping[str, str] = field(default_factory=dict)
    formers: Mapping[str, str] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    flawed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a commit was found to be, so that the next one can be compiled where it differs (`fleet_step`).

    `found` are problems of files that belong to no application; `foreign` are directories that components name outside
    their own plot (`fleet_plots`)."""

    listing: Listing
    fleet_problems: tuple[Problem, ...]
    selected: Selected
    reading: Reading
    shared: Shared
    index: Index
    found: tuple[Problem, ...]
    foreign: frozenset[str]


@dataclass(frozen=True, slots=True)
class FleetCache:
    """What one compilation leaves for the next. Only a cache: without it everything is read and compiled again.

    `held_back` is what the commit itself does not say any more: a new process comes to know by it what is in force
    (`fleet_recall`). `contested` are the objects that several applications claim. `standing` is None if the next
    commit has to be looked at as a whole."""

    files: Mapping[str, ParsedFile] = field(default_factory=dict)
    held: Mapping[str, tuple[Held, ...]] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    claims: Mapping[ObjectKey, tuple[str, ...]] = field(default_factory=dict)
    contested: frozenset[ObjectKey] = frozenset()
    held_back: HeldBack = NOTHING_HELD
    snapshot: FleetSnapshot | None = None
    standing: Standing | None = None


EMPTY_CACHE = FleetCache()


@dataclass(frozen=True, slots=True)
class Counters:
    """What a compilation cost."""

    blobs_read: int = 0
    documents_parsed: int = 0
    applications_compiled: int = 0
    variants_compiled: int = 0
