"""From a policy and its targets to frozen waves.

Every target is in exactly one wave; one that no wave takes is an error that names it. `size` is a share of the targets
no earlier wave took, rounded down but at least one; the last wave takes the rest. `maxConcurrent` is rounded down but
at least one; `maxFailures` and `maxUnreachable` are rounded down to nothing if need be. All of it is resolved when a
rollout starts and never again: a policy edited in the middle counts from the next rollout.

    three waves of eight targets, two of them with ring=canary:
    canary {ring: canary} -> 2, early 25% of the other 6 -> 1, rest 100% -> 5
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.digest import digest_of
from reconciler.core.documents import Cluster, RolloutPolicy, WaveSpec, matches
from reconciler.core.model import FrozenPlan, Reason, Target, Wave
from reconciler.core.parse_policy import DELETES_MAX

NOT_ENFORCED = "NotYetEnforced"


@dataclass(frozen=True, slots=True)
class Change:
    """What a rollout does to one target. `change_class`, `effect` and `state` are those of the change's worst object;
    `deletes` counts what it deletes."""

    target: Target
    from_digest: str | None
    to_digest: str
    change_class: str = ""
    effect: str = ""
    state: str = ""
    deletes: int = 0


@dataclass(frozen=True, slots=True)
class Resolved:
    """The waves of a policy for some targets, empty ones included; `unmatched` targets are in none of them."""

    waves: tuple[Wave, ...]
    unmatched: tuple[Target, ...]


class UnmatchedTargetsError(ValueError):
    """Some targets are in no wave: a plan cannot be made of that."""

    def __init__(self, policy: str, targets: Sequence[Target]) -> None:
        self.targets = tuple(targets)
        super().__init__(unmatched_message(policy, targets))


def unmatched_message(policy: str, targets: Sequence[Target]) -> str:
    """The sentence that names the targets no wave takes."""
    named = ", ".join(map(str, targets[:10])) + (f" and {len(targets) - 10} more" if len(targets) > 10 else "")
    return f"no wave of the policy {policy!r} takes {named}"


def resolve(
    policy: RolloutPolicy,
    targets: Iterable[Target],
    clusters: Mapping[str, Cluster],
    application_labels: Mapping[str, Mapping[str, str]],
    first: frozenset[Target] = frozenset(),
) -> Resolved:
    """Which target is in which wave, in the order they start: those of `first` (sick before they were touched) lead
    their wave, then by cluster and application."""
    left = sorted(set(targets), key=lambda target: (target not in first, target.cluster, target.application))
    waves: list[Wave] = []
    for spec in policy.waves:
        taken = _take(spec, left, clusters, application_labels)
        gone = set(taken)
        left = [target for target in left if target not in gone]
        closed = _closed(policy, spec, taken, clusters)
        waves.append(_freeze_wave(policy, spec, taken, closed, is_first=not any(wave.targets for wave in waves)))
    return Resolved(tuple(waves), tuple(left))


def _take(
    spec: WaveSpec,
    left: list[Target],
    clusters: Mapping[str, Cluster],
    application_labels: Mapping[str, Mapping[str, str]],
) -> list[Target]:
    if spec.size is not None:
        return left[: max(1, spec.size.of(len(left)))]
    return [
        target
        for target in left
        if target.cluster in clusters
        and matches(clusters[target.cluster].labels, spec.clusters or {})
        and matches(application_labels.get(target.application, {}), spec.applications or {})
    ]


def _closed(
    policy: RolloutPolicy, spec: WaveSpec, taken: list[Target], clusters: Mapping[str, Cluster]
) -> Reason | None:
    of_clusters = {
        f"{field} of {target.cluster}"
        for target in taken
        if target.cluster in clusters
        for field in clusters[target.cluster].not_enforced
    }
    fields = [*policy.not_enforced, *spec.not_enforced, *sorted(of_clusters)]
    if not fields:
        return None
    return Reason(NOT_ENFORCED, f"the wave stays closed: this version does not enforce {', '.join(fields)}")


def _freeze_wave(
    policy: RolloutPolicy, spec: WaveSpec, taken: list[Target], closed: Reason | None, *, is_first: bool
) -> Wave:
    total = len(taken)
    if spec.max_unreachable is not None:
        max_unreachable = spec.max_unreachable.of(total)
    else:
        max_unreachable = 0 if is_first else policy.max_unreachable.of(total)
    return Wave(
        name=spec.name,
        targets=tuple(taken),
        bake_s=spec.bake_s,
        max_concurrent=max(1, spec.max_concurrent.of(total)),
        max_failures=spec.max_failures.of(total),
        max_unreachable=max_unreachable,
        closed=closed,
    )


def freeze(
    policy: RolloutPolicy,
    changes: Sequence[Change],
    clusters: Mapping[str, Cluster],
    application_labels: Mapping[str, Mapping[str, str]],
    *,
    check_interval_s: float,
    first: frozenset[Target] = frozenset(),
) -> FrozenPlan:
    """The plan of a rollout over `changes`. Empty waves are left out, and their waits with them. The same arguments
    always give the same plan. Raises UnmatchedTargetsError if a target is in no wave."""
    resolved = resolve(policy, [change.target for change in changes], clusters, application_labels, first)
    if resolved.unmatched:
        raise UnmatchedTargetsError(policy.name, resolved.unmatched)
    waves = tuple(wave for wave in resolved.waves if wave.targets)
    max_deletes = min(policy.max_deletes.of(len(changes)), DELETES_MAX)
    return FrozenPlan(
        waves=waves,
        progress_deadline_s=policy.progress_deadline_s,
        on_failure=policy.on_failure,
        mandatory=policy.mandatory,
        policy=policy.name,
        hash=plan_hash(policy, changes, waves, max_deletes),
        check_interval_s=check_interval_s,
        max_deletes=max_deletes,
    )


def plan_hash(policy: RolloutPolicy, changes: Sequence[Change], waves: Sequence[Wave], max_deletes: int) -> str:
    """What an approval is bound to: per target what it moves from and to, with class, effect, state and deletes; the
    waves, the resolved numbers and the policy. Not the commit, a time or a wording, or it would never stick."""
    targets = sorted(
        [*change.target, change.from_digest, change.to_digest, change.change_class, change.effect, change.state,
         change.deletes]
        for change in changes
    )  # fmt: skip
    numbers = [
        [wave.name, [list(target) for target in wave.targets], wave.max_concurrent, wave.max_failures,
         wave.max_unreachable, wave.closed is not None]
        for wave in waves
    ]  # fmt: skip
    return digest_of([targets, numbers, policy.digest, policy.on_failure, policy.mandatory, max_deletes], length=32)


def as_json(policy: RolloutPolicy, waves: Sequence[Wave]) -> list[dict[str, Any]]:
    """The shape `waves -o json` prints: `clusters` are those of the wave's targets."""
    approvals = {spec.name: spec.approval for spec in policy.waves}
    return [
        {
            "name": wave.name,
            "clusters": sorted({target.cluster for target in wave.targets}),
            "targets": len(wave.targets),
            "max_concurrent": wave.max_concurrent,
            "max_failures": wave.max_failures,
            "max_unreachable": wave.max_unreachable,
            "bake_s": wave.bake_s,
            "minimum_s": wave.minimum_s,
            "approval": approvals.get(wave.name),
        }
        for wave in waves
    ]
