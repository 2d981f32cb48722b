"""Compiles the applications of a fleet: only those whose inputs changed, each on its own.

What is wrong with one application blocks that one: it keeps what it had. Two applications that claim one object on one
cluster are both blocked, for nobody could tell whose it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler.core.apply_rules import DEFAULT_RULES, ApplyRules
from reconciler.core.compile import Compiled, Inputs, compile_application, compile_directory
from reconciler.core.documents import Cluster, Fleet, RolloutPolicy
from reconciler.core.fleet_candidates import Candidate, find
from reconciler.core.fleet_files import Held, ParsedFile, Selected
from reconciler.core.fleet_health import BlockedHealth, health_is_blocked
from reconciler.core.fleet_model import CompiledApplication, Entry, FleetCache, FleetSettings
from reconciler.core.health_rules import HealthPolicies
from reconciler.core.model import ObjectKey, Reason, Target
from reconciler.core.ownership import RENAMED_FROM
from reconciler.core.problems import Problem, Severity, has_errors
from reconciler.core.schema import suggest
from reconciler.core.waves import resolve, unmatched_message

_NOTHING = Compiled({}, {}, ())


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
class Changed:
    """What compiling gave."""

    applications: Mapping[str, CompiledApplication]
    entries: Mapping[str, Entry]
    claims: Mapping[ObjectKey, tuple[str, ...]]
    problems: tuple[Problem, ...]
    held_blobs: Mapping[str, str]
    compiled: int
    variants: int


def compile_applications(
    shared: Shared,
    selected: Selected,
    files: Mapping[str, ParsedFile],
    held: Mapping[str, tuple[Held, ...]],
    cache: FleetCache,
) -> Changed:
    """All applications, given the documents in force."""
    candidates, problems = find(shared.fleet, selected, files, held)
    twice = {name for name, count in Counter(candidate.name for candidate in candidates).items() if count > 1}
    served: dict[str, CompiledApplication] = {}
    entries: dict[str, Entry] = {}
    by_name: dict[str, Candidate] = {}
    compiled = variants = 0
    for found in candidates:
        candidate = _held_back_by_another(found, candidates) if found.name in twice else found
        problems += [candidate.held_back] if candidate.held_back and found.name in twice else []
        name = f"{shared.fleet.name}/{candidate.name}"
        before = cache.entries.get(name)
        entry, application = _compile_one(name, candidate, before, shared, files)
        if entry is not before and candidate.held_back is None and entry.compiled.variants_compiled:
            fresh = before is None or entry.compiled is not before.compiled
            compiled += fresh
            variants += entry.compiled.variants_compiled if fresh else 0
        served[name], entries[name], by_name[name] = application, entry, candidate
    _refuse_renames(served, entries, by_name)
    claims = _claims(entries, cache)
    _refuse_shared_objects(claims, served, entries, by_name)
    held_blobs: dict[str, str] = {}
    for name, application in served.items():
        problems += application.problems
        entry = entries[name]
        if application.blocked is not None:
            held_blobs.update((path, blob) for path, blob in entry.last_blobs if _is_other(path, blob, files))
        elif entry.last is not application:
            entries[name] = replace(entry, last=application, last_blobs=entry.key[1])
    return Changed(dict(sorted(served.items())), entries, claims, tuple(problems), held_blobs, compiled, variants)


def _is_other(path: str, blob: str, files: Mapping[str, ParsedFile]) -> bool:
    return path in files and files[path].blob != blob


def _held_back_by_another(candidate: Candidate, candidates: list[Candidate]) -> Candidate:
    others = [other.file for other in candidates if other.name == candidate.name and other is not candidate]
    says = f"a second application named {candidate.name!r}; another is in {others[0]}"
    return replace(candidate, held_back=candidate.problem("duplicate-name", says, "rename one of the two"))


def _compile_one(
    name: str, candidate: Candidate, before: Entry | None, shared: Shared, files: Mapping[str, ParsedFile]
) -> tuple[Entry, CompiledApplication]:
    last = before.last if before else None
    if candidate.held_back is not None:
        problem = candidate.held_back
        code = {"unsupported": "Unsupported", "duplicate-name": "DuplicateName"}.get(problem.code, "BrokenDocument")
        entry = before or Entry((), "", _NOTHING, {}, None)
        return entry, _blocked(name, candidate, last, _because(code, problem), candidate.problems)
    blobs = tuple((path, files[path].blob) for path in candidate.files if path in files)
    settings, default = shared.settings, shared.fleet.namespace
    rule = candidate.rule
    where: tuple[Any, ...] = () if rule is None else (rule.selection, rule.namespace, rule.create_namespace)
    key = (candidate.name, blobs, where, default, settings.catalogue.digest, settings.scope)
    same_inputs = before is not None and before.key == key
    if before is not None and same_inputs and before.clusters_key == shared.clusters_key:
        entry = before
    else:
        inputs = Inputs(name, default, settings.catalogue.traits, settings.scope, candidate.directories)
        known = before.compiled.variants if before is not None and same_inputs else {}
        if candidate.application is not None:
            compiled = compile_application(candidate.application, shared.clusters, inputs, known)
        else:
            compiled = compile_directory(candidate.plain, shared.clusters, rule, inputs)
        last_blobs = before.last_blobs if before is not None else ()
        entry = Entry(key, shared.clusters_key, compiled, claims_of(compiled), last, last_blobs)
    return entry, _serve(name, candidate, entry, shared)


def claims_of(compiled: Compiled) -> dict[ObjectKey, frozenset[str]]:
    """The objects of all releases, each with the clusters it goes to."""
    clusters: dict[str, set[str]] = {}
    for cluster, digest in compiled.by_cluster.items():
        clusters.setdefault(digest, set()).add(cluster)
    claims: dict[ObjectKey, frozenset[str]] = {}
    for digest, release in compiled.releases.items():
        for manifest in release.objects:
            key = ObjectKey.of(manifest)
            claims[key] = claims.get(key, frozenset()) | clusters.get(digest, set())
    return claims


def _serve(name: str, candidate: Candidate, entry: Entry, shared: Shared) -> CompiledApplication:
    """The application as the snapshot shows it, but for objects that others claim too."""
    policy_name = (candidate.application.rollout if candidate.application else None) or shared.fleet.rollout
    policy = shared.policies.get(policy_name)
    last = entry.last
    same = (
        last is not None
        and last.targets is entry.compiled.by_cluster
        and last.policy is policy
        and last.apply == _apply_rules(candidate, shared.fleet.name)
    )
    unjudged = health_is_blocked(shared.blocked_health, entry.claims)
    if last is not None and same and policy_name not in shared.blocked_policies and unjudged is None:
        # The same compilation was shown before, for the same clusters and under the same policy.
        return last
    problems = list(entry.compiled.problems)
    if candidate.rule is not None and not entry.compiled.by_cluster and not has_errors(problems):
        says = f"the directory {candidate.rule.path!r} has no targets: no cluster matches {candidate.rule.selection}"
        problems.append(shared.fleet.document.problem(candidate.rule.at, "no-targets", says))
    if policy_name in shared.blocked_policies:
        return _blocked(name, candidate, entry.last, shared.blocked_policies[policy_name], tuple(problems))
    if unjudged is not None:
        return _blocked(name, candidate, entry.last, unjudged, tuple(problems))
    if policy is None:
        problems.append(_unknown_policy(candidate, policy_name, shared))
    labels = candidate.application.labels if candidate.application else {}
    rules = _apply_rules(candidate, shared.fleet.name)
    if not has_errors(problems):
        problems += _idle_rules(rules, candidate, entry.compiled, shared)
    if policy is not None and not has_errors(problems):
        targets = [Target(name, cluster) for cluster in entry.compiled.by_cluster]
        unmatched = resolve(policy, targets, shared.clusters, {name: labels}).unmatched
        if unmatched:
            says = unmatched_message(policy.name, unmatched)
            problems.append(candidate.problem("unmatched-targets", says, "end the policy with a wave of size: 100%"))
    if has_errors(problems):
        error = next(problem for problem in problems if problem.severity is Severity.ERROR)
        code = "Unsupported" if error.code == "unsupported" else "Invalid"
        return _blocked(name, candidate, entry.last, _because(code, error), tuple(problems))
    application = CompiledApplication(
        name=name,
        labels=labels,
        targets=entry.compiled.by_cluster,
        releases=entry.compiled.releases,
        policy=policy,
        files=candidate.files,
        problems=tuple(problems),
        apply=rules,
    )
    return entry.last if entry.last == application else application


def _idle_rules(rules: ApplyRules, candidate: Candidate, compiled: Compiled, shared: Shared) -> list[Problem]:
    """Rules that match no object of any release: a name that was mistyped protects nothing, and nobody would notice."""
    if not rules.objects:
        return []
    keys = {ObjectKey.of(manifest) for release in compiled.releases.values() for manifest in release.objects}
    document = candidate.application.document if candidate.application is not None else shared.fleet.document
    says, hint = "the rule matches no object of the application", "compare its `match` with `reconciler render`"
    return [
        document.problem((*rule.at, "match"), "matches-nothing", says, hint, Severity.WARNING)
        for rule in rules.objects
        if keys and not any(rule.match.takes(key) for key in keys)
    ]


def _unknown_policy(candidate: Candidate, name: str, shared: Shared) -> Problem:
    says, hint = f"no rollout policy {name!r}", suggest(name, shared.policies)
    application = candidate.application
    if application is not None and application.rollout is not None:
        return application.document.problem(application.rollout_at, "unknown-policy", says, hint)
    return shared.fleet.document.problem(("spec", "defaults", "rollout"), "unknown-policy", says, hint)


def _because(code: str, problem: Problem) -> Reason:
    where = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    return Reason(code, f"{where}: {problem.message}")


def _blocked(
    name: str,
    candidate: Candidate,
    last: CompiledApplication | None,
    reason: Reason,
    problems: tuple[Problem, ...],
) -> CompiledApplication:
    labels = candidate.application.labels if candidate.application else {}
    return CompiledApplication(
        name=name,
        labels=last.labels if last else labels,
        targets=last.targets if last else {},
        releases=last.releases if last else {},
        policy=last.policy if last else None,
        files=candidate.files,
        problems=problems,
        blocked=reason,
        apply=last.apply if last else DEFAULT_RULES,
    )


def _apply_rules(candidate: Candidate, fleet: str) -> ApplyRules:
    application = candidate.application
    if application is not None:
        former = f"{fleet}/{application.renamed_from}" if application.renamed_from else ""
        return replace(application.apply, former=former)
    return candidate.rule.apply if candidate.rule is not None else DEFAULT_RULES


def _refuse_renames(
    served: dict[str, CompiledApplication], entries: Mapping[str, Entry], candidates: Mapping[str, Candidate]
) -> None:
    """Blocks, in `served`, what was renamed from an application that is still there: its objects have an owner."""
    formers = [(name, served[name].apply.former) for name in sorted(served) if served[name].apply.former in served]
    for name, former in formers:
        application = candidates[name].application
        assert application is not None, f"{name} was renamed and is no Application"
        says = f"it is renamed from {former}, which is still declared ({candidates[former].file})"
        at = ("metadata", "annotations", RENAMED_FROM)
        problem = application.document.problem(at, "invalid-value", says, "remove the annotation, or that application")
        problems = (*served[name].problems, problem)
        served[name] = _blocked(name, candidates[name], entries[name].last, _because("Invalid", problem), problems)


# ---- objects that two applications claim ---------------------------------------------------------------------------


def _claims(entries: Mapping[str, Entry], cache: FleetCache) -> Mapping[ObjectKey, tuple[str, ...]]:
    """Object -> the applications that declare it, on whatever cluster; only what changed is looked at."""
    touched = {
        name
        for name in entries.keys() | cache.entries.keys()
        if name not in entries or name not in cache.entries or entries[name].claims is not cache.entries[name].claims
    }
    if not touched:
        return cache.claims
    claims = dict(cache.claims)
    for name in sorted(touched):
        for key in cache.entries[name].claims if name in cache.entries else ():
            left = tuple(other for other in claims.get(key, ()) if other != name)
            if left:
                claims[key] = left
            else:
                claims.pop(key, None)
        for key in entries[name].claims if name in entries else ():
            claims[key] = tuple(sorted({*claims.get(key, ()), name}))
    return claims


def _refuse_shared_objects(
    claims: Mapping[ObjectKey, tuple[str, ...]],
    served: dict[str, CompiledApplication],
    entries: Mapping[str, Entry],
    candidates: Mapping[str, Candidate],
) -> None:
    """Blocks, in `served`, what claims an object of another."""
    for key in sorted(key for key, names in claims.items() if len(names) > 1):
        for name in claims[key]:
            mine = entries[name].claims[key]
            other = next((other for other in claims[key] if other != name and mine & entries[other].claims[key]), None)
            if other is not None:
                both = sorted(mine & entries[other].claims[key])
                _refuse_shared_object(key, name, other, both, served, entries, candidates)


def _refuse_shared_object(
    key: ObjectKey,
    name: str,
    other: str,
    clusters: list[str],
    served: dict[str, CompiledApplication],
    entries: Mapping[str, Entry],
    candidates: Mapping[str, Candidate],
) -> None:
    where = clusters[0] + (f" and {len(clusters) - 1} more" if len(clusters) > 1 else "")
    says = f"{key} on {where} is declared by {other} too ({candidates[other].file})"
    hint = "an object belongs to one application"
    if key.kind == "Namespace":
        hint = "let one application create the namespace, and leave createNamespace out of the others"
    problem = candidates[name].problem("claimed-twice", says, hint)
    last = entries[name].last
    application = served[name]
    if application.blocked is None:
        application = _blocked(name, candidates[name], last, _because("ClaimedTwice", problem), application.problems)
    served[name] = replace(application, problems=(*application.problems, problem))
