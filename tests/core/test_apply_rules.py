"""How objects are written beside what they are: paths, rules, what is left to others, what is taken over."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core import adopt
from reconciler.core.apply_rules import (
    DEFAULT_RULES,
    ApplyRules,
    Match,
    ObjectRule,
    rules_by_object,
    rules_from_text,
    rules_of,
)
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import compare
from reconciler.core.field_paths import FieldPathError, Key, last_writer, parse_field_path, writers_of
from reconciler.core.model import Manifest, ObjectKey, Sync
from reconciler.core.moves import moved_job
from reconciler.core.problems import Severity
from reconciler.core.waits import FINALIZERS_DEADLINE_S, finalizers_hold, not_ready
from tests.core.fleets import FLEET, application, build, config_map, fleet_files, manifests

OWNER = "0123456789abcdef0123456789abcdef"

# ---- paths ---------------------------------------------------------------------------------------------------------

MAIN = Key((("name", "main"),))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("/spec/replicas", ("spec", "replicas")),
        ("spec.replicas", ("spec", "replicas")),
        ("spec.template.spec.containers[name=main].image", ("spec", "template", "spec", "containers", MAIN, "image")),
        ("/spec/containers/[name=main]/image", ("spec", "containers", MAIN, "image")),
        ("spec.ports[port=80,protocol=TCP]", ("spec", "ports", Key((("port", "80"), ("protocol", "TCP"))))),
        ("metadata.annotations[example.org/by-hand]", ("metadata", "annotations", "example.org/by-hand")),
        ("/metadata/annotations/example.org~1by-hand", ("metadata", "annotations", "example.org/by-hand")),
        ("/data/a~0b", ("data", "a~b")),
        ("data", ("data",)),
        ("webhooks.*.clientConfig.caBundle", ("webhooks", "*", "clientConfig", "caBundle")),
        (
            "/spec/flinkConfiguration/taskmanager.numberOfTaskSlots",
            ("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"),
        ),
    ],
)
def test_both_spellings_of_a_path(text: str, steps: tuple[Any, ...]) -> None:
    assert parse_field_path(text).steps == steps
    assert parse_field_path(text).text == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 to 512 characters"),
        ("/" + "a" * 512, "1 to 512 characters"),
        ("/", "an empty name"),
        ("spec..replicas", "character 6"),
        ("spec.", "end with a dot"),
        ("spec.a]b", "character 7"),
        ("spec.containers[0].image", "item 0 of a list may become another"),
        ("/spec/containers/0/image", "item 0 of a list may become another"),
        ("/spec/containers/[=main]", "is not a key"),
        ("/spec", "the whole object"),
        ("*", "the whole object"),
        ("metadata", "the whole object"),
        ("metadata.name", "which object this is"),
        ("metadata.*", "which object this is"),
        ("kind", "which object this is"),
        ("status.phase", "never compared"),
        ("metadata.labels", "the marks by which we know"),
        ("metadata.labels.*", "the marks by which we know"),
        ("metadata.labels[reconciler.dev/owner]", "the reconciler's own"),
    ],
)
def test_paths_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(FieldPathError, match=says):
        parse_field_path(text)


# ---- rules ---------------------------------------------------------------------------------------------------------

DEPLOYMENT = ObjectKey("apps", "Deployment", "orders", "web")


def test_rules_survive_the_store() -> None:
    properties = {
        "adopt": "ifUnowned",
        "conflicts": "fail",
        "selfHeal": False,
        "objects": [
            {
                "match": {"kind": "Deployment", "group": "apps"},
                "ignoreDifferences": ["/spec/replicas"],
                "handover": ["vpa", "vpa", "other"],
                "replace": True,
            }
        ],
    }
    rules = rules_of(properties)
    assert rules_from_text(rules.as_text()) == rules
    assert (rules.adopt, rules.conflicts, rules.self_heal) == ("ifUnowned", "fail", False)
    assert rules.objects[0].handover == ("other", "vpa")
    assert DEFAULT_RULES.as_text() == ""
    assert rules_from_text("") == DEFAULT_RULES == rules_of({})


def manifest(kind: str, name: str, version: str = "apps/v1", **spec: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "orders"}, "spec": spec}


def autoscaler(target: str, kind: str = "Deployment", version: str = "apps/v1") -> Manifest:
    reference = {"apiVersion": version, "kind": kind, "name": target}
    return manifest("HorizontalPodAutoscaler", "scaler", "autoscaling/v2", scaleTargetRef=reference, maxReplicas=9)


def test_all_matching_rules_are_united() -> None:
    rules = ApplyRules(
        objects=(
            ObjectRule(Match(kind="Deployment"), (parse_field_path("/spec/replicas"),), ("a",)),
            ObjectRule(Match(name="web"), (parse_field_path("spec.paused"),), ("b",), replace=True),
            ObjectRule(Match(name="other"), (parse_field_path("spec.strategy"),)),
        )
    )
    found = rules_by_object(rules, [manifest("Deployment", "web"), manifest("ConfigMap", "c", "v1")])
    (rule,) = found.values()
    assert [path.text for path in rule.ignore] == ["/spec/replicas", "spec.paused"]
    assert rule.handover == ("a", "b")
    assert rule.replace


@pytest.mark.parametrize(
    ("kind", "version", "path"),
    [
        ("Deployment", "apps/v1", "/spec/replicas"),
        ("StatefulSet", "apps/v1", "/spec/replicas"),
        ("FlinkDeployment", "flink.apache.org/v1beta1", "/spec/taskManager/replicas"),
        ("Widget", "example.org/v1", None),
    ],
)
def test_an_autoscaler_in_the_release_hands_its_field_over(kind: str, version: str, path: str | None) -> None:
    objects = [manifest(kind, "web", version), autoscaler("web", kind, version), manifest(kind, "other", version)]
    found = rules_by_object(DEFAULT_RULES, objects)
    assert [(key.name, [each.text for each in rule.ignore]) for key, rule in found.items()] == (
        [("web", [path])] if path else []
    )


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("PersistentVolumeClaim", "v1"),
        ("Namespace", "v1"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1"),
        ("FlinkDeployment", "flink.apache.org/v1beta1"),
    ],
)
def test_what_is_never_replaced(kind: str, version: str) -> None:
    rules = ApplyRules(objects=(ObjectRule(replace=True),))
    assert rules_by_object(rules, [manifest(kind, "x", version)]) == {}


# ---- what is sent --------------------------------------------------------------------------------------------------


def entry(manager: str, fields: Any, operation: str = "Update", subresource: str = "", time: str = "") -> Any:
    found = {"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsV1": fields}
    return {**found, **({"subresource": subresource} if subresource else {}), **({"time": time} if time else {})}


WEB = manifest("Deployment", "web", replicas=2, template={"spec": {"containers": [{"name": "main", "image": "a:1"}]}})
CONTAINER: Any = {'k:{"name":"main"}': {".": {}, "f:image": {}, "f:name": {}}}
OURS = {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": CONTAINER}}}}
WITHOUT_REPLICAS = {"f:spec": {"f:template": {"f:spec": {"f:containers": CONTAINER}}}}


def live(replicas: int | None = 2, image: str = "a:1", *entries: Any) -> Manifest:
    found = copy.deepcopy(WEB)
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    if replicas is None:
        del found["spec"]["replicas"]
    else:
        found["spec"]["replicas"] = replicas
    found["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": list(entries)}
    return found


def ignoring(*paths: str, handover: tuple[str, ...] = ()) -> ObjectRule:
    return ObjectRule(ignore=tuple(parse_field_path(path) for path in paths), handover=handover)


REPLICAS = ignoring("/spec/replicas")
IMAGE = "spec.template.spec.containers[name=main].image"


def test_an_ignored_place_is_declared_at_creation() -> None:
    assert as_sent(WEB, None, REPLICAS) is WEB
    assert as_sent(WEB, live(), None) is WEB


def test_a_sole_owner_goes_on_sending_what_is_live() -> None:
    found = live(5, "a:1", entry("reconciler", OURS, "Apply"))
    sent = as_sent(WEB, found, REPLICAS)
    assert sent["spec"]["replicas"] == 5
    assert compare(sent, found).sync is Sync.IN_SYNC
    assert WEB["spec"]["replicas"] == 2


@pytest.mark.parametrize("subresource", ["", "scale"])
def test_what_another_manager_owns_is_left_out(subresource: str) -> None:
    theirs = entry("kube-controller-manager", {"f:spec": {"f:replicas": {}}}, subresource=subresource)
    found = live(5, "a:1", entry("reconciler", WITHOUT_REPLICAS, "Apply"), theirs)
    sent = as_sent(WEB, found, REPLICAS)
    assert "replicas" not in sent["spec"]
    assert compare(sent, found).sync is Sync.IN_SYNC


def test_what_was_removed_by_others_is_not_sent_again() -> None:
    found = live(None, "a:1", entry("reconciler", WITHOUT_REPLICAS, "Apply"))
    assert "replicas" not in as_sent(WEB, found, REPLICAS)["spec"]


def test_other_places_differ_as_ever() -> None:
    found = live(5, "b:1", entry("reconciler", OURS, "Apply"))
    comparison = compare(as_sent(WEB, found, REPLICAS), found)
    assert [change.display for change in comparison.changes] == [IMAGE]


@pytest.mark.parametrize(
    "path", [IMAGE, "spec.template.spec.containers.*.image", "/spec/template/spec/containers/[name=main]/image"]
)
def test_an_ignored_place_in_a_list_item(path: str) -> None:
    found = live(2, "b:1", entry("reconciler", OURS, "Apply"))
    assert compare(as_sent(WEB, found, ignoring(path)), found).sync is Sync.IN_SYNC
    mine: Any = {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
        'k:{"name":"main"}': {".": {}, "f:name": {}}}}}}}  # fmt: skip
    theirs: Any = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"main"}': {"f:image": {}}}}}}}
    found = live(2, "b:1", entry("reconciler", mine, "Apply"), entry("setter", theirs))
    sent = as_sent(WEB, found, ignoring(path))
    assert sent["spec"]["template"]["spec"]["containers"] == [{"name": "main"}]
    assert compare(sent, found).sync is Sync.IN_SYNC


def test_a_map_that_is_ignored_keeps_what_is_live_key_by_key() -> None:
    declared: Any = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "1"}}
    found = copy.deepcopy(declared)
    found["data"] = {"a": "2", "b": "9"}
    ours = {**entry("reconciler", {"f:data": {".": {}, "f:a": {}}}, "Apply"), "apiVersion": "v1"}
    found["metadata"]["managedFields"] = [ours, entry("other", {"f:data": {"f:b": {}}})]
    assert as_sent(declared, found, ignoring("data"))["data"] == {"a": "2"}


def test_flink_configuration_is_one_flat_name() -> None:
    key = "taskmanager.numberOfTaskSlots"
    declared = manifest("FlinkDeployment", "j", "flink.apache.org/v1beta1", flinkConfiguration={key: "2", "x": "1"})
    found = copy.deepcopy(declared)
    found["spec"]["flinkConfiguration"] = {key: "4", "x": "1"}
    sent = as_sent(declared, found, ignoring(f"/spec/flinkConfiguration/{key}"))
    assert sent["spec"]["flinkConfiguration"] == {key: "4", "x": "1"}
    theirs: Any = {"f:spec": {"f:flinkConfiguration": {f"f:{key}": {}}}}
    found["metadata"]["managedFields"] = [entry("tuner", theirs)]
    sent = as_sent(declared, found, ignoring(f"/spec/flinkConfiguration/{key}"))
    assert sent["spec"]["flinkConfiguration"] == {"x": "1"}


def test_a_manager_that_fields_were_handed_over_to_is_not_overruled() -> None:
    theirs: Any = {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
        'k:{"name":"main"}': {".": {}, "f:name": {}, "f:image": {}}}}}}}  # fmt: skip
    found = live(5, "b:1", entry("reconciler", OURS, "Apply"), entry("tuner", theirs), entry("kubectl-edit", OURS))
    sent = as_sent(WEB, found, ignoring(handover=("tuner",)))
    assert sent["spec"] == {"template": {"spec": {"containers": [{"name": "main"}]}}}
    assert as_sent(WEB, found, ignoring(handover=("nobody",))) is WEB


def test_our_marks_are_never_handed_over() -> None:
    declared = copy.deepcopy(WEB)
    declared["metadata"]["labels"] = {"reconciler.dev/owner": OWNER, "tier": "web"}
    found = live(2, "a:1", entry("tuner", {"f:metadata": {"f:labels": {}}}))
    sent = as_sent(declared, found, ignoring(handover=("tuner",)))
    assert sent["metadata"]["labels"]["reconciler.dev/owner"] == OWNER


# ---- who wrote it --------------------------------------------------------------------------------------------------


def test_who_wrote_where_live_differs() -> None:
    edited = entry("kubectl-edit", {"f:spec": {"f:replicas": {}}}, time="2026-01-01T10:00:00Z")
    later = entry("tuner", {"f:spec": {}}, time="2026-01-01T11:00:00Z")
    status = entry("operator", {"f:status": {}}, subresource="status", time="2026-01-01T12:00:00Z")
    found = live(5, "b:1", entry("reconciler", WITHOUT_REPLICAS, "Apply"), edited, later, status)
    changes = compare(WEB, found).changes
    assert [change.display for change in changes] == ["spec.replicas", IMAGE]
    assert [each.manager for each in writers_of(found, changes[0].place, "reconciler")] == ["tuner", "kubectl-edit"]
    last = last_writer(found, "reconciler")
    assert last is not None
    assert (last.manager, last.time) == ("tuner", "2026-01-01T11:00:00Z")


# ---- adoption ------------------------------------------------------------------------------------------------------


def existing(**metadata: Any) -> Manifest:
    found = live(2, "a:1", entry("kubectl-client-side-apply", OURS))
    found["metadata"] |= metadata
    return found


@pytest.mark.parametrize(
    ("metadata", "never", "unowned", "force"),
    [
        ({}, "NotOwned", None, None),
        ({"annotations": {"meta.helm.sh/release-name": "web"}}, "NotOwned", "OwnedByOther", None),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "NotOwned", "OwnedByOther", "OwnedByOther"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "NotOwned", "OwnedByOther", "OwnedByOther"),
        ({"labels": {"reconciler.dev/owner": "f" * 32}}, "NotOwned", "OwnedByOther", "OwnedByOther"),
        ({"labels": {"reconciler.dev/owner": OWNER}}, "NotOwned", None, None),
        ({"ownerReferences": [{"kind": "X", "name": "x", "controller": True}]}, "NotOwned", "OwnedByOther",
         "OwnedByOther"),
        ({"ownerReferences": [{"kind": "X", "name": "x"}]}, "NotOwned", None, None),
    ],
)  # fmt: skip
def test_what_may_be_adopted(metadata: Any, never: str, unowned: str | None, force: str | None) -> None:
    found = {rule: adopt.refusal(existing(**metadata), rule, OWNER) for rule in ("never", "ifUnowned", "force")}
    codes = [reason.code if reason else None for reason in found.values()]
    assert codes == [never, unowned, force]
    assert "kubectl-client-side-apply" in str(found["never"])


def test_what_tools_set_by_hand_becomes_ours() -> None:
    theirs = entry("kubectl-client-side-apply", {"f:spec": {"f:replicas": {}, "f:paused": {}}, "f:status": {}})
    helm = entry("helm", {"f:spec": {"f:template": {"f:spec": {"f:nodeName": {}}}}})
    other_version = {**entry("kubectl-edit", {"f:spec": {}}), "apiVersion": "apps/v1beta1"}
    kept = [entry("tuner", {"f:spec": {"f:x": {}}}), entry("kubectl", {"f:status": {}}, subresource="status")]
    found = adopt.folded(live(2, "a:1", theirs, helm, other_version, *kept), "apps/v1")
    assert found is not None
    assert found[1:] == [other_version, *kept]
    assert (found[0]["manager"], found[0]["operation"], found[0]["apiVersion"]) == ("reconciler", "Apply", "apps/v1")
    assert found[0]["fieldsV1"] == {
        "f:spec": {"f:replicas": {}, "f:paused": {}, "f:template": {"f:spec": {"f:nodeName": {}}}}
    }
    assert adopt.folded(live(2, "a:1", entry("reconciler", OURS, "Apply"), *kept), "apps/v1") is None


# ---- what is waited for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "kind", "status", "code"),
    [
        ("v1", "Namespace", {"phase": "Active"}, None),
        ("v1", "Namespace", {}, None),
        ("v1", "Namespace", {"phase": "Terminating"}, "NamespaceNotActive"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", {}, "DefinitionNotEstablished"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition",
         {"conditions": [{"type": "NamesAccepted", "status": "False", "message": "taken"}]},
         "DefinitionNotEstablished"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition",
         {"conditions": [{"type": "Established", "status": "True"}]}, None),
        ("apps/v1", "Deployment", {}, None),
    ],
)  # fmt: skip
def test_what_others_of_the_target_wait_for(version: str, kind: str, status: Any, code: str | None) -> None:
    found = not_ready({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "status": status})
    assert (found.code if found else None) == code
    if "conditions" in status and code:
        assert "taken" in str(found)


def test_finalizers_are_told_after_their_deadline() -> None:
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.org/hold"], "name": "x"}
    found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": going}
    since = 1767225600.0
    assert finalizers_hold(found, since + FINALIZERS_DEADLINE_S - 1) is None
    told = finalizers_hold(found, since + FINALIZERS_DEADLINE_S)
    assert told is not None
    assert told.code == "FinalizersHold"
    assert "example.org/hold" in told.message
    assert finalizers_hold({**found, "metadata": {"name": "x"}}, since) is None


# ---- jobs that would move ------------------------------------------------------------------------------------------


def placed(kind: str, namespace: str, version: str = "flink.apache.org/v1beta1", name: str = "orders") -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ([placed("FlinkDeployment", "a")], [placed("FlinkDeployment", "b")], True),
        ([placed("FlinkSessionJob", "a")], [placed("FlinkSessionJob", "b")], True),
        ([placed("StatefulSet", "a", "apps/v1")], [placed("StatefulSet", "b", "apps/v1")], True),
        ([placed("Deployment", "a", "apps/v1")], [placed("Deployment", "b", "apps/v1")], False),
        ([placed("FlinkDeployment", "a")], [placed("FlinkDeployment", "b", name="other")], False),
        ([placed("FlinkDeployment", "a")], [placed("FlinkDeployment", "a"), placed("FlinkDeployment", "b")], False),
        ([], [placed("FlinkDeployment", "b")], False),
        ([placed("FlinkDeployment", "a")], [], False),
    ],
)
def test_a_job_that_changes_its_namespace(before: list[Manifest], after: list[Manifest], moved: bool) -> None:
    kind = before[0]["kind"] if before else ""
    assert moved_job(before, after) == (f"{kind} orders from namespace a to b" if moved else "")


# ---- in a fleet ----------------------------------------------------------------------------------------------------


def test_a_rule_of_apply_that_matches_no_object_is_a_warning() -> None:
    rules = "{match: {kind: ConfigMap}, replace: true}, {match: {kind: ConfigMp}, replace: true}"
    policy = f"  - {{type: apply, properties: {{objects: [{rules}]}}}}\n"
    snapshot = build(fleet_files(**{"apps/one/app.yaml": application("one", manifests("one"), policy)})).snapshot
    (found,) = snapshot.problems
    assert (found.file, found.code, found.severity) == ("apps/one/app.yaml", "matches-nothing", Severity.WARNING)
    one = snapshot.applications["test/one"]
    assert one.blocked is None
    assert [rule.match.kind for rule in one.apply.objects] == ["ConfigMap", "ConfigMp"]


def test_rules_of_a_directory_stand_in_the_fleet() -> None:
    rule = "{path: apps/two, apply: {adopt: ifUnowned, objects: [{match: {name: nobody}, replace: true}]}}"
    fleet = FLEET.replace("policies: policies,", f"policies: policies, directories: [{rule}],")
    snapshot = build(fleet_files(**{"fleet.yaml": fleet, "apps/two/x.yaml": config_map("x")})).snapshot
    assert snapshot.applications["test/two"].apply.adopt == "ifUnowned"
    assert [(found.file, found.code) for found in snapshot.problems] == [("fleet.yaml", "matches-nothing")]


def test_who_is_folded_is_in_nobodys_way() -> None:
    record = [entry("reconciler", OURS, "Apply"), entry("tuner", OURS), {**entry("helm", OURS), "subresource": "scale"}]
    conflicts = [("kubectl-edit", ".data.a"), ("tuner", ".data.b"), ("unknown", ".data.c"), ("helm", ".spec.replicas")]
    assert adopt.unfolded_conflicts(conflicts, record) == conflicts[1:]
    assert adopt.unfolded_conflicts(conflicts[:1], record) == []
