"""The health policies in force for a fleet, and which applications wait for one that is broken.

A fleet's own policy takes the place of a shipped one of its name. A broken document keeps its last good version in
force; nothing new goes out that it is to judge, for what is judged by another rule than its author means may bake
although it does not work. Which objects it is about is read from what can be read of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.fleet_files import Held, ParsedFile, broken_documents
from reconciler.core.health_rules import POLICIES_MAX, HealthMatch, HealthPolicies, HealthPolicy
from reconciler.core.model import ObjectKey, Reason
from reconciler.core.parse_health import matches_of
from reconciler.core.problems import Problem


@dataclass(frozen=True, slots=True)
class BlockedHealth:
    """A policy that cannot be used as it stands: what it may be about (None: anything), and why."""

    matches: tuple[HealthMatch, ...] | None
    reason: Reason

    def concerns(self, key: ObjectKey) -> bool:
        """True if the policy may be about the object; its labels are not asked for."""
        if self.matches is None:
            return True
        return any(
            (match.group, match.kind) == (key.group, key.kind) and match.name in (None, key.name)
            for match in self.matches
        )


def health_is_blocked(blocked: tuple[BlockedHealth, ...], keys: Iterable[ObjectKey]) -> Reason | None:
    """Why an application with these objects gets nothing new; None if it may."""
    if not blocked:
        return None
    found = list(keys)
    return next((each.reason for each in blocked if any(each.concerns(key) for key in found)), None)


def policies_in_force(
    held: Mapping[str, tuple[Held, ...]], files: Mapping[str, ParsedFile], shipped: Mapping[str, HealthPolicy]
) -> tuple[HealthPolicies, tuple[BlockedHealth, ...], list[Problem]]:
    """The policies, those that block, and what is wrong between documents."""
    own: dict[str, HealthPolicy] = {}
    blocked: list[BlockedHealth] = []
    problems: list[Problem] = []
    refused: set[str] = set()
    for path in sorted(held):
        for entry in held[path]:
            value = entry.parsed.value
            if not isinstance(value, HealthPolicy):
                continue
            problem = entry.broken
            if value.name in own or len(own) >= POLICIES_MAX:
                problem = _one_too_many(entry, own)
                problems.append(problem)
            else:
                own[value.name] = value
            if problem is not None:
                code = "BrokenDocument" if problem is entry.broken else "DuplicateDocument"
                blocked.append(BlockedHealth(value.match, _because(code, problem)))
        for parsed, problem in broken_documents(files[path]) if path in files else ():
            if parsed.kind == "HealthPolicy":
                refused.add(parsed.name)
                blocked.append(BlockedHealth(matches_of(parsed.document), _because("BrokenDocument", problem)))
    # Broken from the start: a shipped policy of that name does not step in for what the fleet meant.
    others = {name: policy for name, policy in shipped.items() if name not in refused}
    return HealthPolicies.of({**others, **own}.values()), tuple(blocked), problems


def _one_too_many(entry: Held, own: Mapping[str, HealthPolicy]) -> Problem:
    first = own.get(entry.parsed.name)
    if first is not None:
        says = f"a second HealthPolicy named {entry.parsed.name!r}; the first is in {first.file}"
        return entry.parsed.document.problem(("metadata", "name"), "duplicate-name", says, "rename one of the two")
    says = f"a fleet may have {POLICIES_MAX} health policies, and this is one more"
    return entry.parsed.document.problem((), "too-many", says, "one policy may match many kinds")


def _because(code: str, problem: Problem) -> Reason:
    return Reason(code, f"{problem.file}:{problem.line}:{problem.column}: {problem.message}")
