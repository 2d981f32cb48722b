"""Server-side apply as properties: what a manager applied is what it owns, and what nobody owns any more goes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.shell.transport import Request, Response
from reconciler.sim import merge
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.fieldset import difference
from reconciler.sim.schema import load_catalog
from reconciler.sim.typed import MISSING, same

Object = dict[str, Any]
CATALOG = load_catalog("specimen")
SPECIMEN = CATALOG.kind("contract.reconciler.dev", "Specimen").node
PATH = "/apis/contract.reconciler.dev/v1/namespaces/default/specimens/a"

LETTERS = st.sampled_from(["x", "y", "z"])
WORDS = st.dictionaries(LETTERS, LETTERS, min_size=1, max_size=3)
PORTS = st.lists(
    st.fixed_dictionaries(
        {"port": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "name": LETTERS}
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda port: (port["port"], port.get("protocol", "TCP")),
)
SPECS = st.fixed_dictionaries(
    {"title": LETTERS},
    optional={
        "size": st.integers(0, 10),
        "labels": WORDS,
        "tags": st.lists(LETTERS, min_size=1, unique=True),
        "words": st.lists(LETTERS, max_size=3),
        "ports": PORTS,
        "whole": WORDS,
        "free": st.dictionaries(LETTERS, st.one_of(LETTERS, st.integers(0, 3), WORDS), min_size=1, max_size=3),
    },
)


def apply(server: SimApiServer, spec: Object, manager: str, *, force: bool = True) -> tuple[int, Object]:
    body = {"apiVersion": "contract.reconciler.dev/v1", "kind": "Specimen", "metadata": {"name": "a"}, "spec": spec}
    query = (("fieldManager", manager), ("force", str(force).lower()))
    headers = (("Content-Type", "application/apply-patch+yaml"),)
    answer = server.handle(Request("PATCH", PATH, query, headers, orjson.dumps(body)))
    assert isinstance(answer, Response)
    return answer.status, orjson.loads(answer.body)


def canonical(items: list[Any]) -> list[bytes]:
    """Items in an order of their own: a merge keeps the live list's order where it can."""
    return sorted(orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in items)


def fields_of(value: Object, manager: str) -> Any:
    return next(one["fieldsV1"] for one in value["metadata"]["managedFields"] if one["manager"] == manager)


@settings(max_examples=100, deadline=None)
@given(SPECS)
def test_an_apply_is_idempotent_and_owns_what_it_said(spec: Object) -> None:
    server = SimApiServer(catalog=CATALOG)
    status, first = apply(server, spec, "one")
    assert status == 201
    assert fields_of(first, "one") == merge.field_set(SPECIMEN, {"spec": spec})
    assert apply(server, spec, "one") == (200, first)
    assert len(server.log) == 2
    assert [entry.changed for entry in server.log] == [True, False]


@settings(max_examples=100, deadline=None)
@given(SPECS, SPECS)
def test_the_second_apply_decides_and_only_what_is_declared_stays(first: Object, second: Object) -> None:
    server = SimApiServer(catalog=CATALOG)
    apply(server, first, "one")
    status, after = apply(server, second, "one")
    if status == 422:
        # The real server refuses to empty a map of a custom kind in this way; nothing was changed.
        assert "null" in after["message"]
        return
    assert status == 200
    fresh = SimApiServer(catalog=CATALOG)
    _, expected = apply(fresh, second, "one")
    assert fields_of(after, "one") == fields_of(expected, "one")
    assert sorted(after["spec"]) == sorted(expected["spec"])
    kept_order = ("tags", "ports")
    assert {k: v for k, v in after["spec"].items() if k not in kept_order} == {
        k: v for k, v in expected["spec"].items() if k not in kept_order
    }
    for name in kept_order:
        assert canonical(after["spec"].get(name, [])) == canonical(expected["spec"].get(name, []))


@settings(max_examples=100, deadline=None)
@given(SPECS, SPECS)
def test_a_dropped_field_goes_only_when_nobody_else_owns_it(first: Object, second: Object) -> None:
    server = SimApiServer(catalog=CATALOG)
    apply(server, first, "one")
    apply(server, second, "two")
    status, after = apply(server, {"title": second["title"]}, "one")
    if status == 422:
        assert "null" in after["message"]
        return
    assert status == 200
    everything = merge.field_set(SPECIMEN, {"spec": after["spec"]})
    assert difference(fields_of(after, "two"), everything) == {}, "what the other manager owns is still there"
    assert set(after["spec"]) <= set(second) | {"title", "size"}, "size falls to its default"


@settings(max_examples=100, deadline=None)
@given(SPECS, SPECS)
def test_without_force_an_apply_changes_all_or_nothing(first: Object, second: Object) -> None:
    server = SimApiServer(catalog=CATALOG)
    _, before = apply(server, first, "one")
    status, answer = apply(server, second, "two", force=False)
    if status == 409:
        assert {cause["reason"] for cause in answer["details"]["causes"]} == {"FieldManagerConflict"}
        assert apply(server, first, "one") == (200, before)
    else:
        assert status == 200
        merged = merge.merge(SPECIMEN, {"spec": answer["spec"]}, {"spec": first})
        # Items may stand in another order: whoever applies last orders what both have.
        for name, value in answer["spec"].items():
            stands = merged["spec"].get(name)
            if name in ("tags", "ports"):
                assert canonical(stands) == canonical(value), "the first manager's values stand"
            else:
                assert same(stands, value), "the first manager's values stand"


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (True, 1, False),
        (1, 1.0, True),
        ("1", 1, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (None, {}, False),
    ],
)
def test_equality_is_that_of_json(left: Any, right: Any, expected: bool) -> None:
    assert same(left, right) is expected


def test_a_merge_that_changes_nothing_returns_the_live_value() -> None:
    live = {"spec": {"title": "a", "ports": [{"port": 1, "protocol": "TCP"}], "free": {"x": {"y": 1}}}}
    config = {"spec": {"ports": [{"port": 1}], "free": {"x": {"y": 1}}}}
    assert merge.merge(SPECIMEN, live, config) is live
    assert merge.merge(SPECIMEN, live, MISSING) is live
    changed = merge.merge(SPECIMEN, live, {"spec": {"title": "b"}})
    assert changed["spec"]["free"] is live["spec"]["free"], "unchanged parts are shared"
    assert live["spec"]["title"] == "a"
