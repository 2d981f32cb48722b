"""What is sent of places that have several owners: items of lists, maps of which somebody else made the container."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.as_sent import as_sent
from reconciler.core.field_paths import parse_field_path
from reconciler.core.model import Manifest

Trees = dict[str, Any]


def made(spec: Any, ours: Trees | None = None, **others: Trees) -> Manifest:
    """An object with `spec`, and who set what in it."""
    entries = [{"manager": name, "operation": "Update", "fieldsV1": {"f:spec": tree}} for name, tree in others.items()]
    if ours is not None:
        entries.append({"manager": "reconciler", "operation": "Apply", "fieldsV1": {"f:spec": ours}})
    return {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "managedFields": entries}, "spec": spec}


def ignoring(path: str, declared: Any, live: Manifest) -> Any:
    """What is sent as spec."""
    return as_sent(made(declared), live, ObjectRule(ignore=(parse_field_path(path),))).get("spec")


def handing(declared: Any, live: Manifest) -> Any:
    return as_sent(made(declared), live, ObjectRule(handover=("tuner",))).get("spec")


def port(number: int, *fields: str) -> Trees:
    key = f'k:{{"port":{number},"protocol":"TCP"}}'
    return {key: {".": {}, "f:port": {}, **{f"f:{name}": {} for name in fields}}}


HTTP = {"port": 80, "protocol": "TCP", "nodePort": 30080}
DEBUG = {"port": 99, "protocol": "TCP"}


# ---- lists by key --------------------------------------------------------------------------------------------------


def test_our_items_stay_where_another_adds_one() -> None:
    live = made({"ports": [HTTP, DEBUG]}, {"f:ports": port(80)}, hand={"f:ports": port(99)})
    assert ignoring("spec.ports", {"ports": [{"port": 80}]}, live) == {"ports": [{"port": 80}]}
    assert ignoring("spec.ports[*]", {"ports": [{"port": 80}]}, live) == {"ports": [{"port": 80}]}


def test_our_item_is_sent_as_it_is_live() -> None:
    live = made({"ports": [HTTP, DEBUG]}, {"f:ports": port(80, "nodePort")}, hand={"f:ports": port(99)})
    sent = ignoring("spec.ports", {"ports": [{"port": 80, "nodePort": 1}, {"port": 81}]}, live)
    assert sent == {"ports": [{"port": 80, "nodePort": 30080}]}


def test_an_item_of_ours_that_git_no_longer_declares_stays() -> None:
    live = made({"ports": [HTTP, DEBUG]}, {"f:ports": {**port(80), **port(99)}}, hand={"f:x": {}})
    assert ignoring("spec.ports", {"ports": [{"port": 80}]}, live) == {"ports": [{"port": 80}, {"port": 99}]}


def test_what_another_owns_in_our_item_is_left_out() -> None:
    theirs: Trees = {'k:{"port":80,"protocol":"TCP"}': {"f:nodePort": {}}}
    live = made({"ports": [HTTP]}, {"f:ports": port(80)}, hand={"f:ports": theirs})
    assert ignoring("spec.ports", {"ports": [{"port": 80, "nodePort": 1}]}, live) == {"ports": [{"port": 80}]}


def test_an_item_that_another_holds_as_well_is_left_to_it() -> None:
    live = made({"ports": [HTTP, DEBUG]}, {"f:ports": {**port(80), **port(99)}}, hand={"f:ports": port(99)})
    declared = {"ports": [{"port": 80}, {"port": 99}]}
    assert ignoring("spec.ports", declared, live) == {"ports": [{"port": 80}]}
    live = made({"ports": [DEBUG]}, {"f:ports": port(99)}, hand={"f:ports": port(99)})
    assert ignoring("spec.ports", {"ports": [{"port": 99}], "a": 1}, live) == {"a": 1}


def test_the_key_stays_with_what_only_we_own_in_an_item() -> None:
    theirs: Trees = {"f:c": {'k:{"name":"web"}': {".": {}, "f:name": {}, "f:image": {}}}}
    ours: Trees = {"f:c": {'k:{"name":"web"}': {".": {}, "f:name": {}, "f:tty": {}}}}
    live = made({"c": [{"name": "web", "image": "b", "tty": True}]}, ours, hand=theirs)
    declared = {"c": [{"name": "web", "image": "a", "tty": False}]}
    for path in ("spec.c", "spec.c[name=web]", "spec.c[*]"):
        assert ignoring(path, declared, live) == {"c": [{"name": "web", "tty": True}]}


def test_items_that_are_recorded_as_a_whole() -> None:
    ours: Trees = {"f:secrets": {'k:{"name":"a"}': {}, 'k:{"name":"b"}': {}}}
    live = made({"secrets": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}, ours,
                hand={"f:secrets": {'k:{"name":"b"}': {}, 'k:{"name":"c"}': {}}})  # fmt: skip
    assert ignoring("spec.secrets", {"secrets": [{"name": "c"}]}, live) == {"secrets": [{"name": "a"}]}


def test_values_of_a_set_are_told_apart() -> None:
    live = made({"s": ["a", "b", "c"]}, {"f:s": {'v:"a"': {}, 'v:"b"': {}}}, hand={"f:s": {'v:"b"': {}, 'v:"c"': {}}})
    assert ignoring("spec.s", {"s": ["b"]}, live) == {"s": ["a"]}


def test_a_whole_list_of_another_is_left_out() -> None:
    live = made({"args": ["a", "b"], "x": 1}, {"f:x": {}}, hand={"f:args": {}})
    assert ignoring("spec.args", {"args": ["a"], "x": 1}, live) == {"x": 1}
    live = made({"args": ["a", "b"], "x": 1}, {"f:x": {}, "f:args": {}})
    assert ignoring("spec.args", {"args": ["a"], "x": 1}, live) == {"args": ["a", "b"], "x": 1}


# ---- who made the container ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["spec.limits", "spec.limits.cpu"])
def test_who_made_a_map_does_not_own_what_is_ours_in_it(path: str) -> None:
    live = made({"limits": {"cpu": "2"}}, {"f:limits": {"f:cpu": {}}}, tuner={"f:limits": {}})
    assert ignoring(path, {"limits": {"cpu": "1"}}, live) == {"limits": {"cpu": "2"}}
    assert handing({"limits": {"cpu": "1"}}, live) == {"limits": {"cpu": "1"}}


def test_who_made_a_map_does_not_own_what_a_third_set_in_it() -> None:
    live = made({"limits": {"cpu": "2"}}, {}, tuner={"f:limits": {}}, hand={"f:limits": {"f:cpu": {}}})
    assert ignoring("spec.limits", {"limits": {"cpu": "1", "memory": "1"}, "a": 1}, live) == {"a": 1}


def test_a_whole_map_of_another_is_left_out() -> None:
    live = made({"selector": {"a": "2"}, "x": 1}, {"f:x": {}}, tuner={"f:selector": {}})
    declared = {"selector": {"a": "1"}, "x": 1}
    assert ignoring("spec.selector", declared, live) == handing(declared, live) == {"x": 1}


def test_a_field_of_an_item_without_its_full_key_is_handed_over() -> None:
    theirs: Trees = {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:nodePort": {}}}}
    live = made({"ports": [HTTP]}, {"f:ports": port(80)}, tuner=theirs)
    assert handing({"ports": [{"port": 80, "nodePort": 1}]}, live) == {"ports": [{"port": 80}]}


# ---- items that are found again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["*", "port=80", "port=80,protocol=TCP"])
def test_an_item_without_a_name_is_found_by_the_recorded_key(key: str) -> None:
    live = made({"ports": [DEBUG, HTTP]}, {"f:ports": port(80, "nodePort")}, hand={"f:ports": port(99)})
    sent = ignoring(f"spec.ports[{key}].nodePort", {"ports": [{"port": 80, "nodePort": 1}]}, live)
    assert sent == {"ports": [{"port": 80, "nodePort": 30080}]}


def mounts(*read_only: bool) -> Any:
    return {"m": [{"name": "d", "mountPath": f"/{at}", "readOnly": value} for at, value in enumerate(read_only)]}


def test_items_of_one_name_are_told_apart_by_the_recorded_key() -> None:
    recorded: Trees = {".": {}, "f:name": {}, "f:mountPath": {}, "f:readOnly": {}}
    ours: Trees = {"f:m": {f'k:{{"mountPath":"/{at}"}}': recorded for at in (0, 1)}}
    live = made(mounts(True, False), ours)
    assert ignoring("spec.m[*].readOnly", mounts(False, True), live) == mounts(True, False)
    assert ignoring("spec.m[name=d].readOnly", mounts(False, True), live) == mounts(True, False)


def test_items_that_cannot_be_told_apart_are_sent_as_declared() -> None:
    for path in ("spec.m[*].readOnly", "spec.m[name=d].readOnly", "spec.m[name=d]"):
        assert ignoring(path, mounts(False, True), made(mounts(True, False))) == mounts(False, True)


def test_a_new_item_is_sent_whole() -> None:
    live = made({"ports": [HTTP]}, {"f:ports": port(80, "nodePort")})
    sent = ignoring("spec.ports[*].nodePort", {"ports": [{"port": 80}, {"port": 81, "nodePort": 2}]}, live)
    assert sent == {"ports": [{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 2}]}


def test_the_key_of_the_path_finds_an_item_whose_recorded_key_changed() -> None:
    ours: Trees = {"f:ports": port(80, "nodePort", "name")}
    live = made({"ports": [{**HTTP, "name": "http"}]}, ours)
    declared = {"ports": [{"name": "http", "port": 8080, "nodePort": 1}]}
    sent = ignoring("spec.ports[name=http].nodePort", declared, live)
    assert sent == {"ports": [{"name": "http", "port": 8080, "nodePort": 30080}]}


# ---- places that Git does not declare any more ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "declared", "sent"),
    [
        ("spec.replicas", {"x": 1}, {"x": 1, "replicas": 7}),
        ("spec.limits.cpu", {"x": 1, "limits": {"memory": "2"}}, {"x": 1, "limits": {"memory": "2", "cpu": "9"}}),
        ("spec.limits.cpu", {"x": 1}, {"x": 1, "limits": {"cpu": "9"}}),
        ("spec.limits", {"x": 1}, {"x": 1, "limits": {"cpu": "9", "memory": "9"}}),
        ("spec.limits[*]", {"x": 1}, {"x": 1, "limits": {"cpu": "9", "memory": "9"}}),
        ("spec.limits.disk", {"x": 1}, {"x": 1}),  # nobody's: what a server fills in is not ours to send
        ("spec.theirs", {"x": 1}, {"x": 1}),
        ("spec.x.y", {"x": 1}, {"x": 1}),
        ("spec[*].cpu", {"x": 1}, {"x": 1, "limits": {"cpu": "9"}}),
    ],
)
def test_an_ignored_field_that_is_ours_and_not_declared_any_more_is_sent_as_it_is_live(
    path: str, declared: Any, sent: Any
) -> None:
    """A sole owner that stops sending a field deletes it."""
    spec = {"x": 1, "replicas": 7, "limits": {"cpu": "9", "memory": "9", "disk": "9"}, "theirs": 3}
    ours: Trees = {"f:x": {}, "f:replicas": {}, "f:limits": {"f:cpu": {}, "f:memory": {}}}
    live = made(spec, ours, hand={"f:theirs": {}})
    assert ignoring(path, declared, live) == sent


def test_an_ignored_field_that_another_owns_too_is_let_go_when_git_drops_it() -> None:
    live = made({"x": 1, "replicas": 7}, {"f:x": {}, "f:replicas": {}}, scaler={"f:replicas": {}})
    assert ignoring("spec.replicas", {"x": 1}, live) == {"x": 1}


FIRST, SECOND, LAST = ({"name": name, "image": "i"} for name in ("first", "second", "last"))


def containers(*names: str) -> Trees:
    return {"f:all": {f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}, "f:image": {}} for name in names}}


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        ([FIRST, LAST], [FIRST, SECOND, LAST]),
        ([LAST, FIRST], [SECOND, LAST, FIRST]),
        ([{"name": "new"}, LAST], [{"name": "new"}, SECOND, LAST]),
        ([], [SECOND]),
        (None, [SECOND]),
    ],
)
def test_an_ignored_item_that_git_drops_stays_in_its_place(declared: Any, sent: Any) -> None:
    spec = {"x": 1, **({} if declared is None else {"all": declared})}
    by_key = made({"x": 1, "all": [FIRST, SECOND, LAST]}, containers("first", "second", "last"))
    assert ignoring("spec.all[name=second]", spec, by_key) == {"x": 1, "all": sent}
    atomic = made({"x": 1, "all": [FIRST, SECOND, LAST]}, {"f:all": {}})
    assert ignoring("spec.all[name=second]", spec, atomic) == {"x": 1, "all": sent}


def test_an_item_that_git_drops_goes_though_a_field_of_it_is_ignored() -> None:
    """What is left of it without the rest would be no item."""
    live = made({"all": [FIRST, SECOND]}, containers("first", "second"))
    for path in ("spec.all[name=second].image", "spec.all[*].image"):
        assert ignoring(path, {"all": [FIRST]}, live) == {"all": [FIRST]}


def test_an_ignored_item_of_another_is_no_business_of_ours() -> None:
    live = made({"all": [FIRST, SECOND]}, containers("first"), hand=containers("second"))
    assert ignoring("spec.all[name=second]", {"all": [FIRST]}, live) == {"all": [FIRST]}


@pytest.mark.parametrize("path", ["spec.flinkConfiguration.a.b", "spec.flinkConfiguration[a.b]"])
@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        ({"c": "1"}, {"c": "1", "a.b": "9"}),
        (None, {"a.b": "9"}),
        ({"c": "1", "a": {"b": "2"}}, {"c": "1", "a.b": "9"}),  # declared, though spelled anew
        ({"a": {"b": "2"}}, {"a.b": "9"}),
    ],
)
def test_an_ignored_key_of_flinks_configuration_that_git_drops_stays(path: str, declared: Any, sent: Any) -> None:
    ours: Trees = {"f:image": {}, "f:flinkConfiguration": {"f:a.b": {}, "f:c": {}}}
    flink = {"apiVersion": "flink.apache.org/v1beta1", "kind": "FlinkDeployment"}
    live = {**made({"image": "i", "flinkConfiguration": {"a.b": "9", "c": "1"}}, ours), **flink}
    spec = {"image": "i", **({} if declared is None else {"flinkConfiguration": declared})}
    found = as_sent({**made(spec), **flink}, live, ObjectRule(ignore=(parse_field_path(path),)))
    assert found["spec"] == {"image": "i", "flinkConfiguration": sent}
