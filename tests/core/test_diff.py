"""In sync or ask: the table of what the client is certain of, and the property that it is never wrong about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.model import Manifest, Sync
from tests.core.field_owners import applied, deployment, entry, fields_of, flink_deployment

Change = Callable[[Manifest, Manifest], None]


def _container(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def _ours(live: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = live["metadata"]["managedFields"][0]["fieldsV1"]
    return found


@pytest.mark.parametrize("make", [deployment, flink_deployment])
def test_what_was_just_applied_is_in_sync(make: Callable[[], Manifest]) -> None:
    desired = make()
    found = compare(desired, applied(desired))
    assert (found.sync, found.changes, found.ownership_only) == (Sync.IN_SYNC, (), False)


def _set(path: str, value: Any) -> Change:
    """Set live's value at a dotted path."""

    def change(_desired: Manifest, live: Manifest) -> None:
        *parents, last = path.split(".")
        holder: Any = live
        for name in parents:
            holder = holder[int(name)] if name.isdigit() else holder[name]
        holder[last] = value

    return change


def _want(path: str, value: Any) -> Change:
    """Set desired's value at a dotted path."""
    return lambda desired, live: _set(path, value)(live, desired)


def _drop(path: str) -> Change:
    def change(_desired: Manifest, live: Manifest) -> None:
        *parents, last = path.split(".")
        holder: Any = live
        for name in parents:
            holder = holder[int(name)] if name.isdigit() else holder[name]
        del holder[int(last) if last.isdigit() else last]

    return change


def _undeclare(path: str) -> Change:
    return lambda desired, live: _drop(path)(live, desired)


def _undeclare_metadata(desired: Manifest, _live: Manifest) -> None:
    for name in ("labels", "annotations", "finalizers"):
        del desired["metadata"][name]


CONTAINER = "spec.template.spec.containers.0"

#: name: (what happened to desired and live, answer, display of the change or a word of the reason)
ROWS: dict[str, tuple[Change, Sync, str]] = {
    "another number": (_set("spec.replicas", 3), Sync.DIFFERS, "spec.replicas"),
    "another text in a keyed item": (
        _set(f"{CONTAINER}.image", "web:2"),
        Sync.DIFFERS,
        "spec.template.spec.containers[name=main].image",
    ),
    "another item of an atomic list": (_set(f"{CONTAINER}.args", ["--a", "--c"]), Sync.DIFFERS, "args"),
    "a shorter atomic list": (_set(f"{CONTAINER}.args", ["--a"]), Sync.DIFFERS, "args"),
    "a boolean turned": (_set("spec.template.spec.hostNetwork", False), Sync.DIFFERS, "hostNetwork"),
    "a number where a boolean was": (_set("spec.template.spec.hostNetwork", 1), Sync.DIFFERS, "hostNetwork"),
    "a text where a map was": (_set("spec.template.metadata", "x"), Sync.DIFFERS, "spec.template.metadata"),
    "a label gone": (_drop("metadata.labels.app"), Sync.DIFFERS, "metadata.labels.app"),
    "a container gone": (_drop("spec.template.spec.containers.1"), Sync.DIFFERS, "containers[name=side]"),
    "a finalizer gone": (_set("metadata.finalizers", []), Sync.DIFFERS, "metadata.finalizers[example.com/keep]"),
    "declared in addition": (_want("spec.minReadySeconds", 5), Sync.DIFFERS, "spec.minReadySeconds"),
    "a declared label that live lacks": (_want("metadata.labels.team", "x"), Sync.DIFFERS, "metadata.labels.team"),
    "no longer declared": (_undeclare("spec.replicas"), Sync.DIFFERS, "spec.replicas"),
    "an item no longer declared": (_undeclare(f"{CONTAINER}.env.1"), Sync.DIFFERS, "env[name=B]"),
    "not declared and not ours": (_set("spec.paused", True), Sync.IN_SYNC, ""),
    "a label of somebody else": (_set("metadata.labels.other", "x"), Sync.IN_SYNC, ""),
    "status": (_set("status", {"replicas": 7}), Sync.IN_SYNC, ""),
    "1 and 1.0": (_set("spec.replicas", 2.0), Sync.ASK, "spec.replicas"),
    "the same quantity in other words": (_want(f"{CONTAINER}.resources.limits.cpu", "1000m"), Sync.IN_SYNC, ""),
    "the same quantity of another form": (
        _want(f"{CONTAINER}.resources.limits.memory", "1073741824"),
        Sync.ASK,
        "memory",
    ),
    "the same number where no quantity stands": (
        _want(f"{CONTAINER}.env.0.value", "1000m"),
        Sync.ASK,
        "env[name=A].value",
    ),
    "another quantity": (_set(f"{CONTAINER}.resources.limits.cpu", "1100m"), Sync.DIFFERS, "cpu"),
    "an empty map declared": (_want("spec.strategy", {}), Sync.ASK, "spec.strategy"),
    "an empty list declared": (_want(f"{CONTAINER}.envFrom", []), Sync.ASK, "envFrom"),
    "a zero that live leaves out": (_want("spec.template.spec.hostIPC", False), Sync.ASK, "hostIPC"),
    "null declared": (_want("spec.paused", None), Sync.ASK, "null"),
    # What is recorded as ours and not there, nobody took away: the server leaves it out.
    "a zero of ours that live leaves out": (_drop("spec.template.spec.hostPID"), Sync.IN_SYNC, ""),
    "an empty list of ours that live leaves out": (_drop(f"{CONTAINER}.command"), Sync.IN_SYNC, ""),
    "a required list of ours that is empty and null": (_set(f"{CONTAINER}.command", None), Sync.IN_SYNC, ""),
    "something of ours that live leaves out": (_drop("spec.replicas"), Sync.ASK, "spec.replicas"),
    # An empty value may have become the default, but where the field tells it from nothing.
    "an empty text that became the default": (
        _set("spec.template.spec.schedulerName", "default-scheduler"),
        Sync.ASK,
        "schedulerName",
    ),
    "no replicas where one is live": (_want("spec.replicas", 0), Sync.DIFFERS, "spec.replicas"),
    "a field of an atomic list that the server dropped": (
        _want("spec.template.spec.tolerations", [{"key": "k", "operator": "Exists", "gated": "x"}]),
        Sync.ASK,
        "tolerations",
    ),
    "all metadata no longer declared": (_undeclare_metadata, Sync.DIFFERS, "metadata.labels"),
    # An item recorded as a leaf is atomic.
    "an atomic item of a keyed list": (_drop("status"), Sync.IN_SYNC, ""),
    "an atomic item of a keyed list changed": (
        _set("spec.template.spec.imagePullSecrets", [{"name": "pull", "more": "x"}]),
        Sync.ASK,
        "imagePullSecrets[name=pull]",
    ),
    "a default inside an atomic list": (
        _set("spec.template.spec.tolerations", [{"key": "k", "operator": "Exists", "effect": ""}]),
        Sync.ASK,
        "tolerations",
    ),
    "a default inside an atomic map": (
        _set("spec.selector", {"matchLabels": {"app": "web"}, "matchExpressions": []}),
        Sync.ASK,
        "spec.selector",
    ),
    "a key that was declared and is defaulted now": (
        _undeclare(f"{CONTAINER}.ports.0.protocol"),
        Sync.ASK,
        "full key",
    ),
    "an item's key in another type": (_set(f"{CONTAINER}.ports.0.containerPort", 8080.0), Sync.ASK, "containerPort"),
    "being deleted": (_set("metadata.deletionTimestamp", "2026-03-01T10:00:00Z"), Sync.UNKNOWN, "deleted"),
    "no managedFields": (_set("metadata.managedFields", []), Sync.ASK, "nothing as applied by us"),
    "managedFields that are none": (_set("metadata.managedFields", "x"), Sync.ASK, "nothing as applied by us"),
    "read at another version": (_set("apiVersion", "apps/v1beta2"), Sync.ASK, "apps/v1beta2"),
    "applied at another version": (
        _set("metadata.managedFields.0.apiVersion", "apps/v1beta2"),
        Sync.ASK,
        "apps/v1beta2",
    ),
    "our entry is an update": (_set("metadata.managedFields.0.operation", "Update"), Sync.ASK, "applied by us"),
    "our entry is for status": (_set("metadata.managedFields.0.subresource", "status"), Sync.ASK, "applied by us"),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_the_client_is_certain_of(name: str) -> None:
    change, sync, word = ROWS[name]
    desired = deployment()
    desired["spec"]["template"]["spec"] |= {
        "hostPID": False,
        "schedulerName": "",
        "imagePullSecrets": [{"name": "pull"}],
    }
    desired["spec"]["template"]["spec"]["containers"][0]["command"] = []
    live = applied(desired)
    desired = copy.deepcopy(desired)
    change(desired, live)
    found = compare(desired, live)
    assert found.sync is sync, found
    said = [found.reason.message, *(change.display for change in found.changes)]
    assert any(word in text for text in said), said
    assert bool(found.changes) == (sync is Sync.DIFFERS)
    assert not found.ownership_only


def test_nothing_live_is_missing() -> None:
    assert compare(deployment(), None).sync is Sync.MISSING


def test_two_applies_of_ours_ask() -> None:
    desired = deployment()
    assert compare(desired, applied(desired, entry(desired))).sync is Sync.ASK


def test_another_object_is_a_programming_error() -> None:
    other = deployment()
    other["metadata"]["name"] = "other"
    with pytest.raises(ValueError, match="compared"):
        compare(deployment(), applied(other))


def test_the_order_of_keyed_items_asks() -> None:
    desired = deployment()
    live = applied(desired)
    live["spec"]["template"]["spec"]["containers"].reverse()
    assert compare(desired, live).sync is Sync.ASK


def test_an_item_of_somebody_else_between_ours_is_in_sync() -> None:
    desired = deployment()
    live = applied(desired)
    live["spec"]["template"]["spec"]["containers"].insert(1, {"name": "injected", "image": "mesh:1"})
    assert compare(desired, live).sync is Sync.IN_SYNC
    foreign: Manifest = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"injected"}': {".": {}}}}}}}
    live["metadata"]["managedFields"].append(entry(desired, "mesh", "Update", fieldsV1=foreign))
    assert compare(desired, live).sync is Sync.IN_SYNC


def test_the_same_value_under_another_owner_is_ownership_only() -> None:
    desired = deployment()
    edited: Manifest = {"f:spec": {"f:replicas": {}}}
    live = applied(desired, entry(desired, "kubectl-edit", "Update", fieldsV1=edited))
    del _ours(live)["f:spec"]["f:replicas"]
    found = compare(desired, live)
    assert (found.sync, found.ownership_only) == (Sync.DIFFERS, True)
    assert [(change.display, change.old, change.new) for change in found.changes] == [("spec.replicas", 2, 2)]


def test_another_value_under_another_owner_differs() -> None:
    desired = deployment()
    edited: Manifest = {"f:spec": {"f:replicas": {}}}
    live = applied(desired, entry(desired, "kubectl-edit", "Update", fieldsV1=edited))
    del _ours(live)["f:spec"]["f:replicas"]
    live["spec"]["replicas"] = 5
    found = compare(desired, live)
    assert (found.sync, found.ownership_only, found.changes[0].old) == (Sync.DIFFERS, False, 5)


def test_co_ownership_is_in_sync() -> None:
    desired = deployment()
    live = applied(desired, entry(desired, "helm", "Apply"))
    assert compare(desired, live).sync is Sync.IN_SYNC


def test_what_we_drop_and_others_hold_is_ownership_only() -> None:
    desired = deployment()
    live = applied(desired, entry(desired, "hpa", "Update", fieldsV1={"f:spec": {"f:replicas": {}}}))
    del desired["spec"]["replicas"]
    found = compare(desired, live)
    assert (found.sync, found.ownership_only, found.changes[0].op) == (Sync.DIFFERS, True, "remove")


def test_an_atomic_value_others_own_inside_asks() -> None:
    """A leaf of ours that once was an empty map is not atomic: somebody else's keys lie below it."""
    desired = deployment()
    live = applied(desired, entry(desired, "kubectl", "Update", fieldsV1={"f:spec": {"f:selector": {"f:a": {}}}}))
    assert compare(desired, live).sync is Sync.ASK


def test_labels_recorded_empty_are_not_ours() -> None:
    desired = deployment()
    live = applied(desired)
    _ours(live)["f:metadata"]["f:labels"] = {}
    found = compare(desired, live)
    assert (found.sync, found.ownership_only) == (Sync.DIFFERS, True)


@pytest.mark.parametrize(
    ("configuration", "sync"),
    [
        ({"taskmanager.numberOfTaskSlots": 2, "execution.checkpointing.interval": "60s"}, Sync.ASK),
        ({"taskmanager": {"numberOfTaskSlots": "2"}, "execution.checkpointing.interval": "60s"}, Sync.ASK),
        ({"taskmanager.numberOfTaskSlots": "4", "execution.checkpointing.interval": "60s"}, Sync.DIFFERS),
        ({"execution.checkpointing.interval": "60s"}, Sync.DIFFERS),
        (
            {"taskmanager.numberOfTaskSlots": "2", "execution.checkpointing.interval": "60s", "other": "x"},
            Sync.IN_SYNC,
        ),
    ],
)
def test_flink_configuration_is_compared_flat(configuration: dict[str, Any], sync: Sync) -> None:
    desired = flink_deployment()
    live = applied(desired)
    live["spec"]["flinkConfiguration"] = configuration
    assert compare(desired, live).sync is sync


def test_a_configuration_key_we_drop_is_removed() -> None:
    desired = flink_deployment()
    live = applied(desired)
    del desired["spec"]["flinkConfiguration"]["execution.checkpointing.interval"]
    [change] = compare(desired, live).changes
    assert (change.op, change.path) == ("remove", "/spec/flinkConfiguration/execution.checkpointing.interval")
    assert change.display == "spec.flinkConfiguration[execution.checkpointing.interval]"


def test_a_secret_is_never_shown() -> None:
    desired: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    desired["data"] = {"key": "aHVudGVyMg=="}
    live = applied(desired)
    live["data"]["key"] = "b3RoZXI="
    found = compare(desired, live)
    assert found.sync is Sync.DIFFERS
    assert "aHVudGVyMg" not in repr(found)
    assert "b3RoZXI" not in repr(found)
    live["data"]["key"] = "aHVudGVyMh=="
    assert compare(desired, live).sync is Sync.ASK, "the same bytes, encoded otherwise"
    desired["data"]["key"] = "aHVu\ndGVyMh==\n"
    assert compare(desired, live).sync is Sync.IN_SYNC, "line breaks are nothing"


def test_an_object_nested_beyond_reason_asks() -> None:
    deep: Any = "x"
    for _ in range(3000):
        deep = {"a": deep}
    desired = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": deep}
    live = {**desired, "metadata": {"name": "c", "managedFields": [
        {"manager": "reconciler", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {}}}]}}  # fmt: skip
    live["data"] = {"a": deep}
    assert compare(desired, live).sync is Sync.ASK


# ---- the server's own answer -------------------------------------------------------------------------------------


def test_a_dry_run_that_changes_nothing() -> None:
    live = applied(deployment())
    result = copy.deepcopy(live)
    result["metadata"]["managedFields"][0]["time"] = "2026-03-02T10:00:00Z"
    result["metadata"]["resourceVersion"] = "9"
    result["status"] = {}
    assert same_after_dry_run(live, result)


@pytest.mark.parametrize("change", [_set("spec.replicas", 3), _drop("metadata.labels.app")])
def test_a_dry_run_that_changes_something(change: Change) -> None:
    live = applied(deployment())
    result = copy.deepcopy(live)
    change(live, result)
    assert not same_after_dry_run(live, result)


def test_a_dry_run_that_changes_ownership() -> None:
    live = applied(deployment())
    result = copy.deepcopy(live)
    del _ours(result)["f:spec"]["f:replicas"]
    assert not same_after_dry_run(live, result)


# ---- properties --------------------------------------------------------------------------------------------------

_SCALARS = st.one_of(st.text(max_size=6), st.integers(-9, 9), st.booleans(), st.floats(-4, 4).filter(bool))
_NAMES = st.text(alphabet="abcdef./", min_size=1, max_size=5)


def _keyed(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    item = st.dictionaries(_NAMES.filter(lambda name: name != "name"), children, max_size=2)
    return st.lists(st.tuples(_NAMES, item), max_size=3, unique_by=lambda pair: pair[0]).map(
        lambda pairs: [{"name": name, **rest} for name, rest in pairs]
    )


_TREES = st.recursive(
    _SCALARS,
    lambda children: st.one_of(
        st.dictionaries(_NAMES, children, min_size=1, max_size=3),
        st.lists(children, min_size=1, max_size=3),
        st.fixed_dictionaries({"env": _keyed(children).filter(bool)}),
    ),
    max_leaves=12,
)
_SPECS = st.dictionaries(_NAMES, _TREES, min_size=1, max_size=4)


def _manifest(spec: dict[str, Any]) -> Manifest:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, (*path, name))
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from _leaves(below, (*path, index))
    else:
        yield path


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copied = copy.deepcopy(value)
    holder = copied
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = new
    return copied


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_SPECS)
def test_exactly_the_declared_fields_are_in_sync(spec: dict[str, Any]) -> None:
    desired = _manifest(spec)
    live = applied(desired)
    assert compare(desired, live).sync is Sync.IN_SYNC
    live["spec"]["zz"] = {"undeclared": 1}
    live["metadata"]["managedFields"].append(entry(desired, "other", "Apply", fieldsV1={"f:spec": {"f:zz": {}}}))
    assert compare(desired, live).sync is Sync.IN_SYNC, "the slow walk agrees with the fast one"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_SPECS, st.data())
def test_one_changed_leaf_is_never_in_sync(spec: dict[str, Any], data: st.DataObject) -> None:
    desired = _manifest(spec)
    path = data.draw(st.sampled_from(sorted(_leaves(spec), key=repr)))
    holder: Any = spec
    for step in path:
        holder = holder[step]
    new: Any = data.draw(st.one_of(_SCALARS, st.none(), st.just({}), st.just([])))
    if type(new) is type(holder) and new == holder:
        new = [holder]
    live = applied(desired)
    live["spec"] = _replaced(spec, path, new)
    assert compare(desired, live).sync is not Sync.IN_SYNC
    undeclared = copy.deepcopy(live)
    undeclared["metadata"]["managedFields"].append(
        entry(desired, "other", "Update", fieldsV1={"f:spec": fields_of(live["spec"])})
    )
    assert compare(desired, undeclared).sync is not Sync.IN_SYNC, "whoever changed it"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_SPECS, st.data())
def test_one_field_not_recorded_as_ours_is_never_in_sync(spec: dict[str, Any], data: st.DataObject) -> None:
    desired = _manifest(spec)
    live = applied(desired)
    fields = _ours(live)["f:spec"]
    name = data.draw(st.sampled_from(sorted(fields)))
    del fields[name]
    if not fields:
        del _ours(live)["f:spec"]  # an empty node would say that the spec as a whole is ours
    assert compare(desired, live).sync is not Sync.IN_SYNC


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_SPECS, _NAMES, _SCALARS)
def test_one_field_more_recorded_as_ours_is_never_in_sync(spec: dict[str, Any], name: str, value: Any) -> None:
    desired = _manifest(spec)
    before = _manifest({**spec, f"{name}-more": value})
    assert compare(desired, applied(before)).sync is not Sync.IN_SYNC
