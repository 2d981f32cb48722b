"""What the generated corpus (tests/corpus) found, made small: what a server does to an object that is no difference,
and what is one though it hides well."""

from __future__ import annotations

import copy
from typing import Any

from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.model import Manifest, Sync
from tests.core.field_owners import applied, deployment, entry, flink_deployment


def _ours(live: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = live["metadata"]["managedFields"][0]["fieldsV1"]
    return found


def test_a_key_that_the_server_defaulted_is_in_sync() -> None:
    desired = deployment()
    live = applied(desired)
    del desired["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"]
    containers = _ours(live)["f:spec"]["f:template"]["f:spec"]["f:containers"]
    del containers['k:{"name":"main"}']["f:ports"]['k:{"containerPort":8080,"protocol":"TCP"}']["f:protocol"]
    assert compare(desired, live).sync is Sync.IN_SYNC
    live["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"] = "http"
    assert compare(desired, live).sync is Sync.IN_SYNC, "what only live has"
    desired["spec"]["template"]["spec"]["containers"][0]["ports"].append({"containerPort": 8080})
    assert compare(desired, live).sync is Sync.ASK, "declared twice"


def test_a_key_of_the_configuration_is_not_inside_a_shorter_one() -> None:
    """`high-availability` holds a text and covers nothing below it."""
    desired = flink_deployment()
    keys = {"high-availability": "kubernetes", "high-availability.storageDir": "s3://ha"}
    desired["spec"]["flinkConfiguration"] = keys
    live = applied(desired)
    assert compare(desired, live).sync is Sync.IN_SYNC
    del _ours(live)["f:spec"]["f:flinkConfiguration"]["f:high-availability.storageDir"]
    found = compare(desired, live)
    assert (found.ownership_only, [change.path for change in found.changes]) == (
        True,
        ["/spec/flinkConfiguration/high-availability.storageDir"],
    )
    desired["spec"]["flinkConfiguration"] = {"high-availability.storageDir": "s3://ha"}
    assert [
        change.op
        for change in compare(
            desired, applied({**desired, "spec": {**desired["spec"], "flinkConfiguration": keys}})
        ).changes
    ] == ["remove"]


def test_a_text_in_a_custom_resource_is_never_rewritten() -> None:
    desired = flink_deployment()
    live = applied(desired)
    desired["spec"]["jobManager"]["resource"]["memory"] = "2G"
    live["spec"]["jobManager"]["resource"]["memory"] = "2000M"
    assert compare(desired, live).sync is Sync.DIFFERS
    desired = flink_deployment()
    live = applied(desired)
    live["spec"]["jobManager"]["resource"]["cpu"] = 1.0
    assert compare(desired, live).sync is Sync.IN_SYNC, "one number"
    desired["spec"]["ingress"] = {}
    assert compare(desired, live).sync is Sync.DIFFERS, "a custom resource keeps what is empty"


def test_a_dry_run_that_takes_a_field_from_its_co_owner() -> None:
    """An apply in other words does that, and changes nothing of ours."""
    desired = deployment()
    live = applied(desired, entry(desired, "helm", "Apply"))
    result = copy.deepcopy(live)
    result["metadata"]["managedFields"].pop()
    assert same_after_dry_run(live, result)
