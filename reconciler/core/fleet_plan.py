"""The fleet plan of a change: what moving from one revision to another does, before anybody merges it.

Two compiled fleets are compared target by target. A target whose release does not change is in no wave; a policy that
changes without a target is said all the same, for it counts from the next rollout on. The same two fleets give the same
plan, and the same hash, whatever their commits are called.

    plan_of(before, after, Known(), check_interval_s=10.0).hash
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.core.change import change_of
from reconciler.core.digest import digest_of
from reconciler.core.documents import RolloutPolicy, WaveSpec
from reconciler.core.fleet_model import CompiledApplication, FleetSnapshot
from reconciler.core.formats import exact_duration
from reconciler.core.model import FrozenPlan, Manifest, ObjectKey, Release, Target
from reconciler.core.moves import moved_job, refusal
from reconciler.core.plan_diff import Group, ObjectDiff, grouped, release_diff, state_problems, summary
from reconciler.core.problems import Problem, Severity
from reconciler.core.waves import Change, UnmatchedTargetsError, as_json, freeze


@dataclass(frozen=True, slots=True)
class FleetAt:
    """A fleet as compiled at one revision, with what was odd about the tree itself."""

    sha: str
    snapshot: FleetSnapshot
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What is assigned and live, as a daemon says. Without one `assigned` is None: the first revision counts."""

    assigned: Mapping[Target, str] | None = None
    releases: Mapping[str, Release] = field(default_factory=dict)
    live: Mapping[Target, Mapping[ObjectKey, Manifest]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """One application: what moves, in which waves. `former` is the name it had, "" if it keeps its own."""

    application: str
    compiled: CompiledApplication
    changes: tuple[Change, ...]
    frozen: FrozenPlan
    former: str = ""

    @property
    def expected_s(self) -> float:
        """The least time it takes: its waves follow one another."""
        return sum(wave.minimum_s for wave in self.frozen.waves)

    def worst(self) -> tuple[str, str, str]:
        """Class, effect and state of its worst change."""
        worst = max(self.changes, key=lambda change: _SEVERITY.index((change.state == "lost", change.effect != "none")))
        return worst.change_class, worst.effect, worst.state


_SEVERITY = [(False, False), (False, True), (True, False), (True, True)]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Another rollout policy for `applications`, from their next rollout on. `changes` are lines for people."""

    before: str
    after: str
    applications: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Which policy: its name, or both names where another one is used."""
        return self.before if self.before == self.after else f"{self.before} -> {self.after}"

    def as_json(self) -> dict[str, Any]:
        """One entry of `policies` of `plan -o json`."""
        applications, changes = list(self.applications), list(self.changes)
        return {"from": self.before, "to": self.after, "applications": applications, "changes": changes}


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The fleet plan of a change."""

    before: str
    after: str
    applications: tuple[ApplicationPlan, ...]
    groups: tuple[Group, ...]
    problems: tuple[Problem, ...]
    policies: tuple[PolicyChange, ...] = ()
    live: bool = False

    @property
    def hash(self) -> str:
        """Over the plans of all applications: what an approval is bound to."""
        return digest_of([[plan.application, plan.frozen.hash] for plan in self.applications], length=32)

    @property
    def expected_s(self) -> float:
        """The least time it takes: applications roll out side by side."""
        return max((plan.expected_s for plan in self.applications), default=0.0)

    @property
    def targets(self) -> int:
        """How many targets change."""
        return sum(len(plan.changes) for plan in self.applications)

    def waves(self) -> list[dict[str, Any]]:
        """Every application's waves."""
        found: list[dict[str, Any]] = []
        for plan in self.applications:
            assert plan.compiled.policy is not None
            found += [
                {"application": plan.application, **wave} for wave in as_json(plan.compiled.policy, plan.frozen.waves)
            ]
        return found

    def as_json(self) -> dict[str, Any]:
        """The shape of `plan -o json`."""
        return {
            "hash": self.hash,
            "from": self.before,
            "to": self.after,
            "applications": [plan.application for plan in self.applications],
            "changes": [_change_json(plan) for plan in self.applications],
            "waves": self.waves(),
            "groups": [group.as_json() for group in self.groups],
            "policies": [change.as_json() for change in self.policies],
            "summary": summary(self.groups),
            "problems": [problem.as_json() for problem in self.problems],
            "expected_s": self.expected_s,
            "live": self.live,
        }


def _change_json(plan: ApplicationPlan) -> dict[str, Any]:
    change_class, effect, state = plan.worst()
    return {
        "application": plan.application,
        "renamed_from": plan.former or None,
        "targets": len(plan.changes),
        "new": sum(change.from_digest is None for change in plan.changes),
        "class": change_class or None,
        "effect": effect,
        "state": state,
        "deletes": sum(change.deletes for change in plan.changes),
        "policy": plan.frozen.policy,
        "hash": plan.frozen.hash,
        "expected_s": plan.expected_s,
    }


# ---- the plan ------------------------------------------------------------------------------------------------------


def plan_of(before: FleetAt, after: FleetAt, known: Known, *, check_interval_s: float) -> FleetPlan:
    """Compare two compiled fleets, target by target."""
    plans: list[ApplicationPlan] = []
    diffs: dict[Target, tuple[ObjectDiff, ...]] = {}
    problems = [*after.problems, *after.snapshot.problems]
    formers = _formers(before.snapshot, after.snapshot)
    for name, compiled in sorted(after.snapshot.applications.items()):
        former = formers.get(name, name)
        old = before.snapshot.applications.get(former)
        moves = _moves(name, former, compiled, old, known)
        if not moves or compiled.policy is None:
            continue
        problems += _refused_moves(compiled, moves)
        diffs.update(_diffs(moves, known))
        changes = tuple(change_of(target, was, becomes) for target, (was, becomes) in moves.items())
        try:
            frozen = freeze(
                compiled.policy,
                changes,
                after.snapshot.clusters,
                {name: compiled.labels},
                check_interval_s=check_interval_s,
            )
        except UnmatchedTargetsError as error:
            hint = "end the policy with a wave of size: 100%"
            problems.append(Problem(compiled.policy.file, 0, 0, Severity.ERROR, "unmatched-targets", str(error), hint))
            continue
        plans.append(ApplicationPlan(name, compiled, changes, frozen, formers.get(name, "")))
    files = {name: application.files[0] for name, application in after.snapshot.applications.items()}
    problems += state_problems(diffs, files)
    problems += _left_behind(before.snapshot, after.snapshot, set(formers.values()))
    policies = policy_changes(before.snapshot, after.snapshot)
    live = known.assigned is not None
    return FleetPlan(before.sha, after.sha, tuple(plans), grouped(diffs), tuple(sorted(set(problems))), policies, live)


Moves = dict[Target, tuple[Release | None, Release]]


def _formers(before: FleetSnapshot, after: FleetSnapshot) -> dict[str, str]:
    """Applications that were renamed by this change, with the name that each had."""
    return {
        name: compiled.apply.former
        for name, compiled in after.applications.items()
        if compiled.apply.former in before.applications
        and compiled.apply.former not in after.applications
        and name not in before.applications
    }


def _refused_moves(compiled: CompiledApplication, moves: Moves) -> list[Problem]:
    """Jobs that would change their namespace: those targets keep what they have."""
    found = {moved_job(was.objects, becomes.objects) for was, becomes in moves.values() if was is not None}
    return [
        Problem(compiled.files[0], 0, 0, Severity.ERROR, "stateful-move", refusal(moved))
        for moved in sorted(found - {""})
    ]


def _moves(
    name: str, former: str, compiled: CompiledApplication, old: CompiledApplication | None, known: Known
) -> Moves:
    """The targets whose release changes, with the release before (None: nothing there yet) and after. `former` is the
    name that the application had, its own if it was not renamed."""
    moves: Moves = {}
    for cluster, digest in sorted(compiled.targets.items()):
        target = Target(name, cluster)
        if known.assigned is not None:
            was = known.assigned.get(target) or known.assigned.get(Target(former, cluster))
        else:
            was = old.targets.get(cluster) if old is not None else None
        if was == digest:
            continue
        earlier = None
        if was is not None:
            earlier = old.releases.get(was) if old is not None else None
            earlier = earlier or known.releases.get(was)
        moves[target] = (earlier, compiled.releases[digest])
    return moves


def _diffs(moves: Moves, known: Known) -> dict[Target, tuple[ObjectDiff, ...]]:
    """Each pair of releases is compared once, however many clusters have it; but each job's own status counts."""
    cache: dict[tuple[str | None, str], tuple[ObjectDiff, ...]] = {}
    found: dict[Target, tuple[ObjectDiff, ...]] = {}
    for target, (was, becomes) in moves.items():
        old = was.objects if was is not None else ()
        if target in known.live:
            found[target] = release_diff(old, becomes.objects, target=target, live=known.live[target])
            continue
        pair = (was.digest if was is not None else None, becomes.digest)
        if pair not in cache:
            cache[pair] = release_diff(old, becomes.objects, target=target)
        found[target] = tuple(replace(part, cluster=target.cluster) for part in cache[pair])
    return found


def _left_behind(before: FleetSnapshot, after: FleetSnapshot, renamed: set[str]) -> list[Problem]:
    """Targets that are no longer declared: their objects are kept, which whoever removes them should know."""
    found: list[Problem] = []
    for name, old in sorted(before.applications.items()):
        if name in renamed:
            continue
        new = after.applications.get(name)
        if new is not None and new.blocked is not None:
            continue
        gone = sorted(old.targets.keys() - (new.targets.keys() if new is not None else set()))
        if gone:
            where = gone[0] if len(gone) == 1 else f"{len(gone)} clusters"
            message = f"{name} leaves {where}: its objects there are kept, and nobody looks after them any more"
            hint = "deleting them is not done by this version: delete them by hand once nobody needs them"
            found.append(Problem(old.files[0], 0, 0, Severity.WARNING, "orphaned", message, hint))
    return found


# ---- policies ------------------------------------------------------------------------------------------------------


def policy_changes(before: FleetSnapshot, after: FleetSnapshot) -> tuple[PolicyChange, ...]:
    """Applications that stay and are to roll out differently from now on, those with the same change together."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for name, new in sorted(after.applications.items()):
        old = before.applications.get(name)
        if old is None or old.policy is None or new.policy is None:
            continue
        changes = _lines(_settings_of(old.policy), _settings_of(new.policy))
        if changes or old.policy.name != new.policy.name:
            found.setdefault((old.policy.name, new.policy.name, changes), []).append(name)
    return tuple(PolicyChange(was, becomes, tuple(names), changes) for (was, becomes, changes), names in found.items())


def _lines(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    lines = []
    for name in [*new, *(name for name in old if name not in new)]:
        was, becomes = old.get(name), new.get(name)
        if was is None:
            lines.append(f"+ {name}: {becomes}")
        elif becomes is None:
            lines.append(f"- {name}: {was}")
        elif was != becomes:
            lines.append(f"~ {name}: {was} -> {becomes}")
    return tuple(lines)


def _settings_of(policy: RolloutPolicy) -> dict[str, str]:
    """What a policy says, by the names that its document uses, with defaults filled in."""
    found = {"waves": ", ".join(wave.name for wave in policy.waves)}
    for wave in policy.waves:
        found |= {f"waves[name={wave.name}].{name}": value for name, value in _settings_of_wave(wave).items()}
    return found | {
        "progressDeadline": exact_duration(policy.progress_deadline_s),
        "onFailure": policy.on_failure,
        "mandatory": str(policy.mandatory).lower(),
        "maxUnreachable": str(policy.max_unreachable),
        "maxDeletes": str(policy.max_deletes),
        **({"not enforced yet": ", ".join(policy.not_enforced)} if policy.not_enforced else {}),
    }


def _settings_of_wave(wave: WaveSpec) -> dict[str, str]:
    select = {"clusters": wave.clusters, "applications": wave.applications}
    taken = {
        f"select.{what}": ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
        for what, labels in select.items()
        if labels
    }
    optional = {"size": wave.size, "maxUnreachable": wave.max_unreachable, "approval": wave.approval}
    return {
        **taken,
        "bake": exact_duration(wave.bake_s),
        "maxConcurrent": str(wave.max_concurrent),
        "maxFailures": str(wave.max_failures),
        **{name: str(value) for name, value in optional.items() if value is not None},
        **({"not enforced yet": ", ".join(wave.not_enforced)} if wave.not_enforced else {}),
    }
