"""Field sets against a model: plain sets of paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.sim import fieldset
from reconciler.sim.fieldset import EMPTY, MEMBER, FieldSet

Path = tuple[str, ...]
PATHS = st.sets(st.lists(st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"']), min_size=1, max_size=4).map(tuple))


def encode(paths: set[Path]) -> FieldSet:
    """The fieldsV1 of a set of paths, path by path."""
    result: FieldSet = EMPTY
    for path in sorted(paths):
        node: FieldSet = MEMBER
        for element in reversed(path):
            node = {element: node}
        result = fieldset.union(result, node)
    return result


def decode(node: FieldSet, prefix: Path = ()) -> set[Path]:
    """The paths of a fieldsV1."""
    found: set[Path] = set()
    for element, child in node.items():
        if element != ".":
            path = (*prefix, element)
            found |= ({path} if fieldset.is_member(child) else set()) | decode(child, path)
    return found


def starts_with(path: Path, excluded: set[Path]) -> bool:
    """Whether the path or one above it is excluded."""
    return any(path[:length] in excluded for length in range(1, len(path) + 1))


@given(PATHS, PATHS)
def test_the_operations_are_those_of_sets(left: set[Path], right: set[Path]) -> None:
    a, b = encode(left), encode(right)
    assert decode(a) == left
    assert decode(fieldset.union(a, b)) == left | right
    assert decode(fieldset.difference(a, b)) == left - right
    assert decode(fieldset.intersection(a, b)) == left & right
    assert decode(fieldset.without_subtrees(a, b)) == {path for path in left if not starts_with(path, right)}


@given(PATHS, PATHS)
def test_a_set_has_one_encoding_and_arguments_stay(left: set[Path], right: set[Path]) -> None:
    a, b = encode(left), encode(right)
    assert fieldset.difference(fieldset.union(a, b), fieldset.difference(b, a)) == encode(left)
    assert fieldset.difference(a, a) == EMPTY
    assert (decode(a), decode(b)) == (left, right)


def test_paths_are_listed_as_conflicts_show_them() -> None:
    fields: FieldSet = {
        "f:spec": {"f:containers": {'k:{"name":"a","port":1}': {".": {}, "f:image": {}}}, "f:tags": {'v:"x"': {}}},
        "f:kind": {},
    }
    assert list(fieldset.paths(fields)) == [
        ".kind",
        '.spec.containers[name="a",port=1]',
        '.spec.containers[name="a",port=1].image',
        '.spec.tags[="x"]',
    ]
