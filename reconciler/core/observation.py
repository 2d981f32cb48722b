"""What a decision is made from: everything that was gathered, as one value.

Verdicts and clusters come from the lanes' memory and may be stale, which they say themselves; the rest is read in the
same transaction that will record the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.core.model import Assignment, ClusterView, Now, ObjectKey, Reason, Target, TargetVerdict


@dataclass(frozen=True, slots=True)
class IntentSummary:
    """How far the writes of a target's current attempt are. `failed` is the first permanent failure."""

    pending: int = 0
    failed: Reason | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """All that `decide` may know. A target or cluster that is absent was not observed."""

    verdicts: Mapping[Target, TargetVerdict] = field(default_factory=dict)
    clusters: Mapping[str, ClusterView] = field(default_factory=dict)
    assignments: Mapping[Target, Assignment] = field(default_factory=dict)
    intents: Mapping[Target, IntentSummary] = field(default_factory=dict)
    held: Mapping[Target, str] = field(default_factory=dict)
    """Targets that an older active rollout still has in flight, with its id."""
    quarantined: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Releases, as (application, digest), that another rollout was stopped for, with its id."""
    one_way: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Pairs of releases (new digest, baked digest) between which there is no way back without restoring an older
    savepoint, with the fields that say so."""

    report_only: frozenset[str] = frozenset()
    """Applications whose drift is reported and not repaired."""
    heals: Mapping[Target, Mapping[str, int]] = field(default_factory=dict)
    """How often each field that differs was repaired in the last ten minutes."""
    refused: Mapping[Target, Mapping[ObjectKey, Reason]] = field(default_factory=dict)
    """Why the last repair in a row was refused for good, by object."""

    def unreachable(self, target: Target, now: Now) -> bool:
        """True if the target's cluster has not been heard from within its limit, or is not known at all."""
        cluster = self.clusters.get(target.cluster)
        return cluster is None or cluster.unreachable(now)

    def verdict(self, target: Target, digest: str) -> TargetVerdict | None:
        """The verdict on `target` if it was judged against `digest`; one judged against another says nothing."""
        found = self.verdicts.get(target)
        return found if found is not None and found.digest == digest else None
