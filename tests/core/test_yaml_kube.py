"""YAML means what kubectl makes of it.

The golden table is written by the Go library kubectl uses (tests/golden/yaml, `go run . < inputs.json > table.json`).
Every input must give the same value here, or stand in one of the two lists of differences with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.yaml_kube import ALIASED_NODES_MAX, BYTES_MAX, DEPTH_MAX, load

TABLE: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden/yaml/table.json").read_text())

#: kubectl takes these, and we refuse them.
STRICTER = {
    "scalars": {
        # Integers that lose digits on their way through JSON.
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "123456789012345678901234567890",
        # Tags of one's own, tags that change the type of a collection, binary that is not text.
        "!foo bar",
        "!!python/object:os.system x",
        "!!set {a, b}",
        "!!omap []",
        "!!pairs []",
        "!!map []",
        "!!str []",
        "!!seq {}",
        "!!merge <<",
        "!!binary /w==",
    },
    "keys": {
        # Keys that are rounded to 32 bits and printed in exponents.
        "1.5",
        "1e3",
        ".inf",
        ".nan",
        "123456789012345678901234567890",
        "1e21",
        "0.1",
        "1.0",
        "1e20",
        "0.0000001",
        "100000000.0",
        "123456789.125",
        "1e-7",
        "-0.0",
        "1e6",
        "1234567.0",
    },
    "documents": {
        # The keys 1 and "1" become one, and the later silently wins.
        "duplicate-after-conversion",
        "float-keys-in-map",
        "tag-directive",
        # libyaml refuses an anchor that is defined twice.
        "alias-redefined",
    },
}
#: kubectl refuses these, and we take them: they are JSON or YAML 1.2 that libyaml knows and the Go library does not.
LAXER = {"scalars": {'"\\/"'}, "keys": set[str](), "documents": {"json-escaped-slash", "yaml-directive-12"}}


def read(text: str) -> Any:
    """The value of the only document of `text`, or the message of the problem as an AssertionError."""
    loaded = load("f.yaml", text.encode())
    assert not loaded.problems, loaded.problems[0].message
    return loaded.documents[0].value if loaded.documents else None


def rows(kind: str) -> list[Any]:
    return [pytest.param(name, row, id=name) for name, row in sorted(TABLE[kind].items())]


def check(kind: str, name: str, row: dict[str, Any]) -> None:
    loaded = load("f.yaml", row["input"].encode())
    overrides_a_merge = name.startswith("merge") and "json" in row
    refused_there = "error" in row or not (row.get("strict") or overrides_a_merge)
    if name in STRICTER[kind]:
        assert not refused_there, "no longer a difference"
        assert loaded.problems
    elif name in LAXER[kind]:
        assert refused_there, "no longer a difference"
        assert not loaded.problems
    elif refused_there:
        assert loaded.problems, [document.value for document in loaded.documents]
        assert loaded.problems[0].line > 0
    else:
        assert not loaded.problems
        value = loaded.documents[0].value if loaded.documents else None
        if name != "two-documents":  # the library alone drops the second; kubectl splits, see the streams
            assert same(value, row.get("json")), value


def same(ours: Any, theirs: Any) -> bool:
    """Equal, and `True` is not 1."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


@pytest.mark.parametrize(("name", "row"), rows("scalars"))
def test_scalar(name: str, row: dict[str, Any]) -> None:
    check("scalars", name, row)


@pytest.mark.parametrize(("name", "row"), rows("keys"))
def test_key(name: str, row: dict[str, Any]) -> None:
    check("keys", name, row)


@pytest.mark.parametrize(("name", "row"), rows("documents"))
def test_document(name: str, row: dict[str, Any]) -> None:
    check("documents", name, row)


@pytest.mark.parametrize("name", sorted(TABLE["streams"]))
def test_stream(name: str) -> None:
    inputs = json.loads((Path(__file__).parent.parent / "golden/yaml/inputs.json").read_text())
    loaded = load("f.yaml", inputs["streams"][name].encode())
    expected = TABLE["streams"][name]
    if any("error" in row for row in expected):
        assert loaded.problems
    else:
        assert [document.value for document in loaded.documents] == [r["json"] for r in expected if r["json"]]


def test_the_table_covers_enough() -> None:
    assert len(TABLE["scalars"]) >= 60
    assert len(TABLE["documents"]) >= 15


def test_numbers_are_integers_or_floats_as_json_has_them() -> None:
    value = read("[1e3, 1.0, 1.5, 1e20, -0.0]")
    assert [type(number) for number in value] == [int, int, float, float, int]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 1_000_000, "nested deeper"),
        ("- " * 300_000 + "x", "nested deeper"),
        ("? " * 300_000 + "x", "nested deeper"),
        ("a: " + "[" * DEPTH_MAX + "]" * DEPTH_MAX, "nested deeper"),
        ("a: '" + "x" * BYTES_MAX + "'", "bytes are more"),
        ("a: &a [" + "x," * 99 + "]\nb: [" + "*a," * 1000 + "]", "aliases"),
        ("a: &a\n  <<: *a\n", "contains itself"),
        ("a:\n\tb: 1\n", "indented with spaces"),
        ("a: " + "9" * 5000, None),
    ],
    ids=["flow", "block", "keys", "just-too-deep", "huge", "alias-bomb", "merge-itself", "tab", "long-number"],
)
def test_hostile(text: str, says: str | None) -> None:
    loaded = load("f.yaml", text.encode())
    if says is None:
        assert loaded.documents[0].value == {"a": "9" * 5000}
    else:
        assert says in loaded.problems[0].message


def test_aliases_within_the_limit_are_expanded() -> None:
    count = ALIASED_NODES_MAX // 20
    value = read("a: &a [1, 2, 3]\nb: [" + "*a," * count + "]")
    assert value["b"] == [[1, 2, 3]] * count


def test_not_utf8() -> None:
    assert "UTF-8" in load("f.yaml", b"a: \xff").problems[0].message


def test_every_value_has_its_place() -> None:
    text = "spec:\n  list:\n  - a\n  - name: x\n    on: 1\n  empty:\nbase: &b {k: 1}\nuse:\n  <<: *b\n  z: 2\n"
    document = load("f.yaml", text.encode()).documents[0]
    places = {
        (): (1, 1),
        ("spec",): (1, 1),
        ("spec", "list"): (2, 3),
        ("spec", "list", 0): (3, 5),
        ("spec", "list", 1): (4, 5),
        ("spec", "list", 1, "true"): (5, 5),
        ("spec", "empty"): (6, 3),
        ("use", "k"): (7, 11),
        ("use", "z"): (10, 3),
        ("spec", "absent", "deeper"): (1, 1),
    }
    assert {path: document.locate(path) for path in places} == places


def test_a_merged_key_that_is_overridden_keeps_the_places_right() -> None:
    document = load("f.yaml", b"b: &b {x: 1, w: 2}\nuse:\n  x: 0\n  <<: *b\n  v: 1\n").documents[0]
    assert document.value["use"] == {"x": 1, "w": 2, "v": 1}
    assert document.locate(("use", "v")) == (5, 3)
    assert document.locate(("use", "x")) == (1, 8)


def test_a_second_document_is_located_in_the_file() -> None:
    first, second = load("f.yaml", b"a: 1\n---\nb: 2\n").documents
    assert (first.locate(("a",)), second.locate(("b",))) == ((1, 1), (3, 1))


keys = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff")),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_means_itself(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert same(read(text), json.loads(text))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_anything_is_a_value_or_a_located_problem(text: str) -> None:
    loaded = load("f.yaml", text.encode())
    for document in loaded.documents:
        json.dumps(document.value, allow_nan=False)
    assert loaded.problems or len(loaded.documents) <= 1


def test_libyaml_is_what_runs() -> None:
    assert yaml.__with_libyaml__
