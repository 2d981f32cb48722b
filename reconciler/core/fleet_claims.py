"""Which application declares which object, and on which clusters; one that two declare is nobody's, and blocks both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from reconciler.core.apply_rules import DEFAULT_RULES
from reconciler.core.compile import NO_RELEASES
from reconciler.core.fleet_candidates import Candidate
from reconciler.core.fleet_model import CompiledApplication, Entry, FleetCache
from reconciler.core.model import ObjectKey, Reason
from reconciler.core.problems import Problem

_NO_CLAIMS: Mapping[ObjectKey, frozenset[str]] = {}


def blocked(
    name: str,
    candidate: Candidate,
    last: CompiledApplication | None,
    reason: Reason,
    problems: tuple[Problem, ...],
) -> CompiledApplication:
    """The application as it was last when it was not blocked, and why this commit changes nothing of it."""
    labels = candidate.application.labels if candidate.application else {}
    return CompiledApplication(
        name=name,
        labels=last.labels if last else labels,
        targets=last.targets if last else {},
        releases=last.releases if last else NO_RELEASES,
        policy=last.policy if last else None,
        files=candidate.files,
        problems=problems,
        blocked=reason,
        apply=last.apply if last else DEFAULT_RULES,
    )


def claims_after(
    touched: Collection[str], entries: Mapping[str, Entry], cache: FleetCache
) -> tuple[Mapping[ObjectKey, tuple[str, ...]], set[ObjectKey]]:
    """Object -> the applications that declare it, on whatever cluster, once those of `touched` are as in `entries`; and
    the objects looked at, which are those that they declare or did."""
    keys: set[ObjectKey] = set()
    claims = dict(cache.claims)
    for name in sorted(touched):
        before = cache.entries[name].compiled.claims if name in cache.entries else _NO_CLAIMS
        after = entries[name].compiled.claims if name in entries else _NO_CLAIMS
        if before is after:
            continue
        keys.update(before, after)
        for key in before:
            left = tuple(other for other in claims.get(key, ()) if other != name)
            if left:
                claims[key] = left
            else:
                claims.pop(key, None)
        for key in after:
            claims[key] = tuple(sorted({*claims.get(key, ()), name}))
    return (claims if keys else cache.claims), keys


def refuse_shared_objects(
    claims: Mapping[ObjectKey, tuple[str, ...]],
    contested: Collection[ObjectKey],
    served: dict[str, CompiledApplication],
    entries: Mapping[str, Entry],
    candidates: Mapping[str, Candidate],
    files: Mapping[str, str],
) -> None:
    """Blocks, in `served`, what claims one of the `contested` objects together with another; `files` names the file of
    every application."""
    for key in sorted(contested):
        for name in claims[key]:
            if name not in served:
                continue
            mine = entries[name].compiled.claims[key]
            shared = {other: mine & entries[other].compiled.claims[key] for other in claims[key] if other != name}
            other = next((other for other, clusters in shared.items() if clusters), None)
            if other is not None:
                where = f"{other} too ({files[other]})"
                _refuse_shared_object(key, name, where, sorted(shared[other]), served, entries, candidates)


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
    says = f"{key} on {where} is declared by {other}"
    hint = "an object belongs to one application"
    if key.kind == "Namespace":
        hint = "let one application create the namespace, and leave createNamespace out of the others"
    problem = candidates[name].problem("claimed-twice", says, hint)
    last = entries[name].last
    application = served[name]
    if application.blocked is None:
        application = blocked(name, candidates[name], last, _because("ClaimedTwice", problem), application.problems)
    served[name] = replace(application, problems=(*application.problems, problem))


def _because(code: str, problem: Problem) -> Reason:
    where = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    return Reason(code, f"{where}: {problem.message}")
