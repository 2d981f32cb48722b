"""Reading managedFields, and the values and places the comparison speaks of."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from reconciler.core.flink_config import flatten
from reconciler.core.managed_fields import (
    applied_fields,
    foreign_fields,
    key_fields,
    manages_inside,
    our_entries,
    set_value,
)
from reconciler.core.values import clean_text, pointer, quantity, strictly_equal
from reconciler.core.whole_values import Relation, relation


def _entry(manager: str, **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:a": {}}}, **more}


def _live(*entries: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "managedFields": list(entries)}}


def test_our_one_entry_is_found_among_others() -> None:
    live = _live(
        _entry("helm"), _entry("reconciler", fieldsV1={"f:data": {}}), _entry("reconciler", subresource="status")
    )
    assert applied_fields(live, "v1") == {"f:data": {}}
    assert len(our_entries(live)) == 1


@pytest.mark.parametrize(
    "entries",
    [
        [],
        ["junk", None],
        [_entry("helm")],
        [_entry("reconciler", operation="Update")],
        [_entry("reconciler", apiVersion="v2")],
        [_entry("reconciler"), _entry("reconciler", apiVersion="v2")],
        [_entry("reconciler", fieldsV1=None)],
    ],
)
def test_anything_else_is_not_certain(entries: list[Any]) -> None:
    assert applied_fields(_live(*entries), "v1") is None


def test_others_that_reach_the_object_itself() -> None:
    spec: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    live = _live(
        _entry("reconciler"),
        _entry("operator", operation="Update", fieldsV1={"f:metadata": {"f:finalizers": {}}, "f:status": {}}),
        _entry("hpa", subresource="scale", fieldsV1=spec),
        _entry("kubectl", operation="Update", fieldsV1=spec),
    )
    assert foreign_fields(live) == [spec]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('k:{"name":"main"}', (("name", "main"),)),
        ('k:{"protocol":"TCP","containerPort":80}', (("containerPort", 80), ("protocol", "TCP"))),
        ("k:{", None),
        ("k:[1]", None),
        ('k:{"a":{}}', None),
    ],
)
def test_keys(name: str, expected: Any) -> None:
    assert key_fields(name) == expected


def test_set_values() -> None:
    assert set_value('v:"a\\u003cb"') == ("str", "a<b")
    assert set_value("v:true") != set_value("v:1")
    assert set_value("v:{}") is None
    assert set_value("v:x") is None


def test_inside() -> None:
    assert manages_inside([{"f:a": {}}])
    assert not manages_inside([{}, {".": {}}])


# ---- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1), ("250m", "0.25"), ("1Gi", 2**30), ("1k", 1000), ("1e3", 1000), ("1E", 10**18), (".5", "0.5"),
        ("-2u", "-0.000002"),
        (2, 2), (0.5, "0.5"), ("", None), ("x", None), ("1 Gi", None), ("2g", None), (True, None),
        (None, None), ("0x10", None),
        ("9" * 60, None), ("1e999", None),
    ],
)  # fmt: skip
def test_quantities(text: Any, number: Any) -> None:
    assert quantity(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("left", "right"),
    [(True, 1), (1, 1.0), ("1", 1), (None, False), ([1], [True]), ({"a": 0}, {"a": False}), ([], {}), ("", None)],
)
def test_what_python_calls_equal_is_not_always(left: Any, right: Any) -> None:
    assert not strictly_equal(left, right)
    assert strictly_equal(left, left)


@pytest.mark.parametrize(
    ("desired", "live", "expected"),
    [
        ({"a": 1}, {"a": 1}, Relation.EQUAL),
        ({"a": 1}, {"a": 1, "b": 2}, Relation.DOUBTFUL),
        ({"a": 1, "b": ""}, {"a": 1}, Relation.DIFFERENT),
        ({"a": 1, "b": "x"}, {"a": 1}, Relation.DIFFERENT),
        ({"a": 1}, {"a": 2, "b": 2}, Relation.DIFFERENT),
        ([1], [1, 2], Relation.DIFFERENT),
        ([{"cpu": "1"}], [{"cpu": "1000m"}], Relation.DIFFERENT),
        (1.0, 1, Relation.EQUAL),
        (True, 1, Relation.DIFFERENT),
        ([], {}, Relation.DOUBTFUL),
        ("a", None, Relation.DIFFERENT),
    ],
)
def test_relations(desired: Any, live: Any, expected: Relation) -> None:
    assert relation(desired, live) is expected


@pytest.mark.parametrize(
    ("desired", "live", "place", "expected"),
    [
        ("1000m", "1", ("limits", "cpu"), Relation.EQUAL),
        ("1Gi", "1073741824", ("limits", "memory"), Relation.DOUBTFUL),
        ("1000m", "1", ("labels", "cpu"), Relation.DOUBTFUL),
        ("", "default-scheduler", ("spec", "schedulerName"), Relation.DOUBTFUL),
        (0, 10, ("httpGet", "periodSeconds"), Relation.DOUBTFUL),
        (False, True, ("spec", "hostNetwork"), Relation.DIFFERENT),
        ({"a": 1, "gated": "x"}, {"a": 1}, ("spec", "sources"), Relation.DOUBTFUL),
        ({"matchLabels": {}, "matchExpressions": []}, {}, ("spec", "podSelector"), Relation.EQUAL),
        ({"fieldPath": "x"}, {"fieldPath": "x", "apiVersion": "v1"}, ("valueFrom", "fieldRef"), Relation.EQUAL),
        ({"fieldPath": "x"}, {"fieldPath": "x", "apiVersion": "v2"}, ("valueFrom", "fieldRef"), Relation.DOUBTFUL),
    ],
)
def test_what_the_server_does_to_built_in_kinds(desired: Any, live: Any, place: Any, expected: Relation) -> None:
    assert relation(desired, live, built_in=True, place=place) is expected


def test_pointers() -> None:
    assert pointer(()) == ""
    assert pointer(("a/b", 0, "c~d", "")) == "/a~1b/0/c~0d/"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("a\r\nb\tc\x00d", "a b c d"),
        ("left\u202eright\u200b", "leftright"),
        ("Grüße ✓", "Grüße ✓"),
        ("x" * 400, "x" * 299 + "…"),
        ({"a": 1}, "{'a': 1}"),
        (None, "None"),
    ],
)
def test_hostile_text_becomes_one_clean_line(text: Any, expected: str) -> None:
    assert clean_text(text) == expected


def test_a_configuration_is_flattened_as_the_operator_does() -> None:
    nested = {"a": {"b": True, "c": [1, {"d": "x"}]}, "e.f": 1.5, "g": None}
    assert flatten(nested) == {"a.b": "true", "a.c[0]": "1", "a.c[1].d": "x", "e.f": "1.5", "g": "null"}
    assert flatten(None) == flatten("x") == {}
