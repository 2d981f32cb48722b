"""What is sent for one object: the declared manifest, without what was handed over to others.

A place that is ignored is declared once, when the object is created. From then on what is live is left alone: while we
are its only owner we go on sending the live value, for a sole owner that stops sending a field deletes it, or lets it
fall to its default; once another manager owns it, it is left out.

    as_sent(desired, live, ObjectRule(ignore=(parse_field_path("/spec/replicas"),)))

The result depends on live, so an apply of it is guarded by the resourceVersion that was read.
"""

from __future__ import annotations

from typing import Any

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.field_paths import EVERY, FieldStep, Key
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.managed_fields import FIELD_MANAGER, FieldsV1, entries_of, key_fields
from reconciler.core.model import Manifest
from reconciler.core.ownership import OWN_PREFIX


class _Gone:
    """Marks a value that is left out."""


_GONE = _Gone()


def as_sent(
    desired: Manifest, live: Manifest | None, rule: ObjectRule | None, manager: str = FIELD_MANAGER
) -> Manifest:
    """`desired` (stamped) as it is to be compared with `live`, and sent. Neither argument is changed."""
    if rule is None or live is None:
        return desired
    sent: Any = desired
    if rule.ignore:
        others = _trees(live, but=manager)
        for path in rule.ignore:
            sent = _ignored(sent, live, path.steps, others, flink=is_flink(desired))
    if rule.handover:
        theirs = _trees(live, of=frozenset(rule.handover))
        if theirs:
            sent = _handed_over(sent, theirs, ())
    return sent if isinstance(sent, dict) else desired


def depends_on_live(rule: ObjectRule | None) -> bool:
    """True if what is sent is made of what was read: then the write is guarded by its resourceVersion."""
    return rule is not None and bool(rule.ignore or rule.handover)


def _trees(live: Manifest, *, but: str = "", of: frozenset[str] = frozenset()) -> list[FieldsV1]:
    """Field trees of every manager but `but` (or only `of` some), the scale subresource included: an autoscaler owns by
    it what it writes."""
    trees = []
    for entry in entries_of(live):
        manager, fields = entry.get("manager"), entry.get("fieldsV1")
        if entry.get("subresource") == "status" or not isinstance(fields, dict):
            continue
        ours = manager == but and entry.get("operation") == "Apply" and not entry.get("subresource")
        if (manager in of) if of else not ours:
            trees.append(fields)
    return trees


# ---- places that are ignored ---------------------------------------------------------------------------------------


def _ignored(
    desired: Any, live: Any, steps: tuple[FieldStep, ...], others: list[FieldsV1], *, flink: bool = False
) -> Any:
    """`desired` with what stands at `steps` as live has it, or left out."""
    if not steps:
        return _as_live(desired, live, others)
    if flink and steps[:2] == ("spec", "flinkConfiguration") and len(steps) > 2:
        return _flink_ignored(desired, live, steps, others)
    step, rest = steps[0], steps[1:]
    if isinstance(desired, dict):
        names = list(desired) if step == EVERY else [step] if isinstance(step, str) and step in desired else []
        found_in = live if isinstance(live, dict) else {}
        changed = {
            name: _ignored(desired[name], found_in.get(name, _GONE), rest, _under(others, "f:" + name))
            for name in names
        }
        return _with_members(desired, changed)
    if isinstance(desired, list) and (step == EVERY or isinstance(step, Key)):
        return _ignored_items(desired, live, step, rest, others)
    return desired


def _ignored_items(
    desired: list[Any], live: Any, step: FieldStep, rest: tuple[FieldStep, ...], others: list[FieldsV1]
) -> Any:
    items = []
    for item in desired:
        if not isinstance(item, dict) or not (step == EVERY or (isinstance(step, Key) and step.matches(item))):
            items.append(item)
            continue
        names = _key_names(step, others, item)
        twin = _twin(item, live, names)
        value = _ignored(item, twin, rest, _under_item(others, item))
        if value is not _GONE:
            items.append(value)
    return _GONE if desired and not items else items


def _as_live(desired: Any, live: Any, others: list[FieldsV1]) -> Any:
    """The value at an ignored place: the live one, or nothing where others own it, or where it is gone."""
    if live is _GONE:
        return _GONE
    inside = any(name != "." for tree in others for name in tree)
    if isinstance(desired, dict) and isinstance(live, dict) and (inside or not others):
        members = {
            name: _as_live(value, live.get(name, _GONE), _under(others, "f:" + name)) for name, value in desired.items()
        }
        return _with_members(desired, members)
    if others:
        return _GONE
    return live


def _flink_ignored(desired: Any, live: Any, steps: tuple[FieldStep, ...], others: list[FieldsV1]) -> Any:
    """A key of Flink's configuration is one name, however it is nested: it is looked for in the flat map."""
    spec = desired.get("spec")
    configuration = spec.get("flinkConfiguration") if isinstance(spec, dict) else None
    if not isinstance(configuration, dict):
        return desired
    key = ".".join(step for step in steps[2:] if isinstance(step, str))
    live_spec = live.get("spec") if isinstance(live, dict) else None
    found = live_spec.get("flinkConfiguration") if isinstance(live_spec, dict) else None
    below = _under(_under(others, "f:spec"), "f:flinkConfiguration")
    if key not in configuration:
        steps = steps[2:]
        changed = _ignored(configuration, found if found is not None else {}, steps, below)
    else:
        flat = flatten(found)
        literal = found.get(key, flat.get(key, _GONE)) if isinstance(found, dict) else _GONE
        changed = _with_members(configuration, {key: _as_live(configuration[key], literal, _under(below, "f:" + key))})
    return _with_members(desired, {"spec": _with_members(spec, {"flinkConfiguration": changed})})


def _with_members(whole: dict[str, Any], members: dict[str, Any]) -> Any:
    """A copy of `whole` with `members` replaced or left out; a map that loses its last member is left out itself."""
    if not members or all(members[name] is whole[name] for name in members):
        return whole
    kept = {name: members.get(name, value) for name, value in whole.items()}
    kept = {name: value for name, value in kept.items() if value is not _GONE}
    return kept if kept or not whole else _GONE


def _under(trees: list[FieldsV1], name: str) -> list[FieldsV1]:
    """The nodes called `name` below `trees`. A leaf owns everything below it."""
    found = []
    for tree in trees:
        if not tree:
            found.append(tree)
        elif isinstance(below := tree.get(name), dict):
            found.append(below)
    return found


def _under_item(trees: list[FieldsV1], item: dict[str, Any]) -> list[FieldsV1]:
    """The nodes of a list item below `trees`, found by its key."""
    found = []
    for tree in trees:
        if not tree:
            found.append(tree)
            continue
        for name, below in tree.items():
            pairs = key_fields(name) if name.startswith("k:") else None
            if (
                pairs is not None
                and isinstance(below, dict)
                and all(item.get(field) == value for field, value in pairs)
            ):
                found.append(below)
    return found


def _key_names(step: FieldStep, trees: list[FieldsV1], item: dict[str, Any]) -> tuple[str, ...]:
    """By which fields an item is found again in live: those of the path, of another manager's record, or its name."""
    if isinstance(step, Key):
        return tuple(name for name, _ in step.fields)
    for tree in trees:
        for name in tree:
            pairs = key_fields(name) if name.startswith("k:") else None
            if pairs is not None:
                return tuple(field for field, _ in pairs)
    return ("name",) if "name" in item else tuple(item)


def _twin(item: dict[str, Any], live: Any, names: tuple[str, ...]) -> Any:
    """The live item with the same key, _GONE if there is none."""
    for other in live if isinstance(live, list) else ():
        if isinstance(other, dict) and all(other.get(name) == item.get(name) for name in names):
            return other
    return _GONE


# ---- fields that were handed over ----------------------------------------------------------------------------------


def _handed_over(desired: Any, theirs: list[FieldsV1], keys: tuple[str, ...]) -> Any:
    """`desired` without the leaves that `theirs` own. `keys` are the fields that tell a list item apart: they stay."""
    marked = isinstance(desired, dict) and any(name.startswith(OWN_PREFIX) for name in desired)
    if not marked and any(not any(name != "." for name in tree) for tree in theirs):
        return _GONE
    if isinstance(desired, dict):
        members = {
            name: _handed_over(value, below, ())
            for name, value in desired.items()
            if name not in keys and not name.startswith(OWN_PREFIX) and (below := _under(theirs, "f:" + name))
        }
        return _with_members(desired, members)
    if isinstance(desired, list):
        items = [_handed_over_item(item, theirs) for item in desired]
        return desired if all(new is old for new, old in zip(items, desired, strict=True)) else items
    return desired


def _handed_over_item(item: Any, theirs: list[FieldsV1]) -> Any:
    below = _under_item(theirs, item) if isinstance(item, dict) else []
    if not below:
        return item
    keys = {field for tree in theirs for name in tree if name.startswith("k:") for field, _ in key_fields(name) or ()}
    left = _handed_over(item, [tree for tree in below if any(name != "." for name in tree)] or below, tuple(keys))
    return item if left is _GONE else left
