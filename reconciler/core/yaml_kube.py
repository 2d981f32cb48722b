"""YAML documents that mean what kubectl makes of them, each value with its place.

libyaml builds the nodes (fast, with marks); the values are made here, by the rules of `yaml_scalars`. A `Document`
keeps a compact list of marks beside its value, so that any problem found later can name file, line and column:

    >>> [document] = load("app.yaml", b"spec:\\n  replicas: 3\\n").documents
    >>> document.value, document.locate(("spec", "replicas"))
    ({'spec': {'replicas': 3}}, (2, 3))

Stricter than kubectl on purpose: a key that stands twice, a tag of one's own, a key that is not a string, integer or
boolean, an integer beyond 64 bits and binary that is not text are refused. Size, depth and aliases are limited, for the
content comes from anyone who may push.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from reconciler.core.packed import common, pack, unpack
from reconciler.core.problems import Problem, Severity
from reconciler.core.values import strictly_equal
from reconciler.core.yaml_scalars import ScalarError, is_integer, json_number, resolve

BYTES_MAX = 3 * 1024 * 1024
DEPTH_MAX = 100
NODES_MAX = 400_000
ALIASED_NODES_MAX = 10_000
_MESSAGE_MAX = 500
_TOO_LARGE = "the document is too large once its aliases are expanded"
#: Keys up to this length are remembered: the documents of a fleet have most of theirs in common.
_COMMON_KEY_LENGTH_MAX = 64

#: A step of a path is a key or an index.
Path = tuple[str | int, ...]

_PLAIN, _QUOTED = "plain", "quoted"
_TAG = "tag:yaml.org,2002:"
_COLUMN_BITS = 16
_COLUMN_MAX = (1 << _COLUMN_BITS) - 1
# The tag "!" says "not plain", but libyaml reports such a scalar as plain; its mark is where the tag stands.
_NON_SPECIFIC_TAG = re.compile(r"(?:&\S+\s+)?!\s")
# kubectl refuses text after a separator; read as YAML it would be one more document.
_CONTENT_AFTER_SEPARATOR = re.compile(r"^---[ \t]*[^ \t\r\n#].*$", re.MULTILINE)


class Document:
    """One YAML document: plain JSON values, never to be changed, and where each of them stands."""

    __slots__ = ("_content", "_sort", "file")

    def __init__(self, file: str, value: Any, marks: array[int]) -> None:
        self.file = file
        self._sort = ""
        self._content: tuple[Any, array[int]] | bytes = (value, marks)

    @property
    def value(self) -> Any:
        """What the document says."""
        return self._value_and_marks()[0]

    def packed(self) -> Document:
        """The same document in less memory: it is unpacked whenever it is looked at."""
        value, marks = self._value_and_marks()
        found = Document(self.file, None, marks)
        found._sort = common(f"document {value.get('kind') if isinstance(value, dict) else ''}")
        found._content = pack((value, marks.typecode, marks.tobytes()), found._sort)
        return found

    def _value_and_marks(self) -> tuple[Any, array[int]]:
        if isinstance(self._content, tuple):
            return self._content
        value, typecode, marks = unpack(self._content, self._sort)
        return value, array(typecode, marks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        if self is other:
            return True
        (value, marks), (other_value, other_marks) = self._value_and_marks(), other._value_and_marks()
        # Strictly: `true` in the place of `1` is another document, which Python would call equal.
        return self.file == other.file and marks == other_marks and strictly_equal(value, other_value)

    def __hash__(self) -> int:
        return hash(self.file)

    def __repr__(self) -> str:
        return f"Document({self.file!r}, {self.value!r})"

    def locate(self, path: Path = ()) -> tuple[int, int]:
        """Line and column (from 1) of the value at `path`; a member of a map is where its key is. Steps that do not
        exist are left out: a missing field is located at the map that lacks it."""
        value, marks = self._value_and_marks()
        at, mark = 0, marks[0]
        for step in path:
            found = _descend(value, step, at)
            if found is None:
                break
            value, at, mark = found[0], found[1], marks[found[2]]
        return mark >> _COLUMN_BITS, mark & _COLUMN_MAX

    def problem(
        self, path: Path, code: str, message: str, hint: str = "", severity: Severity = Severity.ERROR
    ) -> Problem:
        """A problem at `path`."""
        line, column = self.locate(path)
        return Problem(self.file, line, column, severity, code, _for_people(message), _for_people(hint))


def _for_people(text: str) -> str:
    """`text` fit for a terminal and a page: it may quote what anybody wrote."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if len(shown) <= _MESSAGE_MAX else shown[: _MESSAGE_MAX - 3] + "..."


def _descend(value: Any, step: str | int, at: int) -> tuple[Any, int, int] | None:
    """The child of `value` at `step`: itself, the index of its mark, the index of the mark to show for it."""
    # Marks are in pre-order: a value's own, then for each member the key's mark and the value's marks.
    at += 1
    if isinstance(value, dict):
        for key, child in value.items():
            if key == step:
                return child, at + 1, at
            at += 1 + _marks_of(child)
    elif isinstance(value, list) and isinstance(step, int):
        for index, child in enumerate(value):
            if index == step:
                return child, at, at
            at += _marks_of(child)
    return None


def _marks_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + _marks_of(child) for child in value.values())
    if isinstance(value, list):
        return 1 + sum(map(_marks_of, value))
    return 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file holds. With any problem the documents are those before it; empty documents are left out."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


class _Refused(Exception):  # noqa: N818  # never leaves this module: it carries a place to `load`
    def __init__(self, mark: yaml.Mark | None, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line, self.column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        self.hint = hint


class _Composer(yaml.CSafeLoader):
    """Builds nodes only. Tags say whether a scalar was plain or quoted, for what it means is decided elsewhere."""

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:  # noqa: ARG002  # libyaml's hook
        if kind is not yaml.ScalarNode:
            return ""
        return _PLAIN if implicit[0] else _QUOTED

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:  # noqa: ARG002  # libyaml's hook
        # libyaml recurses in C: without this limit a file of "[[[[..." ends the process.
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise _Refused(current_node.start_mark if current_node else None, f"nested deeper than {DEPTH_MAX} levels")

    def ascend_resolver(self) -> None:
        self.depth -= 1


def load(file: str, content: bytes) -> Loaded:
    """All documents of `content`. Never raises for what the content may be."""
    documents: list[Document] = []
    try:
        text = _decode(content)
        for node in _compose(text):
            builder = _Builder(text)
            value = builder.build(node)
            if value is not None:
                documents.append(Document(file, value, _small(builder.marks)))
    except _Refused as error:
        return Loaded(tuple(documents), (_problem(file, error.line, error.column, str(error), error.hint),))
    return Loaded(tuple(documents), ())


def _small(marks: array[int]) -> array[int]:
    """The marks in half the bytes, as long as no line is beyond what fits."""
    return array("I", marks) if max(marks) < 1 << 32 else marks


def _problem(file: str, line: int, column: int, message: str, hint: str = "") -> Problem:
    return Problem(file, line, column, Severity.ERROR, "invalid-yaml", _for_people(message), hint)


def _decode(content: bytes) -> str:
    if len(content) > BYTES_MAX:
        raise _Refused(None, f"{len(content)} bytes are more than the {BYTES_MAX} a file may have")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Refused(None, f"not UTF-8 at byte {error.start}") from None


def _compose(text: str) -> Iterator[yaml.Node]:
    if after := _CONTENT_AFTER_SEPARATOR.search(text):
        mark = yaml.Mark("", 0, text.count("\n", 0, after.start()), 0, None, 0)
        raise _Refused(mark, "content after the separator ---", "begin the document on the next line")
    composer = _Composer(text)
    try:
        while composer.check_node():
            node = composer.get_node()
            if node is not None:
                yield node
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.problem, error.context) if part)
        at: yaml.Mark | None = error.problem_mark or error.context_mark
        if at is not None and text[at.index : at.index + 1] == "\t":
            what = "a tab: YAML is indented with spaces"
        raise _Refused(at, what or "not YAML") from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        mark = yaml.Mark("", 0, before.count("\n"), len(before) - before.rfind("\n") - 1, None, 0)
        raise _Refused(mark, error.reason) from None
    except yaml.YAMLError as error:
        raise _Refused(None, str(error).splitlines()[0]) from None
    finally:
        composer.dispose()


class _Builder:
    """Makes values of nodes and notes the mark of each, in pre-order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._has_tags = "!" in text
        self.marks = array("Q")
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._aliased = 0
        self._alias_depth = 0

    def build(self, node: yaml.Node) -> Any:
        self._mark(node)
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _PLAIN and (node.style or self._is_tagged(node)):
                return node.value
            return scalar_value(node)
        identity = id(node)
        if identity in self._open:
            raise _Refused(node.start_mark, "an anchor's value contains itself")
        is_alias = identity in self._seen
        self._seen.add(identity)
        self._open.add(identity)
        self._alias_depth += is_alias
        value = self._mapping(node) if isinstance(node, yaml.MappingNode) else self._sequence(node)
        self._alias_depth -= is_alias
        self._open.discard(identity)
        return value

    def _is_tagged(self, node: yaml.ScalarNode) -> bool:
        return self._has_tags and _NON_SPECIFIC_TAG.match(self._text, node.start_mark.index) is not None

    def _mark(self, node: yaml.Node) -> None:
        mark = node.start_mark
        column = mark.column + 1
        marks = self.marks
        marks.append((mark.line + 1) << _COLUMN_BITS | (column if column < _COLUMN_MAX else _COLUMN_MAX))
        if self._alias_depth:
            self._aliased += 1
            if self._aliased > ALIASED_NODES_MAX:
                raise _Refused(mark, _TOO_LARGE)
        if len(marks) > NODES_MAX:
            raise _Refused(mark, _TOO_LARGE)

    def _sequence(self, node: yaml.Node) -> list[Any]:
        _expect_tag(node, "seq")
        return [self.build(child) for child in node.value]

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        value = {}
        for key, (key_node, value_node) in _members(node, 0).items():
            self._mark(key_node)
            value[key] = self.build(value_node)
        return value


def _members(node: yaml.MappingNode, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The members of a map with its merge keys resolved as kubectl does: in the order they stand, the later wins."""
    _expect_tag(node, "map")
    if depth > DEPTH_MAX:
        raise _Refused(node.start_mark, "an anchor's value contains itself")
    members: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    own: set[str] = set()
    for key_node, value_node in node.value:
        if key_node.tag == _PLAIN and key_node.value == "<<":
            for merged in reversed(_merged_maps(value_node)):
                members.update(_members(merged, depth + 1))
            continue
        key = _key(key_node)
        if key in own:
            raise _Refused(key_node.start_mark, f"the key {key!r} stands twice in one map", "keep one of the two")
        own.add(key)
        members[key] = (key_node, value_node)
    return members


def _merged_maps(node: yaml.Node) -> list[yaml.MappingNode]:
    maps = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for candidate in maps:
        if not isinstance(candidate, yaml.MappingNode):
            raise _Refused(candidate.start_mark, "a merge key << needs a map or a list of maps")
    return list(maps)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Refused(node.start_mark, "a key cannot be a map or a list")
    if node.tag == _PLAIN and len(node.value) <= _COMMON_KEY_LENGTH_MAX and (key := _plain_key(node.value)) is not None:
        return key
    value = scalar_value(node)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, float) or (isinstance(value, int) and not is_integer(node.value)):
        raise _Refused(node.start_mark, f"{node.value or 'nothing'} cannot be a key", "quote it")
    return str(value)


@functools.lru_cache(maxsize=1024)
def _plain_key(text: str) -> str | None:
    """The key that a plain scalar is, where it is a string; None for one that has to be looked at closer."""
    try:
        value = resolve(text)
    except ScalarError:
        return None
    return value if isinstance(value, str) else None


def _expect_tag(node: yaml.Node, kind: str) -> None:
    if node.tag not in ("", _TAG + kind):
        raise _Refused(node.start_mark, f"the tag {_short(node.tag)} is not allowed here", "remove it")


def _short(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag[:80]


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


def scalar_value(node: yaml.ScalarNode) -> Any:
    """The value of a scalar node: by its tag if it has one, as a string if quoted, else by `resolve`."""
    try:
        if node.tag == _PLAIN:
            return resolve(node.value)
        if node.tag == _QUOTED:
            return node.value
        return _tagged(node)
    except ScalarError as error:
        raise _Refused(node.start_mark, str(error), "quote it if it is a string") from None


def _tagged(node: yaml.ScalarNode) -> Any:
    kind = node.tag.removeprefix(_TAG)
    text: str = node.value
    if kind in ("str", "timestamp"):
        return text
    if kind == "binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _Refused(node.start_mark, "!!binary is not base64 of UTF-8 text") from None
    if kind not in _TYPES or kind == node.tag:
        raise _Refused(node.start_mark, f"the tag {_short(node.tag)} is not allowed", "remove it")
    value = resolve(text)
    fits = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    if not fits or (kind == "int" and not is_integer(text)):
        raise _Refused(node.start_mark, f"{text!r} is not of type !!{kind}")
    return json_number(float(value)) if kind == "float" and isinstance(value, float) else value
