"""What a cluster's schema says, boiled down, and what does not fit it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core import cluster_schema
from reconciler.core.cluster_schema import ANY, FieldType, Shape, VersionSchema, compact
from reconciler.core.schema_check import (
    MISMATCHES_MAX,
    kind_missing,
    kinds_brought,
    mismatches,
    schema_mismatch,
)

GROUP, VERSION = "example.com", "v1"
API_VERSION = f"{GROUP}/{VERSION}"
META = {"$ref": "#/components/schemas/Meta"}


def document(spec: Any, **schemas: Any) -> dict[str, Any]:
    """An OpenAPI document with one kind, Thing, whose spec is as given."""
    thing = {
        "type": "object",
        "description": "x" * 100,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"description": "standard", "allOf": [META]},
            "spec": spec,
        },
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": "Thing"}],
    }
    meta = {"type": "object", "properties": {"name": {"type": "string"}, "labels": mapping({"type": "string"})}}
    return {"components": {"schemas": {"Thing": thing, "Meta": meta, **schemas}}}


def mapping(of: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": of}


def structure(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


def listing(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


def thing(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "Thing", "metadata": {"name": "a", **metadata}, "spec": spec}


def found(spec_schema: Any, spec: Any, **schemas: Any) -> list[str]:
    return [str(one) for one in mismatches(thing(spec), compact(document(spec_schema, **schemas), GROUP, VERSION))]


STRING, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
ANY_NUMBER_OR_TEXT = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
QUANTITY = {"oneOf": [{"type": "string"}, {"type": "number"}]}
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
NAMED = {"default": {}, "allOf": [{"$ref": "#/components/schemas/Inner"}]}
INNER = structure(x=STRING, again=NAMED)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (structure(a=STRING), {"a": "x"}),
        (structure(a=STRING), {}),
        (structure(a=STRING), {"a": None}),
        (structure(a=STRING), None),
        (structure(a=NUMBER), {"a": 3}),
        (structure(a=NUMBER), {"a": 3.5}),  # the server judges it, and refuses it as a value
        (structure(a=FLAG), {"a": False}),
        (structure(a=ANY_NUMBER_OR_TEXT), {"a": 80}),
        (structure(a=ANY_NUMBER_OR_TEXT), {"a": "http"}),
        (structure(a=QUANTITY), {"a": 0.5}),
        (structure(a=QUANTITY), {"a": "500m"}),
        (structure(a={"type": "string", "format": "date-time"}), {"a": 5}),
        (structure(a={"type": "string", "format": "byte"}), {"a": "aGk="}),
        (structure(a=mapping(STRING)), {"a": {"k": "v"}}),
        (structure(a=mapping({})), {"a": {"k": {"l": [1]}}}),
        (structure(a={"type": "object", "additionalProperties": True}), {"a": {"k": 1}}),
        (structure(a={"type": "object"}), {"a": {"k": 1}}),
        (structure(a={}), {"a": [{"k": 1}]}),
        (structure(a=listing(STRING)), {"a": ["x", None]}),
        (structure(a=listing(listing(NUMBER))), {"a": [[1]]}),
        (structure(a=OPEN), {"a": {"k": {"l": 1}}}),
        (structure(a={**OPEN, "properties": {"b": structure(c=STRING)}}), {"a": {"z": 1, "b": {"c": "x", "z": 1}}}),
        (structure(a={"x-kubernetes-preserve-unknown-fields": True}), {"a": 5}),
        (
            structure(a={**structure(spec=STRING), "x-kubernetes-embedded-resource": True}),
            {"a": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "z": 1}, "spec": "x"}},
        ),
        (structure(a=NAMED), {"a": {"x": "y", "again": {"again": {"again": {"x": "y"}}}}}),
        (structure(a={"allOf": [{"$ref": "#/components/schemas/Inner"}, {}]}), {"a": {"z": 1}}),
        (structure(a={"$ref": "#/components/schemas/Nowhere"}), {"a": 1}),
        (structure(a={"type": "null"}), {"a": 1}),
        (structure(a={"type": ["string", "integer"]}), {"a": 1}),
    ],
)
def test_what_a_server_takes_fits(schema: Any, value: Any) -> None:
    assert found(schema, value, Inner=INNER) == []


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        (structure(a=STRING), {"b": 1}, "spec.b is not a field"),
        (structure(a=STRING), "text", "spec must be a map and is a string"),
        (structure(a=STRING), [], "spec must be a map and is a list"),
        (structure(a=STRING), {"a": 1}, "spec.a must be a string and is a number"),
        (structure(a=STRING), {"a": True}, "spec.a must be a string and is true or false"),
        (structure(a=NUMBER), {"a": "1"}, "spec.a must be a number and is a string"),
        (structure(a=NUMBER), {"a": True}, "spec.a must be a number and is true or false"),
        (structure(a=FLAG), {"a": 1}, "spec.a must be true or false and is a number"),
        (structure(a=ANY_NUMBER_OR_TEXT), {"a": {}}, "spec.a must be a single value and is a map"),
        (structure(a=QUANTITY), {"a": [1]}, "spec.a must be a single value and is a list"),
        (structure(a=mapping(STRING)), {"a": {"k.l/m": 1}}, "spec.a[k.l/m] must be a string and is a number"),
        (structure(a=listing(STRING)), {"a": "x"}, "spec.a must be a list and is a string"),
        (structure(a=listing(structure(b=STRING))), {"a": [{}, {"c": 1}]}, "spec.a[1].c is not a field"),
        (
            structure(a=listing(structure(name=STRING))),
            {"a": [{"name": "x", "c": 1}]},
            "spec.a[name=x].c is not a field",
        ),
        (structure(a=OPEN), {"a": "x"}, "spec.a must be a map and is a string"),
        (structure(a=NAMED), {"a": {"again": {"again": {"z": 1}}}}, "spec.a.again.again.z is not a field"),
        (structure(a=STRING), {"\x1b[31mred": 1}, "spec.red is not a field"),
    ],
)
def test_what_no_server_takes_does_not_fit(schema: Any, value: Any, said: str) -> None:
    assert found(schema, value, Inner=INNER) == [said]


def test_metadata_is_held_against_the_schema_too_and_a_few_places_are_told() -> None:
    served = compact(document(structure(a=STRING)), GROUP, VERSION)
    manifest = thing({"b": 1, "c": 1}, labels={"x": 1}, surprise=1)
    places = mismatches(manifest, served)
    assert len(places) == MISMATCHES_MAX
    assert [one.pointer() for one in places] == ["/metadata/labels/x", "/metadata/surprise", "/spec/b"]
    reason = schema_mismatch(manifest, places, "eu-1", "v1.33.0")
    assert reason.code == "SchemaMismatch"
    assert reason.message == (
        "Thing.example.com a: metadata.labels.x must be a string and is a number; metadata.surprise is not a field; "
        "spec.b is not a field in example.com/v1 as cluster eu-1 (Kubernetes v1.33.0) serves it"
    )


def test_no_value_is_told_for_it_may_be_secret() -> None:
    (place,) = mismatches(thing({"a": {"password": "hunter2"}}), compact(document(structure(a=STRING)), GROUP, VERSION))
    assert "hunter2" not in str(schema_mismatch(thing({}), (place,), "eu-1", ""))


def test_a_kind_of_which_the_document_says_nothing_fits() -> None:
    served = compact(document(structure(a=STRING)), GROUP, VERSION)
    assert mismatches({**thing({"z": 1}), "kind": "Other"}, served) == ()
    assert mismatches(thing({"z": 1}), compact(document(structure(a=STRING)), GROUP, "v2")) == ()
    assert kind_missing(thing({}), "eu-1", "").message == (
        "Thing.example.com a: cluster eu-1 does not serve example.com/v1 Thing"
    )


def test_kinds_that_come_with_the_release() -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": GROUP, "names": {"kind": "Thing"}},
    }
    service = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.metrics"}}
    objects = [crd, {**service, "spec": {"group": "metrics"}}, thing({"group": "no", "names": {"kind": "No"}})]
    assert kinds_brought(objects) == {(GROUP, "Thing"), ("metrics", "")}


# ---- documents come from outside -----------------------------------------------------------------------------------


def test_equal_types_are_kept_once() -> None:
    served = compact(document(structure(a=structure(x=STRING), b=structure(x=STRING))), GROUP, VERSION)
    spec = served.types["Thing"].fields["spec"]
    assert spec.fields["a"] is spec.fields["b"]


def test_circles_of_names_end() -> None:
    circle = {name: {"$ref": f"#/components/schemas/{other}"} for name, other in (("A", "B"), ("B", "A"))}
    assert found({"$ref": "#/components/schemas/A"}, {"z": 1}, **circle) == []


def test_what_is_too_deep_or_too_much_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: dict[str, Any] = structure(a=STRING)
    value: dict[str, Any] = {"z": 1}
    for _ in range(cluster_schema.DEPTH_MAX + 2):
        deep, value = structure(a=deep), {"a": value}
    assert found(deep, value) == []
    monkeypatch.setattr(cluster_schema, "TYPES_MAX", 50)
    wide = compact(document(structure(**{f"f{number}": structure(a=STRING) for number in range(1000)})), GROUP, VERSION)
    fields = wide.types["Thing"].fields["spec"].fields
    assert fields["f0"].shape is Shape.OBJECT
    assert fields["f999"] is ANY


WORDS = st.sampled_from(
    [
        "type", "properties", "items", "additionalProperties", "$ref", "allOf", "oneOf", "anyOf", "format", "a", "b",
        "components", "schemas", "x-kubernetes-group-version-kind", "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-int-or-string", "x-kubernetes-embedded-resource", "object", "string", "array",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(WORDS, below, max_size=3),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(JSON, JSON, JSON)
def test_any_document_ends_without_an_error(whole: Any, spec: Any, value: Any) -> None:
    for text in (whole, {"components": whole}, {"components": {"schemas": whole}}, document(spec)):
        served = compact(json.loads(json.dumps(text)), GROUP, VERSION)
        assert isinstance(served, VersionSchema)
        for one in mismatches(thing(value), served):
            assert str(one)


def test_a_name_stands_for_its_type() -> None:
    served = VersionSchema({}, {"A": FieldType(Shape.STRING)})
    assert served.resolved(FieldType(Shape.NAMED, name="A")).shape is Shape.STRING
    assert served.resolved(FieldType(Shape.NAMED, name="B")) is ANY
