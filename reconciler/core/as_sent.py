"""What is sent for one object: the declared manifest, without what was handed over to others.

A place that is ignored is declared once, when the object is created. From then on what is live is left alone: while we
are its only owner we go on sending the live value, whether Git still declares one or not, for a sole owner that stops
sending a field deletes it, or lets it fall to its default; once another manager owns it, it is left out. Fields of a
map and items of a keyed list or a set are told apart: each has its own owners.

    as_sent(desired, live, ObjectRule(ignore=(parse_field_path("/spec/replicas"),)))

The result depends on live, so an apply of it is guarded by the resourceVersion that was read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.field_paths import EVERY, FieldStep, Key
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.list_keys import full_keys, key_of, names_of
from reconciler.core.managed_fields import (
    FIELD_MANAGER,
    FieldsV1,
    KeyFields,
    entries_of,
    key_fields,
    manages_inside,
    our_entries,
    set_value,
)
from reconciler.core.model import Manifest
from reconciler.core.ownership import OWN_PREFIX


class _Gone:
    """Marks a value that is left out."""


_GONE = _Gone()


class _Owners(NamedTuple):
    """Who owns one place: our own trees there, and those of others."""

    mine: list[FieldsV1]
    others: list[FieldsV1]

    @property
    def in_parts(self) -> bool:
        """True if somebody owns something *below* this place: then whoever owns only the place made the container, and
        nothing in it."""
        return manages_inside(self.mine) or manages_inside(self.others)

    @property
    def is_theirs(self) -> bool:
        """True if others own the whole value."""
        return bool(self.others) and not self.in_parts

    def under(self, name: str) -> _Owners:
        """The owners of the field `name`. Where nobody owns a part, who owns the whole owns each part."""
        return self if not self.in_parts else self._at({"f:" + name})

    def item(self, key: KeyFields) -> _Owners:
        """The owners of the list item with `key`."""
        trees = (*self.mine, *self.others)
        return self._at({name for tree in trees for name in tree if _key(name) == key}) if self.in_parts else self

    def _at(self, names: set[str]) -> _Owners:
        def at(trees: list[FieldsV1]) -> list[FieldsV1]:
            return [
                below for tree in trees for name, below in tree.items() if name in names and isinstance(below, dict)
            ]

        return _Owners(at(self.mine), at(self.others))

    def fields(self) -> list[str]:
        """The names of the fields that we own below this map, or a part of them."""
        return [name[2:] for tree in self.mine for name in tree if name.startswith("f:")]

    def key_names(self) -> tuple[str, ...]:
        """The fields that tell this list's items apart, as the server recorded it; () if it is no such list."""
        keys = (_key(name) for tree in (*self.mine, *self.others) for name in tree)
        return next((names_of(key) for key in keys if key), ())

    def key(self, item: Any) -> KeyFields | None:
        """The full key of a declared item; None if there is none for certain."""
        recorded = {name: below for tree in self.mine for name, below in tree.items() if _key(name)}
        keys = {key: name for name in recorded if (key := _key(name))}
        names = self.key_names()
        return next(iter(full_keys([item], names, recorded, keys) or ()), None) if names else None


def _key(name: str) -> KeyFields | None:
    return key_fields(name) if name.startswith("k:") else None


def as_sent(
    desired: Manifest, live: Manifest | None, rule: ObjectRule | None, manager: str = FIELD_MANAGER
) -> Manifest:
    """`desired` (stamped) as it is to be compared with `live`, and sent. Neither argument is changed."""
    if rule is None or live is None:
        return desired
    sent: Any = desired
    ours = our_entries(live, manager)
    mine = _trees(ours)
    if rule.ignore:
        owners = _Owners(mine, _trees([entry for entry in entries_of(live) if entry not in ours]))
        for path in rule.ignore:
            sent = _ignored(sent, live, path.steps, owners, flink=is_flink(desired))
    if rule.handover:
        theirs = _trees([entry for entry in entries_of(live) if entry.get("manager") in rule.handover])
        if theirs:
            sent = _handed_over(sent, _Owners(mine, theirs), ())
    return sent if isinstance(sent, dict) else desired


def depends_on_live(rule: ObjectRule | None) -> bool:
    """True if what is sent is made of what was read: then the write is guarded by its resourceVersion."""
    return rule is not None and bool(rule.ignore or rule.handover)


def _trees(entries: list[dict[str, Any]]) -> list[FieldsV1]:
    """The field trees of `entries`, the scale subresource included: an autoscaler owns by it what it writes."""
    return [
        fields
        for entry in entries
        if entry.get("subresource") != "status" and isinstance(fields := entry.get("fieldsV1"), dict)
    ]


# ---- places that are ignored ---------------------------------------------------------------------------------------


def _ignored(desired: Any, live: Any, steps: tuple[FieldStep, ...], owners: _Owners, *, flink: bool = False) -> Any:
    """`desired` with what stands at `steps` as live has it, or left out. Where nothing is declared (any more), what is
    ours of it is sent all the same."""
    if desired is _GONE and not owners.mine:
        return _GONE
    found = live if desired is _GONE else desired
    if not steps or (steps == (EVERY,) and isinstance(found, dict | list)):
        return _as_live(desired, live, owners)
    if flink and steps[:2] == ("spec", "flinkConfiguration") and len(steps) > 2:
        return _flink_ignored(desired, live, steps, owners)
    step, rest = steps[0], steps[1:]
    if isinstance(found, dict):
        declared, there = ({} if desired is _GONE else desired), (live if isinstance(live, dict) else {})
        names = (
            dict.fromkeys([*declared, *owners.fields()]) if step == EVERY else [step] if isinstance(step, str) else []
        )
        changed = {
            name: _ignored(declared.get(name, _GONE), there.get(name, _GONE), rest, owners.under(name))
            for name in names
        }
        kept = _with_members(declared, changed)
        return kept if kept or desired is not _GONE else _GONE
    if isinstance(found, list) and (step == EVERY or isinstance(step, Key)):
        return _ignored_items([] if desired is _GONE else desired, live, step, rest, owners)
    return desired


def _ignored_items(desired: list[Any], live: Any, step: FieldStep, rest: tuple[FieldStep, ...], owners: _Owners) -> Any:
    """The items of a list with what stands at `rest` in each that `step` names. An item that is not found again in live
    for certain stays as declared, and so does one that is new."""
    found = [item for item in live if isinstance(item, dict)] if isinstance(live, list) else []
    names = owners.key_names()
    items = []
    for item in desired:
        twin = _twin(item, desired, found, step, owners) if isinstance(item, dict) else None
        if twin is not None:
            key = key_of(twin, names)
            below = owners.item(key) if names and key else owners
            value = _ignored(item, twin, rest, below) if rest or not names else _item_as_live(item, twin, names, below)
        elif not rest and isinstance(step, Key) and isinstance(item, dict) and step.matches(item):
            value = item if any(step.matches(other) for other in found) else _GONE
        else:
            value = item
        if value is not _GONE:
            items.append(value)
    if not rest and isinstance(step, Key):
        items = _with_dropped(items, desired, found, step, owners)
    return items or _GONE


def _with_dropped(
    items: list[Any], desired: list[Any], live: list[dict[str, Any]], step: Key, owners: _Owners
) -> list[Any]:
    """`items` with those of ours that `step` names and Git does not declare any more, where they are in live: before
    the first that follows there."""
    names = owners.key_names()
    declared = [owners.key(item) for item in desired]
    unknown = [item for item, key in zip(desired, declared, strict=True) if key is None and isinstance(item, dict)]
    at = [owners.key(item) if names else item for item in live]
    result = list(items)
    for index, item in enumerate(live):
        key = key_of(item, names) if names else None
        known = key is not None and key in declared
        if known or not step.matches(item) or any(step.matches(other) for other in unknown):
            continue
        if key is not None:
            below = owners.item(key)
            value = _item_as_live(_GONE, item, names, below) if below.mine else _GONE
        else:
            value = item if owners.mine and not owners.others and not names else _GONE
        if value is not _GONE:
            later = at[index + 1 :]
            places = (place for place, each in enumerate(result) if (owners.key(each) if names else each) in later)
            result.insert(next(places, len(result)), value)
    return result


def _twin(
    item: dict[str, Any], desired: list[Any], live: list[dict[str, Any]], step: FieldStep, owners: _Owners
) -> dict[str, Any] | None:
    """The live item that is meant by `item`, if `step` names it: by the key that the server recorded, else by that of
    the path, else by its name. None unless it is the only one."""
    names = owners.key_names()
    key = owners.key(item)
    twins = [other for other in live if key is not None and key_of(other, names) == key]
    if isinstance(step, Key):
        if not step.matches(item) and not any(step.matches(other) for other in twins):
            return None
        names, by_path = tuple(name for name, _ in step.fields), not twins
    else:
        names, by_path = ("name",), not names
    if by_path and (key := key_of(item, names)) is not None:
        alike = [other for other in desired if key_of(other, names) == key]
        twins = [other for other in live if key_of(other, names) == key] if len(alike) == 1 else []
    return twins[0] if len(twins) == 1 else None


def _as_live(desired: Any, live: Any, owners: _Owners) -> Any:
    """The value at an ignored place: the live one without what others own, or nothing where it is gone."""
    if live is _GONE or owners.is_theirs:
        return _GONE
    if isinstance(live, dict) and (owners.in_parts or (isinstance(desired, dict) and not owners.mine)):
        names, kept = _members_as_live(desired, live, owners)
        return kept if kept or not names else _GONE
    if isinstance(live, list) and owners.in_parts:
        items = _items_as_live(desired, live, owners) if owners.key_names() else _values_as_live(live, owners)
        return items or _GONE
    return live


def _members_as_live(desired: Any, live: dict[str, Any], owners: _Owners) -> tuple[list[str], dict[str, Any]]:
    """The names that are declared or ours, and what is sent for them."""
    declared = desired if isinstance(desired, dict) else {}
    names = list(dict.fromkeys([*declared, *owners.fields()]))
    found = {name: _as_live(declared.get(name, _GONE), live.get(name, _GONE), owners.under(name)) for name in names}
    return names, {name: value for name, value in found.items() if value is not _GONE}


def _items_as_live(desired: Any, live: list[Any], owners: _Owners) -> list[Any]:
    """The live items that are ours, or are declared and nobody's, without what others own in them."""
    names = owners.key_names()
    declared = {owners.key(item): item for item in (desired if isinstance(desired, list) else ())}
    sent: dict[KeyFields, Any] = {}
    for item in live:
        key = key_of(item, names)
        if key is None or key in sent:
            continue
        below = owners.item(key)
        if below.mine or (key in declared and not below.others):
            sent[key] = _item_as_live(declared.get(key), item, names, below)
    return [item for item in sent.values() if item is not _GONE]


def _item_as_live(desired: Any, live: dict[str, Any], names: tuple[str, ...], owners: _Owners) -> Any:
    """A live item without what others own in it. Its key, `names`, stays, and is not sent alone where they hold the
    item as well."""
    if not owners.in_parts:
        return _as_live(desired, live, owners)
    fields, found = _members_as_live(desired, live, owners)
    members = {
        name: value for name in fields if (value := (live if name in names else found).get(name, _GONE)) is not _GONE
    }
    held = any("." in tree or not tree for tree in owners.others)
    return members if members.keys() - set(names) or not held else _GONE


def _values_as_live(live: list[Any], owners: _Owners) -> list[Any]:
    """The live values of a set that only we own."""
    mine, others = (
        {set_value(name) for tree in trees for name in tree if name.startswith("v:")}
        for trees in (owners.mine, owners.others)
    )
    values = [value for value in live if isinstance(value, str | int | float)]
    return [value for value in values if (type(value).__name__, value) in mine - others]


def _flink_ignored(desired: Any, live: Any, steps: tuple[FieldStep, ...], owners: _Owners) -> Any:
    """A key of Flink's configuration is one name, however it is nested: it is looked for in the flat map."""
    spec = desired.get("spec")
    configuration = spec.get("flinkConfiguration", {}) if isinstance(spec, dict) else None
    if not isinstance(configuration, dict):
        return desired
    names = [step for step in steps[2:] if isinstance(step, str)]
    key, is_one = ".".join(names), EVERY not in names and len(names) == len(steps) - 2
    live_spec = live.get("spec") if isinstance(live, dict) else None
    there = live_spec.get("flinkConfiguration") if isinstance(live_spec, dict) else None
    found: dict[str, Any] = there if isinstance(there, dict) else {}
    below = owners.under("spec").under("flinkConfiguration")
    if key in configuration:
        literal = found.get(key, flatten(found).get(key, _GONE))
        changed = _with_members(configuration, {key: _as_live(configuration[key], literal, below.under(key))})
    else:
        changed = _ignored(configuration, found, tuple(key.split(".")) if is_one else steps[2:], below)
        at = below.under(key)
        if is_one and key in found and at.mine:
            changed = _with_members({} if changed is _GONE else changed, {key: _as_live(_GONE, found[key], at)})
    if not changed and "flinkConfiguration" not in spec:
        return desired
    return _with_members(desired, {"spec": _with_members(spec, {"flinkConfiguration": changed})})


def _with_members(whole: dict[str, Any], members: dict[str, Any]) -> Any:
    """A copy of `whole` with `members` replaced, added or left out; a map that loses its last member is left out."""
    if all(value is whole.get(name, _GONE) for name, value in members.items()):
        return whole
    kept = {name: value for name, value in {**whole, **members}.items() if value is not _GONE}
    return kept if kept or not whole else _GONE


# ---- fields that were handed over ----------------------------------------------------------------------------------


def _handed_over(desired: Any, owners: _Owners, keys: tuple[str, ...]) -> Any:
    """`desired` without the leaves that others own. `keys` are the fields that tell a list item apart: they stay."""
    marked = isinstance(desired, dict) and any(name.startswith(OWN_PREFIX) for name in desired)
    if not marked and owners.is_theirs:
        return _GONE
    if isinstance(desired, dict):
        members = {
            name: _handed_over(value, below, ())
            for name, value in desired.items()
            if name not in keys and not name.startswith(OWN_PREFIX) and (below := owners.under(name)).others
        }
        return _with_members(desired, members)
    if isinstance(desired, list):
        items = [_handed_over_item(item, owners) for item in desired]
        return desired if all(new is old for new, old in zip(items, desired, strict=True)) else items
    return desired


def _handed_over_item(item: Any, owners: _Owners) -> Any:
    key = owners.key(item)
    below = owners.item(key) if key is not None else _Owners([], [])
    left = _handed_over(item, below, owners.key_names()) if below.others else item
    return item if left is _GONE else left
