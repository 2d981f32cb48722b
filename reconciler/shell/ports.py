"""Ports: what the shell needs from the world, as protocols.

Production adapters and the simulator implement the same ones; `bootstrap.py` wires them. All are used from one asyncio
event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from reconciler.core.model import (
    Assignment,
    Facts,
    Intent,
    IntentResult,
    InventoryItem,
    Now,
    ObjectKey,
    Reason,
    Release,
    Rollout,
    RolloutTarget,
    Target,
)

T = TypeVar("T")


# ---- time --------------------------------------------------------------------------------------------------------


class Timer(Protocol):
    """A pending call; `cancel` may be called at any time."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The policy clock: bakes, deadlines, backoff, staleness and health thresholds go by it. The demo steps it, the
    simulator's is virtual. I/O timeouts never go by it but by the event loop's own time."""

    def now(self) -> Now: ...

    def call_at(self, monotonic_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once Now.monotonic reaches `monotonic_s` (at once if it has)."""
        ...


# ---- Git ---------------------------------------------------------------------------------------------------------


class SourceError(Exception):
    """The repository could not be read. `code` is a reason code (RepositoryUnreachable, RefNotFound, ...); `message` is
    fit for people and carries no credential."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file of a commit: `mode` as in git ("100644", "100755", "120000" a link, "160000" a submodule). `size` is in
    bytes, -1 where it is not known: what is too large to be read is seen before it is read."""

    mode: str
    blob: str
    size: int = -1


@dataclass(frozen=True, slots=True)
class Commit:
    """Who and what, for people. `authored_wall` is seconds since the epoch."""

    sha: str
    author: str
    subject: str
    authored_wall: float


class Source(Protocol):
    """One Git repository at one ref, read only."""

    async def head(self) -> str:
        """The ref's commit, asked of the remote (`ls-remote`): cheap. Raises SourceError."""
        ...

    async def listing(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        """Every file of commit `sha` by path, fetched if need be. Raises SourceError."""
        ...

    async def read(self, blobs: Sequence[str]) -> Mapping[str, bytes]:
        """Contents of `blobs`; a missing one is a SourceError."""
        ...

    async def close(self) -> None: ...


# ---- store -------------------------------------------------------------------------------------------------------


class ConflictError(Exception):
    """Somebody else wrote the row first (compare-and-swap failed): gather again and decide anew."""


class FencedError(Exception):
    """This process's epoch is over: another daemon has opened the store. Nothing may be written any more."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Durable state of a source. `fleet` is Fleet.metadata.name; the revisions are commit SHAs or "".

    `last_usable` is the newest commit that could be used at all, and `held` (JSON: path -> blob) are the files that
    could not be read whole there, each with the blob at which it last could: what is in force after a restart.
    `health_policies` are those in force, as text: lanes judge by them, also before the source is compiled again."""

    name: str
    fleet: str = ""
    last_attempted: str = ""
    last_applied: str = ""
    last_baked: str = ""
    problems: str = "[]"  # JSON list of problems of last_attempted
    last_usable: str = ""
    held: str = "{}"
    health_policies: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A release that is not to be started again on our own."""

    application: str
    digest: str
    reason: Reason
    rollout: str
    created_wall: float


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the append-only audit log. `level` is one of the five levels; `data` is JSON-able."""

    wall: float
    level: str
    code: str
    message: str
    source: str = ""
    application: str = ""
    cluster: str = ""
    rollout: str = ""
    actor: str = "reconciler"
    data: Mapping[str, Any] | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message to be delivered at least once; `key` makes it idempotent at the other end."""

    key: str
    kind: str
    body: Mapping[str, Any]
    created_wall: float
    sent_wall: float | None = None


class Tx(Protocol):
    """What can be read and written inside one transaction. Nothing here awaits. Reads see the transaction's writes.
    Lists come back in a fixed order (by primary key unless said otherwise)."""

    # sources, revisions
    def source(self, name: str) -> SourceRow | None: ...
    def put_source(self, row: SourceRow) -> None: ...
    def put_revision(self, source: str, commit: Commit, seen_wall: float) -> None: ...
    def revision(self, source: str, sha: str) -> Commit | None: ...

    # releases: immutable, keyed by digest
    def put_release(self, release: Release) -> None: ...
    def release(self, digest: str) -> Release | None: ...

    # assignments
    def assignment(self, target: Target) -> Assignment | None: ...
    def assignments(
        self, *, source: str | None = None, application: str | None = None, cluster: str | None = None
    ) -> list[Assignment]: ...
    def put_assignment(self, row: Assignment) -> None: ...
    def delete_assignment(self, target: Target) -> None: ...
    def rename_application(self, old: str, new: str) -> None:
        """Move assignments, inventory, facts and quarantine of `old`, which has nothing pending, to `new`, which has
        none of them."""
        ...

    # how objects are written: core/apply_rules.py, as text ("" is the default)
    def apply_rules(self, application: str) -> str: ...
    def apply_rules_of_source(self, source: str) -> dict[str, str]: ...
    def apply_rules_of_cluster(self, cluster: str) -> dict[str, str]:
        """By application, of those that are assigned to a target on `cluster` and have some."""
        ...

    def put_apply_rules(self, application: str, source: str, rules: str) -> None: ...

    # inventory
    def inventory(self, target: Target) -> list[InventoryItem]: ...
    def inventory_of_cluster(self, cluster: str) -> list[InventoryItem]: ...
    def inventory_sizes(self, application: str) -> dict[Target, int]:
        """How many objects of `application` are in the inventory of each target that has any."""
        ...

    def put_inventory(self, items: Sequence[InventoryItem]) -> None: ...
    def delete_inventory(self, target: Target, keys: Sequence[ObjectKey]) -> None: ...

    # rollouts
    def rollout(self, rollout_id: str) -> Rollout | None: ...
    def rollouts(
        self,
        *,
        source: str | None = None,
        application: str | None = None,
        active: bool | None = None,
        limit: int = 1000,
    ) -> list[Rollout]:
        """Newest first. `active` True: not in ENDED_STATES."""
        ...

    def insert_rollout(self, rollout: Rollout, targets: Sequence[RolloutTarget]) -> None: ...
    def update_rollout(self, rollout: Rollout) -> Rollout:
        """Write where id and version match and return it with version + 1; else raise ConflictError."""
        ...

    def rollout_targets(self, rollout_id: str) -> list[RolloutTarget]:
        """In plan order: wave, then place in the wave."""
        ...

    def revision_of(self, target: Target, digest: str) -> str:
        """The commit of the newest rollout that was to bring `digest` to `target`; "" if the history no longer says."""
        ...

    def put_rollout_targets(self, rollout_id: str, rows: Sequence[RolloutTarget]) -> None: ...
    def active_rows(
        self, application: str | None = None, *, but: str = ""
    ) -> dict[Target, list[tuple[str, RolloutTarget]]]:
        """For each target (of `application`) its rows in active rollouts, leaving out rollout `but`; the oldest
        rollout first; targets in none are absent."""
        ...

    # intents
    def intents(
        self,
        *,
        cluster: str | None = None,
        owner: str | None = None,
        application: str | None = None,
        pending: bool | None = None,
    ) -> list[Intent]:
        """In the order they were committed (then `order`)."""
        ...

    def pending_counts(self, application: str) -> dict[Target, int]:
        """How many intents of `application` are pending on each target that has any."""
        ...

    def unfinished_intents(self, owner: str) -> list[Intent]:
        """Those of unit `owner` that are PENDING or FAILED, in the same order: what a decision has to know of them."""
        ...

    def failed_prunes(self, application: str) -> list[Intent]:
        """Deletions of `application` that were refused for good, in the order they were committed."""
        ...

    def refused_heals(self, target: Target, digest: str, attempt: int) -> list[Intent]:
        """What was refused for good of repair number `attempt` of `target`, whoever had decided it."""
        ...

    def intent(self, intent_id: str) -> Intent | None: ...
    def put_intents(self, intents: Sequence[Intent]) -> None:
        """Insert; an intent whose id exists already is left as it is."""
        ...

    def abandon_intents(self, target: Target, reason: Reason) -> int:
        """Pending intents of `target` become ABANDONED; returns how many."""
        ...

    def finish_intents(self, results: Sequence[IntentResult]) -> None:
        """Record results (T2). A result for an intent that was abandoned meanwhile keeps it ABANDONED, but what is
        known of the object goes to the inventory all the same: it is a fact. DONE/UNCHANGED applies set inventory OWNED
        with uid and generation; a delete that is `gone` removes the inventory item."""
        ...

    # health facts
    def facts(self, cluster: str) -> dict[tuple[Target, ObjectKey], Facts]: ...
    def put_facts(self, target: Target, key: ObjectKey, facts: Facts) -> None: ...
    def delete_facts(self, target: Target) -> None: ...

    # quarantine, ledgers
    def quarantined(self, application: str | None = None) -> list[QuarantineRow]: ...
    def put_quarantine(self, rows: Sequence[QuarantineRow]) -> None: ...
    def delete_quarantine(self, application: str, digest: str | None = None) -> int: ...
    def spend(self, kind: str, scope: str, amount: int, wall: float) -> None: ...
    def spent(self, kind: str, scope: str, since_wall: float) -> int: ...
    def ledger(self, kind: str, scope: str, since_wall: float) -> tuple[int, float | None]:
        """What `spent` says, and the wall time of the oldest entry it counts: when budget begins to come back."""
        ...

    # audit and outbox
    def audit(self, row: AuditRow) -> None: ...
    def audit_log(
        self, *, application: str | None = None, rollout: str | None = None, after_id: int = 0, limit: int = 200
    ) -> list[AuditRow]:
        """Newest first."""
        ...

    def drift_told(self, target: Target, limit: int = 100) -> list[AuditRow]:
        """The lines that tell of drift of `target` since we last wrote it, newest first."""
        ...

    def put_outbox(self, key: str, kind: str, body: Mapping[str, Any], wall: float) -> bool:
        """Queue a message once per `key`; False if it was there already."""
        ...

    def outbox(self, *, sent: bool | None = None, limit: int = 100) -> list[OutboxRow]: ...
    def mark_sent(self, key: str, wall: float) -> None: ...

    def installation(self) -> str:
        """A stable id of this installation, made when the store was made."""
        ...


class Store(Protocol):
    """Durable state. Every write is one transaction under this process's epoch."""

    @property
    def epoch(self) -> int:
        """+1 at every opening: Now.boot."""
        ...

    def given_up(self, cluster: str) -> int:
        """A number that is another one before anybody is told that a pending intent on `cluster` was given up. Cheap,
        so that it can be asked before every write: while it is what it was before the intents were read, they are
        wanted."""
        ...

    async def transact(self, point: str, work: Callable[[Tx], T]) -> T:
        """Run `work` in one BEGIN IMMEDIATE transaction and commit; roll back when it raises. `point` names the place
        for logs, metrics and the simulator's crashes. Raises FencedError."""
        ...

    async def read(self, point: str, work: Callable[[Tx], T]) -> T:
        """Run `work` on a consistent read-only snapshot."""
        ...

    async def prune_history(self, before_wall: float, keep: int) -> object:
        """Drop history older than `before_wall`, but for the newest `keep` rows of each kind; nothing that is still
        referred to. In transactions of its own, none of them long."""
        ...

    async def close(self) -> None: ...


# ---- notifications -----------------------------------------------------------------------------------------------


class Notifier(Protocol):
    """Delivers outbox messages, at least once; raises to have them tried again later."""

    async def send(self, key: str, kind: str, body: Mapping[str, Any]) -> None: ...


# ---- what strangers wrote ----------------------------------------------------------------------------------------


class Evaluator(Protocol):
    """Runs one pure function, bytes in and bytes out, over what strangers wrote: where it can take neither our time nor
    our memory nor our process. The simulator runs the same function where it stands."""

    async def evaluate(self, items: Sequence[bytes]) -> list[bytes | Reason]:
        """For each item, in order, what the function gives, or why it has no answer: EvaluationTimedOut,
        EvaluationCrashed, EvaluationTooLarge and EvaluationFailed are the item's own fault; EvaluationSuspended is that
        of other items of this call, and EvaluatorUnavailable nobody's: they may pass. So what may be hostile together
        is asked together, and nothing else with it."""
        ...

    async def close(self) -> None: ...
