"""The history of drift: who, when, from what to what, without secrets and bounded."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core.drift import CHANGES_TOLD_MAX, VALUE_LENGTH_MAX, drift_of
from reconciler.core.explain_diff import Change
from reconciler.core.model import Manifest


def declared(kind: str = "ConfigMap", **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "orders"}, "data": data}


def live(wanted: Manifest, changed: dict[str, str | None], manager: str = "kubectl-edit") -> Manifest:
    """`wanted` as we applied it, with `changed` written by `manager` (None: removed)."""
    found = copy.deepcopy(wanted)
    ours: Any = {"f:data": {".": {}, **{f"f:{name}": {} for name in wanted["data"] if name not in changed}}}
    written: dict[str, Any] = {f"f:{name}": {} for name, value in changed.items() if value is not None}
    theirs: Any = {"f:data": written} if written else {"f:metadata": {"f:labels": {"f:x": {}}}}
    found["data"] = {name: value for name, value in {**wanted["data"], **changed}.items() if value is not None}
    common = {"apiVersion": "v1", "fieldsType": "FieldsV1"}
    found["metadata"]["managedFields"] = [
        {"manager": "reconciler", "operation": "Apply", "time": "2026-01-01T09:00:00Z", "fieldsV1": ours, **common},
        {"manager": manager, "operation": "Update", "time": "2026-01-01T10:00:00Z", "fieldsV1": theirs, **common},
    ]
    return found


def test_a_change_names_its_writer_and_both_values() -> None:
    wanted = declared(a="1", b="1")
    drift = drift_of(wanted, live(wanted, {"a": "2"}))
    by = "kubectl-edit at 2026-01-01T10:00:00Z"
    assert drift.message == f"ConfigMap orders/a was changed by {by}: data.a is 2, declared 1"
    assert drift.data["object"] == {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "orders", "name": "a"}
    (change,) = drift.data["changes"]
    assert (change["path"], change["op"], change["live"], change["declared"]) == ("/data/a", "replace", "2", "1")
    assert (change["manager"], change["operation"], change["time"]) == (
        "kubectl-edit", "Update", "2026-01-01T10:00:00Z"
    )  # fmt: skip


def test_nobody_owns_what_was_removed_so_the_last_writer_is_named_as_such() -> None:
    wanted = declared(a="1", b="1")
    drift = drift_of(wanted, live(wanted, {"a": None}))
    assert "(the last other writer was kubectl-edit at 2026-01-01T10:00:00Z)" in drift.message
    assert "data.a was removed, declared 1" in drift.message
    assert drift.data["changes"][0]["manager"] == ""


def test_a_deleted_object_says_so() -> None:
    assert drift_of(declared(a="1"), None).message == "ConfigMap orders/a was deleted"


def test_a_secret_is_never_told() -> None:
    wanted = declared("Secret", a="b2xkLXNlY3JldA==", b="MQ==")
    drift = drift_of(wanted, live(wanted, {"a": "bmV3LXNlY3JldA=="}))
    assert "data.a" in drift.message
    for secret in ("b2xkLXNlY3JldA", "bmV3LXNlY3JldA"):
        assert secret not in drift.message + repr(drift.data)


def test_what_only_the_server_can_tell_is_told_in_its_words() -> None:
    wanted = declared(a="1")
    found = live(wanted, {})
    found["metadata"]["managedFields"][0]["manager"] = "somebody"
    drift = drift_of(wanted, found, (Change("/data/a", "data.a", "replace", "2", "1"),))
    assert "data.a is 2, declared 1" in drift.message


@pytest.mark.parametrize("count", [CHANGES_TOLD_MAX, CHANGES_TOLD_MAX + 30])
def test_the_history_is_bounded(count: int) -> None:
    wanted = declared(kept="1", **{f"k{number:03}": "1" for number in range(count)})
    drift = drift_of(wanted, live(wanted, {f"k{number:03}": "x" * 5000 for number in range(count)}))
    assert len(drift.data["changes"]) == CHANGES_TOLD_MAX
    assert all(len(change["live"]) <= VALUE_LENGTH_MAX for change in drift.data["changes"])
    assert drift.message.endswith(f"and {count - 1} more")


def test_hostile_names_are_cleaned() -> None:
    wanted = declared(a="1")
    drift = drift_of(wanted, live(wanted, {"a": "\x1b[31m2\n3"}, manager="\x1b]0;x\x07evil\u202e"))
    assert "\x1b" not in drift.message + drift.data["changes"][0]["manager"]
    assert "\n" not in drift.message
