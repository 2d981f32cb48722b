"""Compiles the applications of a fleet: only those whose inputs changed, each on its own.

What is wrong with one application blocks that one: it keeps what it had. Two applications that claim one object on one
cluster are both blocked, for nobody could tell whose it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler.core.apply_rules import DEFAULT_RULES, ApplyRules
from reconciler.core.compile import NO_RELEASES, Compiled, Inputs, Variant, compile_application, compile_directory
from reconciler.core.fleet_candidates import Candidate
from reconciler.core.fleet_claims import blocked, claims_after, refuse_shared_objects
from reconciler.core.fleet_files import ParsedFile
from reconciler.core.fleet_health import health_is_blocked
from reconciler.core.fleet_held import HeldApplication
from reconciler.core.fleet_model import CompiledApplication, Entry, FleetCache, Index, Shared
from reconciler.core.model import ObjectKey, Reason, Release, Target
from reconciler.core.ownership import RENAMED_FROM
from reconciler.core.problems import Problem, Severity, has_errors
from reconciler.core.schema import suggest
from reconciler.core.waves import resolve, unmatched_message

_NOTHING = Compiled({}, NO_RELEASES, ())


@dataclass(frozen=True, slots=True)
class Changed:
    """What compiling gave. `concerned` are applications that another one's change may concern: those that claim an
    object of its, or were renamed from it."""

    applications: Mapping[str, CompiledApplication]
    entries: Mapping[str, Entry]
    claims: Mapping[ObjectKey, tuple[str, ...]]
    contested: frozenset[ObjectKey]
    index: Index
    held_back: Mapping[str, HeldApplication]
    concerned: frozenset[str]
    compiled: int
    variants: int


def hold_back_duplicates(candidates: list[Candidate]) -> tuple[list[Candidate], list[Problem]]:
    """`candidates`, with those held back whose name another one has, and why."""
    twice = {name for name, count in Counter(candidate.name for candidate in candidates).items() if count > 1}
    if not twice:
        return candidates, []
    found = [_held_back_by_another(each, candidates) if each.name in twice else each for each in candidates]
    return found, [each.held_back for each in found if each.name in twice and each.held_back]


def compile_applications(
    shared: Shared,
    files: Mapping[str, ParsedFile],
    candidates: list[Candidate],
    gone: Collection[str],
    served: Mapping[str, CompiledApplication],
    index: Index,
    cache: FleetCache,
) -> Changed:
    """The applications that `candidates` are, and without those that are `gone`; all others stay as they are in
    `served`, to which `index` belongs. With nothing served that is the whole fleet."""
    fresh: dict[str, CompiledApplication] = {}
    entries = dict(cache.entries)
    by_name: dict[str, Candidate] = {}
    where, formers = dict(index.files), dict(index.formers)
    for name in gone:
        entries.pop(name, None)
        where.pop(name, None)
        formers.pop(name, None)
    compiled = variants = 0
    for candidate in candidates:
        name = f"{shared.fleet.name}/{candidate.name}"
        before = cache.entries.get(name)
        entry, application = compile_one(name, candidate, before, shared, files)
        if entry is not before and candidate.held_back is None and entry.compiled.variants_compiled:
            anew = before is None or entry.compiled is not before.compiled
            compiled += anew
            variants += entry.compiled.variants_compiled if anew else 0
        fresh[name], entries[name], by_name[name], where[name] = application, entry, candidate, candidate.file
        formers.pop(name, None)
        if application.apply.former:
            formers[name] = application.apply.former
    _refuse_renames(fresh, where, entries, by_name)
    touched = fresh.keys() | set(gone)
    claims, keys = claims_after(touched, entries, cache)
    contested = frozenset(key for key in cache.contested | keys if len(claims.get(key, ())) > 1)
    refuse_shared_objects(claims, contested, fresh, entries, by_name, where)
    for name, application in fresh.items():
        entry = entries[name]
        if application.blocked is None and (entry.last is not application or entry.last_blobs != entry.blobs):
            entries[name] = replace(entry, last=application, last_blobs=entry.blobs)
    applications = {**served, **fresh}
    for name in gone:
        applications.pop(name, None)
    if applications.keys() != served.keys():
        applications = dict(sorted(applications.items()))
    after = Index(
        where,
        formers,
        (index.blocked - touched) | {name for name, each in fresh.items() if each.blocked is not None},
        (index.flawed - touched) | {name for name, each in fresh.items() if each.problems},
    )
    blocked_ones = ((name, entries[name]) for name in sorted(after.blocked))
    held_back = {
        name: HeldApplication(entry.last_blobs, entry.blobs)
        for name, entry in blocked_ones
        if entry.last_blobs or entry.blobs
    }
    moved = {name for name in touched if where.get(name) != index.files.get(name)}
    of_moved = [key for name in moved for key in (entries[name].compiled.claims if name in entries else ())]
    concerned = {name for key in (*keys, *of_moved) for name in claims.get(key, ())}
    concerned |= {name for name, former in formers.items() if former in moved}
    counts = compiled, variants
    return Changed(applications, entries, claims, contested, after, held_back, frozenset(concerned), *counts)


def _held_back_by_another(candidate: Candidate, candidates: list[Candidate]) -> Candidate:
    others = [other.file for other in candidates if other.name == candidate.name and other is not candidate]
    says = f"a second application named {candidate.name!r}; another is in {others[0]}"
    return replace(candidate, held_back=candidate.problem("duplicate-name", says, "rename one of the two"))


def compile_one(
    name: str, candidate: Candidate, before: Entry | None, shared: Shared, files: Mapping[str, ParsedFile]
) -> tuple[Entry, CompiledApplication]:
    """One application, whatever others there are: what is kept of it, and what the snapshot shows."""
    last = before.last if before else None
    if candidate.held_back is not None:
        problem = candidate.held_back
        code = {"unsupported": "Unsupported", "duplicate-name": "DuplicateName"}.get(problem.code, "BrokenDocument")
        entry = before or Entry((), "", _NOTHING, None)
        return entry, blocked(name, candidate, last, _because(code, problem), candidate.problems)
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
        known = _known(before.compiled) if before is not None and same_inputs else {}
        if candidate.application is not None:
            compiled = compile_application(candidate.application, shared.clusters, inputs, known)
        else:
            compiled = compile_directory(candidate.plain, shared.clusters, rule, inputs)
        last_blobs = before.last_blobs if before is not None else ()
        entry = Entry(key, shared.clusters_key, compiled, last, last_blobs)
    return entry, _serve(name, candidate, entry, shared)


def _known(compiled: Compiled) -> dict[Variant, Release]:
    return {variant: compiled.releases[digest] for variant, digest in compiled.variants.items()}


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
    unjudged = health_is_blocked(shared.blocked_health, entry.compiled.claims)
    if last is not None and same and policy_name not in shared.blocked_policies and unjudged is None:
        # The same compilation was shown before, for the same clusters and under the same policy.
        return last
    problems = list(entry.compiled.problems)
    if candidate.rule is not None and not entry.compiled.by_cluster and not has_errors(problems):
        says = f"the directory {candidate.rule.path!r} has no targets: no cluster matches {candidate.rule.selection}"
        problems.append(shared.fleet.document.problem(candidate.rule.at, "no-targets", says))
    if policy_name in shared.blocked_policies:
        return blocked(name, candidate, entry.last, shared.blocked_policies[policy_name], tuple(problems))
    if unjudged is not None:
        return blocked(name, candidate, entry.last, unjudged, tuple(problems))
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
        return blocked(name, candidate, entry.last, _because(code, error), tuple(problems))
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
    keys = compiled.claims.keys()
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


def _apply_rules(candidate: Candidate, fleet: str) -> ApplyRules:
    application = candidate.application
    if application is not None:
        former = f"{fleet}/{application.renamed_from}" if application.renamed_from else ""
        return application.apply if application.apply.former == former else replace(application.apply, former=former)
    return candidate.rule.apply if candidate.rule is not None else DEFAULT_RULES


def _refuse_renames(
    served: dict[str, CompiledApplication],
    files: Mapping[str, str],
    entries: Mapping[str, Entry],
    candidates: Mapping[str, Candidate],
) -> None:
    """Blocks, in `served`, what was renamed from an application that is still there (`files` names all that are, each
    with its file): its objects have an owner."""
    formers = [(name, served[name].apply.former) for name in sorted(served) if served[name].apply.former in files]
    for name, former in formers:
        application = candidates[name].application
        if application is None:
            continue  # it is held back at its last good version, and blocked already
        says = f"it is renamed from {former}, which is still declared ({files[former]})"
        at = ("metadata", "annotations", RENAMED_FROM)
        problem = application.document.problem(at, "invalid-value", says, "remove the annotation, or that application")
        problems = (*served[name].problems, problem)
        served[name] = blocked(name, candidates[name], entries[name].last, _because("Invalid", problem), problems)
