"""Decisions as data: what is to be done, why not, and when to look again.

`decide` returns a Decision; it is a list of *steps*, one per target, each the target's new row together with the
actions that go with it. `admit` may refuse a step for want of budget: then the row stays as it was, with the reason.

    Step(target, row_after, (Apply(target, digest, "start", attempt=1),), cost=Cost(changed=1))
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.model import InventoryItem, ObjectKey, Reason, Rollout, RolloutTarget, Target


@dataclass(frozen=True, slots=True)
class Apply:
    """Assign `digest` to `target` and write every object of that release that is not in sync. `purpose` is start,
    rollback or heal; a heal assigns nothing new, and `streak` says which heal in a row it is. `attempt` makes the
    intents' identities; `without` are objects that are left alone. Older intents of the target that are still pending
    are abandoned."""

    target: Target
    digest: str
    purpose: str
    attempt: int
    revision: str = ""
    streak: int = 0
    without: tuple[ObjectKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up the intents of `target` that are still pending: nothing of them is sent after this is committed."""

    target: Target
    reason: Reason


@dataclass(frozen=True, slots=True)
class Baked:
    """Record that `digest` baked on `target`: from now on a rollback goes back to it."""

    target: Target
    digest: str


@dataclass(frozen=True, slots=True)
class Due:
    """Record that `digest` is due on `target`: its wave passed while the target could not be reached. None: nothing is
    due there any more."""

    target: Target
    digest: str | None


@dataclass(frozen=True, slots=True)
class Contested:
    """Record that `fields` of `target`, and no others, are fought over: what they are on is not repaired any more."""

    target: Target
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disabled:
    """Record since when (wall) a live object of `target` says that we are to leave it alone. None: no longer."""

    target: Target
    since_wall: float | None


@dataclass(frozen=True, slots=True)
class Orphaned:
    """Record since when (wall) Git no longer declares `target`. None: it does again."""

    target: Target
    since_wall: float | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Drop all that is known of `target`: its cluster was removed long ago. Nothing is written there."""

    target: Target


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete `items`, in this order, each guarded by its uid. `stateful_max` is how many stateful objects the whole
    application may lose to one commit."""

    target: Target
    digest: str
    items: tuple[InventoryItem, ...]
    attempt: int
    stateful_max: int


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Never start `digests` of `application` again on our own: until another digest, or a person, ends it."""

    application: str
    digests: tuple[str, ...]
    reason: Reason
    rollout: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Tell people. `key` makes it idempotent: the same key is sent once. `level` is event, risk, alert, anomaly or
    fault (the five levels of health management)."""

    key: str
    level: str
    reason: Reason
    application: str = ""
    targets: tuple[Target, ...] = ()


Action = Apply | Abandon | Baked | Due | Contested | Disabled | Orphaned | Forgotten | Prune | Quarantine | Alert


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step spends of the ledgers shared between all rollouts and healing."""

    changed: int = 0  # targets given another release
    restarts: int = 0  # jobs or workloads that restart
    deletes: int = 0  # stateful objects deleted


@dataclass(frozen=True, slots=True)
class Step:
    """One target's next row and what goes with it. `after` is None where the target has no row (healing outside a
    rollout). A step without cost is always admitted."""

    target: Target
    after: RolloutTarget | None
    actions: tuple[Action, ...] = ()
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Wait:
    """A "no" with its name: the one gate that blocks `subject` ("" is the rollout as a whole, "wave:<name>" a wave,
    else a target) and when it will be looked at again (Now.monotonic; None: when something changes)."""

    subject: str
    reason: Reason
    recheck_at: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """All of it. `rollout` is the new row (its version is raised by the store), None outside a rollout."""

    rollout: Rollout | None
    steps: tuple[Step, ...] = ()
    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    recheck_at: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Blast-radius limits per hour, from policies/limits.yaml. Rollbacks spend but are never refused."""

    restarts_per_cluster: int = 50
    restarts_per_region: int = 200
    changed_per_cluster: int = 500
    deletes_per_commit: int = 20


@dataclass(frozen=True, slots=True)
class Ledgers:
    """What was spent in the running hour (deletes: for the commit), by scope: ("restarts", "cluster:eu-1") -> 3."""

    spent: dict[tuple[str, str], int] = field(default_factory=dict)
    frees_at: dict[tuple[str, str], float] = field(default_factory=dict)
