"""The values everything else speaks of.

A *target* is (application, cluster). A *release* is what an application compiles to for a target, identified by its
digest. An *assignment* is the release a target is to have now. A *rollout* moves targets from release to release in
*waves*. All values are frozen; a change is a new value.

    >>> str(Target("sample/orders", "eu-west-1a"))
    'sample/orders@eu-west-1a'
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.core.digest import digest_of

#: A Kubernetes object, or any part of one, as plain JSON values.
Manifest = dict[str, Any]


class Now(NamedTuple):
    """The time, as an argument. `wall` is seconds since the epoch (windows, display); `monotonic` is seconds that only
    go forward, counted from the start of this `boot` (deadlines, backoff, bakes); `boot` counts the starts of the
    daemon and is the epoch of every unit."""

    wall: float
    monotonic: float
    boot: int


class Target(NamedTuple):
    """One application on one cluster. `application` is "fleet/name"."""

    application: str
    cluster: str

    def __str__(self) -> str:
        return f"{self.application}@{self.cluster}"


class ObjectKey(NamedTuple):
    """Identity of an object inside a cluster. `group` is "" for the core group, `namespace` is "" if cluster-scoped.
    The API version is not part of it: the same object is served at several."""

    group: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> ObjectKey:
        """The key of `manifest`; missing parts are ""."""
        metadata = manifest.get("metadata") or {}
        group, _, _ = str(manifest.get("apiVersion", "")).rpartition("/")
        return cls(group, str(manifest.get("kind", "")), metadata.get("namespace") or "", metadata.get("name") or "")

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is so: a code in CamelCase that programs match, and a sentence fit for page, log and status."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Health(enum.StrEnum):
    """Health of an object or a target, best first. The worst of the parts is the whole's."""

    HEALTHY = "Healthy"
    SUSPENDED = "Suspended"
    PROGRESSING = "Progressing"
    MISSING = "Missing"
    DEGRADED = "Degraded"
    UNKNOWN = "Unknown"

    @property
    def rank(self) -> int:
        """0 is best."""
        return _HEALTH_ORDER.index(self)


_HEALTH_ORDER = list(Health)


class Sync(enum.StrEnum):
    """Does live equal desired? ASK means only the server's dry-run can tell; UNKNOWN means live was not seen."""

    IN_SYNC = "in-sync"
    DIFFERS = "differs"
    MISSING = "missing"
    ASK = "ask"
    UNKNOWN = "unknown"


class TargetState(enum.StrEnum):
    """Where a target stands in its rollout."""

    WAITING = "Waiting"
    SNAPSHOTTING = "Snapshotting"
    APPLYING = "Applying"
    PROGRESSING = "Progressing"
    BAKING = "Baking"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    SKIPPED = "Skipped"
    SUPERSEDED = "Superseded"
    BLOCKED = "Blocked"
    UNREACHABLE = "Unreachable"
    DELETING = "Deleting"


#: A target in one of these was changed by its rollout and is on its way: it holds a slot of the wave's concurrency.
SLOT_STATES = frozenset({TargetState.SNAPSHOTTING, TargetState.APPLYING, TargetState.PROGRESSING, TargetState.BAKING})
#: Nothing more happens to a target in one of these within its rollout.
SETTLED_STATES = frozenset(
    {TargetState.SUCCEEDED, TargetState.ROLLED_BACK, TargetState.SKIPPED, TargetState.SUPERSEDED}
)
FAILURE_STATES = frozenset({TargetState.FAILED, TargetState.TIMED_OUT})


class RolloutState(enum.StrEnum):
    """Where a rollout stands. The first four are active: their targets belong to it."""

    ACTIVE = "Active"
    PAUSED = "Paused"
    HALTED = "Halted"
    ROLLING_BACK = "RollingBack"
    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
    ABORTED = "Aborted"


ENDED_STATES = frozenset(
    {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.SUPERSEDED, RolloutState.ABORTED}
)


class RolloutKind(enum.StrEnum):
    """CHANGE follows a commit. CATCH_UP brings targets that were unreachable to a release others already have."""

    CHANGE = "change"
    CATCH_UP = "catch-up"


@dataclass(frozen=True, slots=True)
class Release:
    """What an application compiles to for one or more clusters.

    `objects` are in apply order (stage, kind, name), without ownership marks. `digest` is over them alone, so that the
    same objects under another commit are the same release."""

    digest: str
    application: str
    objects: tuple[Manifest, ...]


def release_of(application: str, objects: tuple[Manifest, ...]) -> Release:
    """A release with its digest. The application's name is part of it: two applications never share a release."""
    return Release(digest_of([application, list(objects)], length=32), application, objects)


# ---- what was observed -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """Health facts of one object, kept so that a restart forgets no crash loop. Times are policy-clock wall seconds.

    `state` is the health function's own key for what the object was doing, `since_s` since when it has been;
    `transitions_s` are the last moments at which it left or re-entered a good state (bounded); `job_id` is the Flink
    job last seen and `restarts` counts restarts seen since the release was assigned."""

    state: str = ""
    since_s: float = 0.0
    transitions_s: tuple[float, ...] = ()
    job_id: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class ObjectVerdict:
    """What one look at one live object said, at one uid, generation and assigned digest. `drifted` names the fields
    that differ, bounded, "" for the object as a whole, and `drifted_by` who wrote there; with `ownership_only` every
    value is right, but not recorded as ours."""

    key: ObjectKey
    sync: Sync
    health: Health
    reason: Reason
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    job_id: str = ""
    restarts: int = 0
    message: str = ""  # what differs, for people; "" when in sync
    drifted: tuple[str, ...] = ()
    drifted_by: tuple[str, ...] = ()
    ownership_only: bool = False
    by_client: bool = False  # the server refuses to judge: the client's comparison counts


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """What is known of one target now, judged against the release `digest`.

    `observed_at` is Now.monotonic of the last observation that proves this is current; a verdict of another boot does
    not exist, for verdicts are rebuilt at every start. `applied` is True once every object carries the uid and at least
    the generation that our apply returned. `job_ids` of all Flink jobs, in object order, and `restarts` over all
    objects let a bake notice a new job or an unexplained restart."""

    target: Target
    digest: str
    observed_at: float
    sync: Sync
    health: Health
    reason: Reason
    applied: bool = False
    job_ids: tuple[str, ...] = ()
    restarts: int = 0
    objects: tuple[ObjectVerdict, ...] = ()
    disabled: bool = False  # reconciler.dev/reconcile: disabled stands on a live object


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What is known of one cluster. `heard_at` is Now.monotonic of its last answer of any kind, None if never in this
    boot; `since` is Now.monotonic of when this boot began to listen; `stale_after_s` is its Cluster document's."""

    name: str
    heard_at: float | None
    since: float
    stale_after_s: float = 120.0
    suspended: bool = False
    reason: Reason | None = None  # why it is not connected, where known

    def unreachable(self, now: Now) -> bool:
        """True if nothing was heard from the cluster for longer than its limit."""
        return now.monotonic - (self.since if self.heard_at is None else self.heard_at) > self.stale_after_s

    @property
    def silence(self) -> str:
        """Why it is unreachable, as a sentence without a time: it stays the same while nothing changes."""
        if self.reason is None:
            return f"cluster {self.name} does not answer"
        what = "does not answer" if self.reason.code in ("Unreachable", "NoAnswer") else "is out of reach"
        return f"cluster {self.name} {what}: {self.reason.message}"


# ---- a rollout and its frozen plan -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave of a frozen plan: numbers are resolved, never percentages. `targets` in the order they start."""

    name: str
    targets: tuple[Target, ...]
    bake_s: float
    max_concurrent: int
    max_failures: int
    max_unreachable: int
    closed: Reason | None = None  # not None: the wave needs something this version does not enforce, and stays shut

    @property
    def minimum_s(self) -> float:
        """The least time the wave can take: the bake is per target, `max_concurrent` at a time."""
        return -(-len(self.targets) // self.max_concurrent) * self.bake_s if self.targets else 0.0


@dataclass(frozen=True, slots=True)
class FrozenPlan:
    """What a rollout will do, fixed when it starts: a policy edited in the middle counts from the next rollout."""

    waves: tuple[Wave, ...]
    progress_deadline_s: float
    on_failure: str  # "halt" | "rollback"
    mandatory: bool
    policy: str
    hash: str
    check_interval_s: float
    max_deletes: int = 0

    @property
    def targets(self) -> list[Target]:
        """All targets, wave by wave, in the order in which they start."""
        return [target for wave in self.waves for target in wave.targets]


@dataclass(frozen=True, slots=True)
class RolloutTarget:
    """One target's row in a rollout. `*_s` are accrued seconds: time down or unobserved accrues nothing.

    `changed` says that this rollout has assigned its release to the target, so a failure is its failure and a
    rollback touches it. `attempt` counts how often the target was started, and is part of its intents' identity."""

    target: Target
    wave: int
    to_digest: str
    from_digest: str | None
    baked_digest: str | None  # the last release that baked here before: where a rollback goes
    state: TargetState = TargetState.WAITING
    reason: Reason | None = None
    changed: bool = False
    rolling: bool = False  # a rollback of it has begun: from then on its baked release is the assigned one
    attempt: int = 0
    bake_s: float = 0.0
    bake_resets: int = 0
    progress_s: float = 0.0
    observed_at: float | None = None  # Now.monotonic of the last accrual
    observed_boot: int = 0
    job_ids: tuple[str, ...] = ()
    restarts: int = 0
    superseding: bool = False  # a newer rollout takes it as soon as it has settled
    started_wall: float | None = None
    healthy_wall: float | None = None
    baked_wall: float | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """Moving targets to releases. `version` is compared and swapped at every write."""

    id: str
    source: str
    application: str
    kind: RolloutKind
    revision: str  # the commit it came from: provenance, not identity
    plan: FrozenPlan
    state: RolloutState
    reason: Reason | None
    created_wall: float
    version: int = 0
    ended_wall: float | None = None
    paused_from: RolloutState | None = None
    went_back: bool = False  # an automatic rollback has begun once: there is no second one


@dataclass(frozen=True, slots=True)
class Assignment:
    """The release a target is to have now ("" while it has none). `baked` is the last one that baked there and where a
    rollback goes; `revision` is the commit that the assigned release came from; `due` is the newest release whose wave
    passed while the target was unreachable. Heal state is kept beside it, so that a restart does not heal faster:
    `heal_count` in all, `heal_streak` in a row, the last of them at `heal_at_s` (Now.monotonic) of boot `heal_boot`.
    `contested` names the fields for which the repairs were given up, one a line; `disabled_wall` and `orphaned_wall`
    say since when a person keeps us from touching it, and since when Git no longer declares it."""

    target: Target
    digest: str
    source: str
    revision: str = ""
    baked: str | None = None
    due: str | None = None
    heal_count: int = 0
    heal_streak: int = 0
    heal_at_s: float = 0.0
    heal_boot: int = 0
    contested: str = ""
    disabled_wall: float | None = None
    orphaned_wall: float | None = None


class InventoryPhase(enum.StrEnum):
    """INTENDED: a write was committed, not yet known to have happened. OWNED: it did. DELETING: a delete was."""

    INTENDED = "intended"
    OWNED = "owned"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class InventoryItem:
    """One object that we own, or are about to, on one target."""

    target: Target
    key: ObjectKey
    api_version: str
    phase: InventoryPhase
    uid: str = ""
    generation: int = 0  # metadata.generation our last apply returned


class Verb(enum.StrEnum):
    """What an intent does to its object."""

    APPLY = "apply"
    DELETE = "delete"


class IntentState(enum.StrEnum):
    """PENDING: committed, not known to have happened. The others are final."""

    PENDING = "pending"
    DONE = "done"  # written, and the response was judged
    UNCHANGED = "unchanged"  # nothing to write: live was in sync already
    FAILED = "failed"
    ABANDONED = "abandoned"  # no longer wanted; never sent after this was committed


@dataclass(frozen=True, slots=True)
class Intent:
    """One write decided and recorded before it happens. `order` is the place within its target's batch; `owner` is the
    unit that decided it ("rollout:<id>" or "source:<name>"); `purpose` is start, rollback, heal or prune."""

    id: str
    owner: str
    purpose: str
    target: Target
    verb: Verb
    key: ObjectKey
    api_version: str
    digest: str  # the release an apply belongs to; for a delete, the release that no longer has the object
    attempt: int
    order: int
    epoch: int = 0  # the boot that decided it
    state: IntentState = IntentState.PENDING
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class IntentResult:
    """What became of an intent: committed by its lane, one batch at a time (T2). `uid` and `generation` are those of
    the object after the write ("" and 0 for a delete); `gone` says that the object is confirmed absent."""

    intent: str
    state: IntentState
    reason: Reason | None = None
    uid: str = ""
    generation: int = 0
    gone: bool = False


def intent_id(owner: str, purpose: str, target: Target, verb: Verb, key: ObjectKey, digest: str, attempt: int) -> str:
    """The identity of a write: the same decision made twice is the same intent, and meets itself in the store."""
    return digest_of([owner, purpose, list(target), str(verb), list(key), digest, attempt], length=24)
