"""The listing of a tree, made from that of another one, is the listing of the tree."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.shell.git_command import GitCommand, environment
from reconciler.shell.git_objects import GitLimits, ObjectReader
from reconciler.shell.ports import SourceError
from tests.integration.git_repository import GitRepository

NAMES = [b"a", b"b.yaml", b"a.yaml", b"A", b"\xff\xfe", b'"quoted"', b"new\nline", "ä".encode(), b"c"]
#: 100664 is what old git wrote.
MODES = ["100644", "100755", "120000", "160000", "100664"]
SUBMODULE = "1" * 40


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "origin.git")


def reader_of(repository: GitRepository, tmp_path: Path, limits: GitLimits | None = None) -> ObjectReader:
    command = GitCommand(repository.path, environment(tmp_path / "home", ()), monotonic=time.monotonic)
    return ObjectReader(command, limits or GitLimits())


@pytest.fixture
def fresh(repository: GitRepository, tmp_path: Path) -> Iterator[ObjectReader]:
    reader = reader_of(repository, tmp_path)
    yield reader
    reader.close()


def a_tree(repository: GitRepository, chance: random.Random, blobs: list[str], depth: int = 0) -> str:
    """Any tree: directories and files of the same names in turn, links, submodules, names that are no text, entries in
    an order that git would never write."""
    entries: dict[bytes, tuple[str, str]] = {}
    for name in chance.sample(NAMES, chance.randint(1, 5)):
        if depth < 2 and chance.random() < 0.3:
            entries[name] = ("40000", a_tree(repository, chance, blobs, depth + 1))
        else:
            mode = chance.choice(MODES)
            entries[name] = (mode, SUBMODULE if mode == "160000" else chance.choice(blobs))
    return repository.tree(entries)


@pytest.mark.parametrize("seed", range(4))
def test_any_two_trees(repository: GitRepository, tmp_path: Path, fresh: ObjectReader, seed: int) -> None:
    chance = random.Random(seed)
    blobs = [repository.blob(b"x" * size) for size in (0, 1, 5000)]
    reader = reader_of(repository, tmp_path)
    for _ in range(12):
        tree = a_tree(repository, chance, blobs)
        found = reader.listing(tree)
        fresh.close()
        whole = fresh.listing(tree)
        modes = {"100664": "100644"}
        assert {path: (modes.get(e.mode, e.mode), e.blob, e.size) for path, e in found.items()} == {
            path: (modes.get(e.mode, e.mode), e.blob, e.size) for path, e in whole.items()
        }
        assert reader.listing(tree) is found
    reader.close()


def test_what_is_the_same_is_the_very_same(repository: GitRepository, fresh: ObjectReader) -> None:
    first = repository.commit({"a.yaml": b"a", "b/c.yaml": b"c", "d": b"d"})
    second = repository.commit({"a.yaml": b"longer", "b.yaml": b"e", "b/c.yaml": b"c"})
    before = fresh.listing(fresh.commit(first)[1])
    after = fresh.listing(fresh.commit(second)[1])
    assert list(after) == ["a.yaml", "b.yaml", "b/c.yaml"]
    assert after["b/c.yaml"] is before["b/c.yaml"]
    assert after["a.yaml"].size == 6
    assert list(before) == ["a.yaml", "b/c.yaml", "d"]


def test_a_name_that_stands_twice_in_a_tree(repository: GitRepository, tmp_path: Path, fresh: ObjectReader) -> None:
    one, two = repository.blob(b"one"), repository.blob(b"two")

    def tree(*blobs: str) -> str:
        raw = b"".join(b"100644 a.yaml\0" + bytes.fromhex(blob) for blob in blobs)
        return repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)

    reader = reader_of(repository, tmp_path)
    for listed in (tree(one), tree(one, two), tree(one), tree(two, one), tree(two), tree(two, two), tree(one, one)):
        fresh.close()
        assert reader.listing(listed) == fresh.listing(listed)
    reader.close()


def test_more_changes_than_are_compared_are_listed_as_a_whole(repository: GitRepository, fresh: ObjectReader) -> None:
    first = repository.commit({"a.yaml": b"a"})
    second = repository.commit({f"b/{number}.yaml": b"%d" % number for number in range(1500)})
    fresh.listing(fresh.commit(first)[1])
    after = fresh.listing(fresh.commit(second)[1])
    assert len(after) == 1500
    assert list(after) == sorted(after)
    assert list(fresh.listing(fresh.commit(first)[1])) == ["a.yaml"]


def test_limits_hold_for_what_is_added(repository: GitRepository, tmp_path: Path) -> None:
    first = repository.commit({"a.yaml": b"a", "b.yaml": b"b"})
    more = repository.commit({"a.yaml": b"a", "b.yaml": b"b", "c.yaml": b"c"})
    long = repository.commit({"a.yaml": b"a", "x" * 30: b"b"})
    reader = reader_of(repository, tmp_path, GitLimits(files_max=2, path_length_max=20))
    for sha in (more, long):
        reader.listing(reader.commit(first)[1])
        with pytest.raises(SourceError) as caught:
            reader.listing(reader.commit(sha)[1])
        assert caught.value.reason.code == "TooLarge"
    reader.close()


def test_a_tree_that_is_not_there_any_more_is_no_hindrance(
    repository: GitRepository, tmp_path: Path, fresh: ObjectReader
) -> None:
    first = repository.commit({"a.yaml": b"a"})
    reader = reader_of(repository, tmp_path)
    reader.listing(reader.commit(first)[1])
    second = repository.commit({"a.yaml": b"b"}, parent=False)
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("-c", "gc.pruneExpire=now", "gc", "--quiet", "--prune=now")
    assert reader.listing(fresh.commit(second)[1]) == fresh.listing(fresh.commit(second)[1])
    reader.close()
