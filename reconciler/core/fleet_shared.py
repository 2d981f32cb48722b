"""What all applications of a fleet have in common: its clusters and policies, of which each has a name of its own.

A second document of a name says nothing: the first one, in the order of files, stays in force, and what would depend on
either waits until one of them is renamed.
"""

from __future__ import annotations

from reconciler.core.digest import digest_of
from reconciler.core.documents import Cluster, Fleet, Parsed, RolloutPolicy
from reconciler.core.fleet_files import Selected, broken_documents
from reconciler.core.fleet_health import policies_in_force
from reconciler.core.fleet_model import FleetSettings, Reading, Shared
from reconciler.core.model import Reason
from reconciler.core.problems import Problem


def shared_of(fleet: Fleet, selected: Selected, reading: Reading, settings: FleetSettings) -> Shared:
    """The clusters and policies in force, and what is wrong between their documents."""
    problems: list[Problem] = []
    clusters: dict[str, Cluster] = {}
    blocked_clusters: dict[str, Reason] = {}
    policies = dict(settings.catalogue.policies)
    own: set[str] = set()
    blocked_policies: dict[str, Reason] = {}
    for path in sorted(reading.held):
        for entry in reading.held[path]:
            value = entry.parsed.value
            if isinstance(value, Cluster):
                if value.name in clusters:
                    problems.append(_duplicate(entry.parsed, clusters[value.name].file))
                    blocked_clusters[value.name] = _because("DuplicateDocument", problems[-1])
                    continue
                clusters[value.name] = value
                if entry.broken:
                    blocked_clusters[value.name] = _because("BrokenDocument", entry.broken)
            elif isinstance(value, RolloutPolicy):
                if value.name in own:
                    problems.append(_duplicate(entry.parsed, policies[value.name].file))
                    blocked_policies[value.name] = _because("DuplicateDocument", problems[-1])
                    continue
                own.add(value.name)
                policies[value.name] = value
                if entry.broken:
                    blocked_policies[value.name] = _because("BrokenDocument", entry.broken)
        for parsed, problem in broken_documents(reading.files[path]) if path in reading.files else ():
            # Broken from the start: a shipped policy of that name must not step in for it.
            if parsed.kind == "RolloutPolicy" and parsed.name:
                blocked_policies.setdefault(parsed.name, _because("BrokenDocument", problem))
    health, blocked_health, of_health = policies_in_force(
        reading.held, reading.files, settings.catalogue.health_policies
    )
    problems += of_health
    labels = {name: [sorted(cluster.labels.items()), list(cluster.not_enforced)] for name, cluster in clusters.items()}
    unmatched = [rule for rule in fleet.directories if not any(_below(path, rule.path) for path in selected.paths)]
    for rule in unmatched:
        says = f"{rule.path!r} matches no file"
        problems.append(fleet.document.problem((*rule.at, "path"), "path-matches-nothing", says, "remove the rule"))
    return Shared(
        fleet=fleet,
        clusters=clusters,
        clusters_key=digest_of(labels),
        blocked_clusters=blocked_clusters,
        policies=policies,
        blocked_policies=blocked_policies,
        health=health,
        blocked_health=blocked_health,
        settings=settings,
        problems=tuple(problems),
        unmatched_directories=bool(unmatched),
    )


def _below(path: str, directory: str) -> bool:
    return path.startswith(directory + "/")


def _duplicate(parsed: Parsed, other_file: str) -> Problem:
    says = f"a second {parsed.kind} named {parsed.name!r}; the first is in {other_file}"
    return parsed.document.problem(("metadata", "name"), "duplicate-name", says, "rename one of the two")


def _because(code: str, problem: Problem) -> Reason:
    return Reason(code, f"{problem.file}:{problem.line}:{problem.column}: {problem.message}")
