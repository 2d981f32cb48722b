"""What is kept packed is what it was, and takes little."""

from __future__ import annotations

import marshal
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import fleets
from bench.real.fleet import objects_of
from reconciler import resources
from reconciler.core.compile import Releases
from reconciler.core.documents import Application
from reconciler.core.fleet import compile_fleet
from reconciler.core.fleet_model import EMPTY_CACHE, FleetSettings
from reconciler.core.model import release_of
from reconciler.core.packed import SORTS_MAX, pack, unpack
from reconciler.core.parse import parse_file
from reconciler.core.yaml_kube import load
from tests.core.fleets import application, config_map, manifests

#: Measured: 5 KB, where it was 24 KB.
BYTES_OF_AN_APPLICATION_MAX = 10_000

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from(["one", "two"]))
def test_a_value_is_what_it_was_with_its_maps_in_order(values: list[Any], sort: str) -> None:
    packed = [pack(value, sort) for value in values]
    assert repr([unpack(data, sort) for data in packed]) == repr(values)


def test_more_sorts_than_are_kept_are_compressed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.core.packed._FIRST", {})
    values = {f"sort {number}": {"name": f"app-{number}", "text": "x" * 50_000} for number in range(SORTS_MAX + 3)}
    packed = {sort: [pack(value, sort), pack({**value, "more": 1}, sort)] for sort, value in values.items()}
    for sort, (first, second) in packed.items():
        assert unpack(first, sort) == values[sort]
        assert unpack(second, sort) == {**values[sort], "more": 1}


def test_what_is_alike_takes_little() -> None:
    objects = [objects_of(number, 0, full=True)[3] for number in range(2)]
    alone = len(zlib.compress(marshal.dumps(objects[1]), 1))
    _, beside = [len(pack(value, "alike")) for value in objects]
    assert beside * 2 < alone


@pytest.mark.parametrize("first_line", [1, 70_000], ids=["near", "far"])
def test_a_document_says_and_locates_the_same(first_line: int) -> None:
    text = "#\n" * (first_line - 1) + "spec:\n  list: [a, {b: 1}]\n  name: x\n"
    [document] = load("f.yaml", text.encode()).documents
    packed = document.packed()
    assert packed == document
    assert packed.value == document.value
    for path in ((), ("spec", "name"), ("spec", "list", 1, "b"), ("spec", "missing")):
        assert packed.locate(path) == document.locate(path)
    assert packed.locate(("spec", "name"))[0] == first_line + 2


def test_a_packed_application_has_its_parts() -> None:
    text = application("one", manifests("one"), "  - {type: rollout, properties: {policy: two}}\n", "{ring: canary}")
    [parsed], _ = parse_file("f.yaml", text.encode())
    packed = parsed.packed()
    assert isinstance(parsed.value, Application)
    assert isinstance(packed.value, Application)
    assert packed.value == parsed.value
    assert packed.value.components == parsed.value.components
    assert packed.value.topologies[0].selection.labels == {"ring": "canary"}
    [plain], _ = parse_file("f.yaml", config_map("x").encode())
    assert plain.packed().document.value == plain.value


def test_releases_are_given_by_digest() -> None:
    one, two = (release_of("f/one", ({"kind": "ConfigMap", "a": 1, "data": {"n": n}},)) for n in (1, 2))
    releases = Releases("f/one", [one, two])
    assert dict(releases) == {one.digest: one, two.digest: two}
    assert list(releases[one.digest].objects[0]) == ["kind", "a", "data"]
    assert one.digest in releases
    assert "x" not in releases
    assert releases.get("x") is None
    assert len(releases) == 2
    assert releases == Releases("f/one", [two, one])
    assert releases != Releases("f/one", [one])
    assert hash(releases) == hash(Releases("f/one", [two, one]))


def test_an_application_that_does_not_change_takes_little() -> None:
    settings = FleetSettings(resources.catalogue())
    small, large = fleets.fleet(100), fleets.fleet(300)

    def kept(fleet: fleets.Repository) -> int:
        tracemalloc.start()
        try:
            result = compile_fleet(fleet.listing, fleet.contents, EMPTY_CACHE, settings)
            assert not result.snapshot.problems
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    kept(small)  # what is remembered of common words and of the values unpacked last is there then
    assert (kept(large) - kept(small)) / 200 < BYTES_OF_AN_APPLICATION_MAX
