"""Admission webhooks: what they do to a write, to its dry-run and to ownership, and how their refusals read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.sim.admission import Answer, Fault, Review
from tests.contract.api import Api, Object, managers, owned

DEPLOYMENT: Object = {
    "selector": {"matchLabels": {"a": "b"}},
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "i:1"}]}},
}
#: A write and its rehearsal: what refuses the one refuses the other.
QUERIES: tuple[dict[str, str], ...] = ({}, {"dryRun": "All"})


def put(path: str, value: Any) -> Callable[[Review], Answer]:
    """A webhook that writes one value, and the map around it where there is none."""

    def respond(review: Review) -> Answer:
        assert review.object is not None
        parent, *above = reversed(path.split("/")[1:-1])
        around: Any = review.object
        for part in reversed(above):
            around = around[part]
        operations: list[Object] = []
        if parent not in around:
            operations.append({"op": "add", "path": path.rpartition("/")[0], "value": {}})
        return Answer(patch=[*operations, {"op": "add", "path": path, "value": value}])

    return respond


def mirror(review: Review) -> Answer:
    """A webhook that sends every image to a mirror."""
    assert review.object is not None
    image = review.object["spec"].get("image", "")
    if not image or image.startswith("mirror/"):
        return Answer()
    return Answer(patch=[{"op": "replace", "path": "/spec/image", "value": f"mirror/{image}"}])


def refuse(message: str = "", code: int = 0, reason: str = "") -> Callable[[Review], Answer]:
    """A webhook that refuses everything."""

    def respond(review: Review) -> Answer:
        assert review.operation in ("CREATE", "UPDATE", "DELETE")
        return Answer(allowed=False, message=message, code=code, reason=reason)

    return respond


# ---- what is added -----------------------------------------------------------------------------------------------


def test_what_a_webhook_adds_has_no_owner_and_applying_again_is_no_write(api: Api) -> None:
    with api.webhook("label", put("/metadata/labels/injected", "yes"), mutating=True):
        first = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
        assert first["metadata"]["labels"] == {"injected": "yes"}
        assert managers(first) == [("reconciler", "Apply", "")]
        assert owned(first, "reconciler") == {"f:spec": {"f:image": {}}}
        assert api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(200) == first
        assert api.get("flinkdeployments", "a").expect(200) == first


def test_a_dry_run_shows_what_a_webhook_adds(api: Api) -> None:
    reviews: list[Review] = []
    label = put("/metadata/labels/injected", "yes")

    def respond(review: Review) -> Answer:
        reviews.append(review)
        return label(review)

    with api.webhook("label", respond, mutating=True):
        shown = api.apply("specimens", "a", {"spec": {"title": "a"}}, dryRun="All").expect(201)
        assert shown["metadata"]["labels"] == {"injected": "yes"}
        api.get("specimens", "a").expect(404)
        made = api.apply("specimens", "a", {"spec": {"title": "a"}}).expect(201)
        again = api.apply("specimens", "a", {"spec": {"title": "a"}}, dryRun="All").expect(200)
        assert again == made
    assert [(review.operation, review.dry_run) for review in reviews] == [
        ("CREATE", True),
        ("CREATE", False),
        ("UPDATE", True),
    ]


def test_what_a_webhook_adds_belongs_to_nobody_after_a_create_or_an_edit_either(api: Api) -> None:
    api.create("configmaps", "old", {"data": {"k": "v"}}, fieldManager="one").expect(201)
    with api.webhook("label", put("/metadata/labels/injected", "yes"), mutating=True):
        made = api.create("configmaps", "a", {"data": {"k": "v"}}, fieldManager="one").expect(201)
        assert owned(made, "one", "Update") == {"f:data": {".": {}, "f:k": {}}}
        edited = api.merge("configmaps", "old", {"data": {"k": "w"}}, manager="two").expect(200)
        assert edited["metadata"]["labels"] == {"injected": "yes"}
        assert owned(edited, "two", "Update") == {"f:data": {"f:k": {}}}
        gone = api.merge("configmaps", "old", {"metadata": {"labels": {"injected": None}}}).expect(200)
        assert gone == edited, "taking it away is undone before anything is stored"


def test_a_field_that_a_webhook_added_can_be_ours_later(api: Api) -> None:
    with api.webhook("label", put("/metadata/labels/injected", "yes"), mutating=True):
        api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    taken = api.apply("configmaps", "a", {"metadata": {"labels": {"injected": "no"}}, "data": {"k": "v"}}).expect(200)
    assert taken["metadata"]["labels"] == {"injected": "no"}, "nobody owned it: no conflict"
    assert owned(taken, "reconciler")["f:metadata"] == {"f:labels": {"f:injected": {}}}
    assert "labels" not in api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(200)["metadata"]


def test_a_sidecar_stands_beside_our_containers(api: Api) -> None:
    def sidecar(review: Review) -> Answer:
        assert review.object is not None
        containers = review.object["spec"]["template"]["spec"]["containers"]
        if any(container["name"] == "side" for container in containers):
            return Answer()
        path = "/spec/template/spec/containers/-"
        return Answer(patch=[{"op": "add", "path": path, "value": {"name": "side", "image": "s:1"}}])

    with api.webhook("sidecar", sidecar, mutating=True, resources=("deployments",)):
        first = api.apply("deployments", "a", {"spec": DEPLOYMENT}).expect(201)
        main, side = first["spec"]["template"]["spec"]["containers"]
        assert (main["name"], side["name"]) == ("main", "side")
        assert side["imagePullPolicy"] == "IfNotPresent", "defaults are set in what a webhook adds, too"
        containers = owned(first, "reconciler")["f:spec"]["f:template"]["f:spec"]["f:containers"]
        assert list(containers) == ['k:{"name":"main"}']
        assert api.apply("deployments", "a", {"spec": DEPLOYMENT}).expect(200) == first


def test_unknown_fields_of_a_webhook_are_lost_and_its_nonsense_is_refused(api: Api) -> None:
    with api.webhook("unknown", put("/spec/surprise", 1), mutating=True, resources=("specimens",)):
        assert api.apply("specimens", "a", {"spec": {"title": "a"}}).expect(201)["spec"] == {"title": "a", "size": 3}
    with api.webhook("large", put("/spec/size", 99), mutating=True, resources=("specimens",)):
        error = api.apply("specimens", "b", {"spec": {"title": "a"}}).expect_error(422, "Invalid")
        assert [cause["field"] for cause in error["details"]["causes"]] == ["spec.size"]
    with api.webhook("type", put("/data/k", 1), mutating=True, resources=("configmaps",)):
        error = api.apply("configmaps", "c", {"data": {"l": "v"}}).expect_error(500, "InternalError")
        assert error["message"].startswith("Internal error occurred: json: cannot unmarshal")

    def removes(review: Review) -> Answer:
        assert review.object is not None
        return Answer(patch=[{"op": "remove", "path": "/spec/absent"}])

    with api.webhook("patch", removes, mutating=True):
        error = api.apply("configmaps", "c", {}).expect_error(500, "InternalError")
        assert error["message"] == (
            'Internal error occurred: remove operation does not apply: doc is missing path: "/spec/absent": '
            "missing value"
        )


# ---- what is changed: the difference that no apply ends ------------------------------------------------------------


def test_a_field_of_ours_that_a_webhook_changes_stays_ours_with_another_value(api: Api) -> None:
    with api.webhook("mirror", mirror, mutating=True):
        first = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
        assert first["spec"] == {"image": "mirror/x"}
        assert managers(first) == [("reconciler", "Apply", "")]
        assert owned(first, "reconciler") == {"f:spec": {"f:image": {}}}
        assert api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(200) == first, "no write"
        forced = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}, force="true").expect(200)
        assert forced == first, "force changes nothing about it"


def test_only_a_dry_run_tells_that_an_apply_would_change_nothing(api: Api) -> None:
    with api.webhook("mirror", mirror, mutating=True):
        first = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
        assert api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}, dryRun="All").expect(200) == first
        shown = api.apply("flinkdeployments", "a", {"spec": {"image": "z"}}, dryRun="All").expect(200)
        assert shown["spec"] == {"image": "mirror/z"}
        assert shown["metadata"]["generation"] == 2
    # Without the webhook the same apply is a write: the value in store is not ours.
    after = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(200)
    assert (after["spec"], after["metadata"]["generation"]) == ({"image": "x"}, 2)


def test_another_manager_conflicts_with_us_over_a_value_that_is_neither_s(api: Api) -> None:
    with api.webhook("mirror", mirror, mutating=True):
        api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
        other = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}, manager="other")
        assert other.expect_error(409, "Conflict")["details"]["causes"][0]["field"] == ".spec.image"
        same = api.apply("flinkdeployments", "a", {"spec": {"image": "mirror/x"}}, manager="other").expect(200)
        assert managers(same) == [("other", "Apply", ""), ("reconciler", "Apply", "")]


def test_a_field_of_ours_that_a_webhook_takes_away_is_owned_and_absent(api: Api) -> None:
    def drop(review: Review) -> Answer:
        assert review.object is not None
        present = "mode" in review.object["spec"]
        return Answer(patch=[{"op": "remove", "path": "/spec/mode"}] if present else ())

    with api.webhook("drop", drop, mutating=True):
        mine = {"spec": {"image": "x", "mode": "native"}}
        first = api.apply("flinkdeployments", "a", mine).expect(201)
        assert first["spec"] == {"image": "x"}
        assert owned(first, "reconciler") == {"f:spec": {"f:image": {}, "f:mode": {}}}
        assert api.apply("flinkdeployments", "a", mine).expect(200) == first


def test_a_webhook_that_wipes_managed_fields_makes_us_nobody(api: Api) -> None:
    def wipe(review: Review) -> Answer:
        assert review.object is not None
        return Answer(patch=[{"op": "add", "path": "/metadata/managedFields", "value": []}])

    with api.webhook("wipe", wipe, mutating=True):
        made = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
        assert "managedFields" not in made["metadata"]


# ---- order -------------------------------------------------------------------------------------------------------


def note(name: str) -> Callable[[Review], Answer]:
    """A webhook that writes its name behind those that were there before it."""

    def respond(review: Review) -> Answer:
        assert review.object is not None
        before = review.object["data"].get("seen", "")
        return Answer(patch=[{"op": "add", "path": "/data/seen", "value": before + name}])

    return respond


def test_mutating_webhooks_come_in_the_order_of_their_names(api: Api) -> None:
    with api.webhook("c", note("c"), mutating=True), api.webhook("a", note("a"), mutating=True):
        assert api.apply("configmaps", "x", {"data": {"k": "v"}}).expect(201)["data"] == {"k": "v", "seen": "ac"}


def test_a_webhook_may_ask_to_see_what_later_ones_did(api: Api) -> None:
    again: dict[str, Any] = {"mutating": True, "reinvocation": "IfNeeded"}
    with api.webhook("a", note("a"), **again), api.webhook("b", note("b"), mutating=True):
        assert api.apply("configmaps", "x", {"data": {"k": "v"}}).expect(201)["data"]["seen"] == "aba"


def test_validating_webhooks_see_the_result_and_only_what_is_valid(api: Api) -> None:
    seen: list[tuple[str, bool, Object | None]] = []

    def observe(review: Review) -> Answer:
        seen.append((review.operation, review.dry_run, review.object and review.object.get("spec")))
        return Answer()

    with (
        api.webhook("mirror", mirror, mutating=True, resources=("flinkdeployments",)),
        api.webhook("observe", observe, operations=("CREATE", "UPDATE", "DELETE")),
    ):
        api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
        api.apply("flinkdeployments", "a", {"spec": {"mode": "turbo"}}).expect(422)
        api.apply("flinkdeployments", "a", {"spec": {"image": "y"}}, manager="other").expect(409)
        api.apply("flinkdeployments", "a", {"spec": {"surprise": 1}}).expect(500)
        api.merge("flinkdeployments", "a", {"status": {"error": "x"}}, sub="status").expect(200)
        api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(200)
        api.delete("flinkdeployments", "a", dryRun="All").expect(200)
    image = {"image": "mirror/x"}
    # An API server that began from an older state than the stored one begins anew, and asks a second time.
    asked = [review for review, _ in itertools.groupby(seen)]
    assert asked == [("CREATE", False, image), ("UPDATE", False, image), ("DELETE", True, None)]


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "reason", "end"),
    [
        ({}, 400, None, " without explanation"),
        ({"message": "no"}, 400, None, ": no"),
        ({"message": "no", "code": 200}, 400, None, ": no"),
        ({"message": "no", "code": 403, "reason": "Forbidden"}, 403, "Forbidden", ": no"),
        ({"message": "no", "code": 422, "reason": "Invalid"}, 422, "Invalid", ": no"),
        ({"message": "no", "code": 409, "reason": "Conflict"}, 409, "Conflict", ": no"),
        ({"message": "no", "code": 500, "reason": "InternalError"}, 500, "InternalError", ": no"),
        ({"reason": "Sealed", "code": 403}, 403, "Sealed", ": Sealed"),
    ],
    ids=["nothing", "message", "code-of-a-success", "forbidden", "invalid", "conflict", "internal", "reason-only"],
)
@pytest.mark.parametrize("mutating", [False, True], ids=["validating", "mutating"])
def test_a_refusal_carries_what_the_webhook_said(
    api: Api, status: dict[str, Any], code: int, reason: str | None, end: str, mutating: bool
) -> None:
    with api.webhook("deny", refuse(**status), mutating=mutating):
        for query in QUERIES:
            error = api.apply("configmaps", "a", {"data": {"k": "v"}}, **query).expect_error(code, reason)
            name = f"deny.{api.namespace}.admission.test"
            assert error["message"] == f'admission webhook "{name}" denied the request{end}'
            assert "details" not in error
    api.get("configmaps", "a").expect(404)


def test_a_webhook_may_refuse_updates_alone(api: Api) -> None:
    with api.webhook("frozen", refuse("frozen", 403), operations=("UPDATE",)):
        made = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
        for query in (*QUERIES, {"force": "true"}):
            api.apply("configmaps", "a", {"data": {"k": "w"}}, **query).expect_error(403, None)
        api.merge("configmaps", "a", {"data": {"k": "w"}}).expect_error(403, None)
        api.apply("configmaps", "a", {"data": {"k": "v"}}).expect_error(403, None)
        assert api.get("configmaps", "a").expect(200) == made, "even a write that changes nothing is asked about"
        api.delete("configmaps", "a").expect(200)


def test_a_webhook_may_refuse_deletions(api: Api) -> None:
    plain = api.create("configmaps", "plain", {}).expect(201)
    held = api.create("configmaps", "held", {"metadata": {"finalizers": ["x.test/y"]}}).expect(201)
    with api.webhook("keep", refuse("keep it", 403), operations=("DELETE",)):
        for made in (plain, held):
            name = made["metadata"]["name"]
            for query in QUERIES:
                error = api.delete("configmaps", name, None, **query).expect_error(403, None)
                assert error["message"].endswith("denied the request: keep it")
            assert api.get("configmaps", name).expect(200) == made
        uid = {"preconditions": {"uid": "other"}}
        api.delete("configmaps", "plain", uid).expect_error(409, "Conflict")
    api.delete("configmaps", "plain").expect(200)


# ---- side effects and faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_effects", ["Some", "Unknown"])
@pytest.mark.parametrize("mutating", [False, True], ids=["validating", "mutating"])
def test_a_webhook_with_side_effects_refuses_dry_runs(api: Api, side_effects: str, mutating: bool) -> None:
    called: list[Review] = []

    def allow(review: Review) -> Answer:
        called.append(review)
        return Answer()

    with api.webhook("effects", allow, side_effects=side_effects, mutating=mutating):
        error = api.apply("configmaps", "a", {}, dryRun="All").expect_error(400, "BadRequest")
        assert error["message"] == (
            f'admission webhook "effects.{api.namespace}.admission.test" does not support dry run'
        )
        assert called == []
        api.apply("configmaps", "a", {}).expect(201)
        assert len(called) == 1
        api.merge("configmaps", "a", {"data": {"k": "v"}}, dryRun="All").expect_error(400, "BadRequest")
        api.delete("configmaps", "a", dryRun="All").expect(200)


def test_a_webhook_without_side_effects_on_dry_runs_is_asked(api: Api) -> None:
    with api.webhook("careful", refuse("no"), side_effects="NoneOnDryRun"):
        api.apply("configmaps", "a", {}, dryRun="All").expect_error(400, None)


FAULTS = {
    Fault.DOWN: "connect: connection refused",
    Fault.SLOW: '?timeout=1s": context deadline exceeded',
    Fault.HANG_UP: "EOF",
    Fault.ERROR: "has prevented the request from succeeding",
    Fault.MALFORMED: 'no kind "ConfigMap" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111"',
}


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("mutating", [False, True], ids=["validating", "mutating"])
def test_a_webhook_that_does_not_answer_fails_the_write(api: Api, fault: Fault, mutating: bool) -> None:
    with api.webhook("broken", fault, timeout_s=1, mutating=mutating):
        for query in QUERIES:
            error = api.apply("configmaps", "a", {"data": {"k": "v"}}, **query).expect_error(500, "InternalError")
            name = f"broken.{api.namespace}.admission.test"
            begin = f'Internal error occurred: failed calling webhook "{name}": failed to call webhook: '
            assert error["message"].startswith(begin)
            assert error["message"].endswith(FAULTS[fault])
            assert error["details"]["causes"] == [{"message": error["message"].partition(": ")[2]}]
    api.get("configmaps", "a").expect(404)


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
def test_a_webhook_that_does_not_answer_may_be_overlooked(api: Api, fault: Fault) -> None:
    with api.webhook("broken", fault, timeout_s=1, failure_policy="Ignore"):
        made = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
        assert made["data"] == {"k": "v"}


def test_a_validating_webhook_that_would_change_something_fails(api: Api) -> None:
    with api.webhook("wrong", put("/data/l", "x")):
        error = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect_error(500, "InternalError")
        assert error["message"].endswith(
            "received invalid webhook response: validating webhook may not return response.patch"
        )
