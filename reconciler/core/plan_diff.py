"""What a change does, object by object and target by target, before anything is done.

Two releases of one target are compared as declared: nothing live is asked, so everything declared counts, additions and
removals alike. Equal diffs over many targets are one group, for nobody reads a thousand of them.

    [Group(diff of 980 targets), Group(diff of 20 targets)]    # "980 targets the same, 20 differ"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.built_in_defaults import merge_key, with_defaults
from reconciler.core.diff_walk import Finding, Item, Kind, Place
from reconciler.core.digest import canonical_json
from reconciler.core.explain_diff import Change, change_of
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.flink_effect import Effect, FlinkEffect, State, flink_effect
from reconciler.core.health_common import map_at
from reconciler.core.managed_fields import IDENTITY, METADATA_IDENTITY
from reconciler.core.model import Manifest, ObjectKey, Target
from reconciler.core.order import order_key
from reconciler.core.problems import Problem, Severity
from reconciler.core.values import clean_text, strictly_equal

#: The class of a change in which every value stays: one apply, which disturbs nothing.
OWNERSHIP_CLASS = "ownership"
NO_EFFECT = FlinkEffect(None, Effect.NONE, State.NONE)


@dataclass(frozen=True, slots=True)
class ObjectDiff:
    """One object's difference. `action` is create, update, delete or none; `verdict` equal, differs, predicted or
    not-judgeable; `conflicts` names managers whose fields would be taken. With `ownership` every value is right and
    only the record of who owns what would change. `message` says why it was judged so, where that is worth saying."""

    key: ObjectKey
    api_version: str
    application: str
    cluster: str
    action: str
    verdict: str
    effect: FlinkEffect = NO_EFFECT
    changes: tuple[Change, ...] = ()
    conflicts: tuple[str, ...] = ()
    ownership: bool = False
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """One entry of `diff -o json`."""
        return {
            "apiVersion": self.api_version,
            "kind": self.key.kind,
            "namespace": self.key.namespace,
            "name": self.key.name,
            "application": self.application,
            "cluster": self.cluster,
            "action": self.action,
            "verdict": self.verdict,
            **self.effect.as_json(),
            **({"class": OWNERSHIP_CLASS} if self.ownership else {}),
            "message": self.message,
            "conflicts": list(self.conflicts),
            "changes": [change.as_json() for change in self.changes],
        }

    def lines(self) -> Iterator[str]:
        """For people: what happens, what it does to the job, and each path."""
        where = f" on {self.cluster}" if self.cluster else ""
        yield f"{_MARKS[self.action]} {self.action:<6} {clean_text(str(self.key))}{where}{_words(self.effect)}"
        for reason in self.effect.reasons:
            yield f"    {clean_text(reason)}"
        for change in self.changes:
            yield f"    {change}"


_MARKS = {"create": "+", "update": "~", "delete": "-", "none": " "}


def _words(effect: FlinkEffect) -> str:
    if effect.change_class is None and effect.state is State.NONE:
        return ""
    state = {State.NONE: "", State.KEPT: ", state is kept", State.LOST: ", STATE IS LOST"}[effect.state]
    return f"  [{effect.change_class or 'delete'}: {effect.effect}{state}]"


# ---- two releases of one target ----------------------------------------------------------------------------------


def release_diff(
    before: Sequence[Manifest],
    after: Sequence[Manifest],
    *,
    target: Target | None = None,
    live: Mapping[ObjectKey, Manifest] | None = None,
) -> tuple[ObjectDiff, ...]:
    """Every object that differs between two releases of `target`, in apply order, deletions last and in reverse.
    `live` gives the jobs' status where it is known: a finished job runs again."""
    old = {ObjectKey.of(manifest): manifest for manifest in before}
    new = {ObjectKey.of(manifest): manifest for manifest in after}
    found: list[ObjectDiff] = []
    for manifest in sorted(after, key=order_key):
        key = ObjectKey.of(manifest)
        if key not in old:
            found.append(_object_diff(key, None, manifest, target, live))
        elif not strictly_equal(old[key], manifest):
            found.append(_object_diff(key, old[key], manifest, target, live))
    dropped = [each for each in sorted(before, key=order_key, reverse=True) if ObjectKey.of(each) not in new]
    return (*found, *(_object_diff(ObjectKey.of(each), each, None, target, live) for each in dropped))


def _object_diff(
    key: ObjectKey,
    old: Manifest | None,
    new: Manifest | None,
    target: Target | None,
    live: Mapping[ObjectKey, Manifest] | None,
) -> ObjectDiff:
    shown = new or old or {}
    action = "create" if old is None else "delete" if new is None else "update"
    changes = declared_changes(old, new) if old is not None and new is not None else ()
    effect = manifest_effect(old, new, (live or {}).get(key))
    application, cluster = target if target is not None else ("", "")
    version = str(shown.get("apiVersion", ""))
    return ObjectDiff(key, version, application, cluster, action, "differs", effect, changes)


def manifest_effect(old: Manifest | None, new: Manifest | None, live: Manifest | None = None) -> FlinkEffect:
    """The effect on a Flink job of moving from manifest `old` to `new`; no effect for other kinds."""
    shown = new or old
    if shown is None or not is_flink(shown):
        return NO_EFFECT
    specs = [None if manifest is None else map_at(manifest, "spec") for manifest in (old, new)]
    return flink_effect(specs[0], specs[1], None if live is None else map_at(live, "status"))


def declared_changes(old: Manifest, new: Manifest) -> tuple[Change, ...]:
    """Every difference between two declared manifests, additions and removals alike."""
    findings: list[Finding] = []
    _compare_maps((), old, new, is_flink(new), findings)
    return tuple(change_of(new, finding) for finding in findings)


def changed_by(live: Manifest, after: Manifest) -> tuple[Change, ...]:
    """What a write changes or, `after` being the answer to a dry-run, would; () if that is only who owns what."""
    parts = [{name: value for name, value in manifest.items() if name != "status"} for manifest in (live, after)]
    try:
        return declared_changes(*parts)
    except RecursionError:
        return ()


_CONFIGURATION: Place = ("spec", "flinkConfiguration")


def _compare(place: Place, old: Any, new: Any, flink: bool, findings: list[Finding]) -> None:
    if flink and place == _CONFIGURATION:
        old, new = flatten(old), flatten(new)
    if isinstance(old, dict) and isinstance(new, dict):
        _compare_maps(place, old, new, flink, findings)
        return
    if isinstance(old, list) and isinstance(new, list) and _compared_by_key(place, old, new, flink, findings):
        return
    if not strictly_equal(old, new):
        findings.append(Finding(Kind.VALUE, place, "another value", "replace", old, new))


def _compare_maps(place: Place, old: Manifest, new: Manifest, flink: bool, findings: list[Finding]) -> None:
    for name in sorted(old.keys() | new.keys()):
        below = (*place, name)
        if (not place and name in IDENTITY and name != "apiVersion") or _is_identity(place, name):
            continue
        if name not in old:
            findings.append(Finding(Kind.VALUE, below, "not there before", "add", None, new[name]))
        elif name not in new:
            findings.append(Finding(Kind.VALUE, below, "no longer declared", "remove", old[name]))
        else:
            _compare(below, old[name], new[name], flink, findings)


def _is_identity(place: Place, name: str) -> bool:
    return place == ("metadata",) and name in METADATA_IDENTITY


def _compared_by_key(place: Place, old: list[Any], new: list[Any], flink: bool, findings: list[Finding]) -> bool:
    """Compare two lists item by item where a key tells the items apart; False where none does."""
    keys = merge_key(place, old, new)
    if keys is None:
        return False
    before = {tuple(with_defaults(item, keys).values()): item for item in old}
    after = {tuple(with_defaults(item, keys).values()): item for item in new}
    for index, (key, item) in enumerate(after.items()):
        below = (*place, Item(index, _label(keys, item)))
        if key in before:
            _compare(below, before[key], item, flink, findings)
        else:
            findings.append(Finding(Kind.VALUE, below, "not there before", "add", None, item))
    for index, (key, item) in enumerate(before.items()):
        if key not in after:
            below = (*place, Item(index, _label(keys, item)))
            findings.append(Finding(Kind.VALUE, below, "no longer declared", "remove", item))
    if list(after) != [key for key in before if key in after] + [key for key in after if key not in before]:
        findings.append(Finding(Kind.VALUE, place, "another order", "replace", old, new))
    return True


def _label(keys: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={item[name]}" for name in keys if name in item)


# ---- many targets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Targets whose diff is the same, but for the cluster it is on."""

    diff: tuple[ObjectDiff, ...]
    targets: tuple[Target, ...]

    def as_json(self) -> dict[str, Any]:
        """One entry of `groups` of `plan -o json`; the diff is that of the first target."""
        return {"diff": [part.as_json() for part in self.diff], "targets": [list(target) for target in self.targets]}


def grouped(diffs: Mapping[Target, tuple[ObjectDiff, ...]]) -> tuple[Group, ...]:
    """`diffs` by content, the largest group first, then by first target; targets sorted."""
    found: dict[bytes, list[Target]] = {}
    for target in sorted(diffs):
        content = [{**part.as_json(), "cluster": "", "reasons": part.effect.reasons} for part in diffs[target]]
        found.setdefault(canonical_json(content), []).append(target)
    groups = [Group(diffs[targets[0]], tuple(targets)) for targets in found.values()]
    return tuple(sorted(groups, key=lambda group: (-len(group.targets), group.targets[0])))


def summary(groups: Sequence[Group]) -> str:
    """One sentence: "980 targets the same, 20 differ"."""
    if not groups:
        return "nothing changes"
    count = len(groups[0].targets)
    rest = sum(len(group.targets) for group in groups[1:])
    same = f"{count} target{'s' if count != 1 else ''}"
    if not rest:
        return f"{same}, all with the same change" if count > 1 else same
    return f"{same} the same, {rest} differ{'s' if rest == 1 else ''}"


def state_problems(diffs: Mapping[Target, tuple[ObjectDiff, ...]], files: Mapping[str, str]) -> tuple[Problem, ...]:
    """A warning for every Flink object whose job loses its state to an upgrade. `files` names each application's
    document; one problem stands for all clusters."""
    lost: dict[tuple[str, ObjectKey], list[str]] = {}
    for target in sorted(diffs):
        for part in _losing(diffs[target]):
            lost.setdefault((target.application, part.key), []).append(target.cluster)
    return tuple(_state_problem(files.get(name, name), key, clusters) for (name, key), clusters in sorted(lost.items()))


def _losing(diff: Iterable[ObjectDiff]) -> Iterator[ObjectDiff]:
    return (part for part in diff if part.action == "update" and part.effect.state is State.LOST)


def _state_problem(file: str, key: ObjectKey, clusters: list[str]) -> Problem:
    where = clusters[0] if len(clusters) == 1 else f"{len(clusters)} clusters"
    return Problem(
        file,
        0,
        0,
        Severity.WARNING,
        "stateless-upgrade",
        f"{key} restarts without its state on {where}: STATE IS LOST",
        "trait upgrade-strategy with mode last-state or savepoint keeps it",
    )
