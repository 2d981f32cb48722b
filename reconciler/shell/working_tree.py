"""A directory read as git would record it, without git: for `validate PATH` and `render PATH`.

Paths, modes and blob ids are those a commit of the directory would have, so that the same compiler reads both. `.git`
is left out, links are entries and never followed, and a nested repository is an entry like a submodule. Nothing that is
ignored by git is known here: what a fleet reads is named by its `fleet.yaml`.

    tree = working_tree_listing(Path("sample-repo"))
    tree.read([tree.files["fleet.yaml"].blob])
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.shell.git_objects import GitLimits
from reconciler.shell.ports import SourceError, TreeEntry

_CHUNK_BYTES = 1 << 20
_NO_BLOB = "0" * 40


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """The files of a directory by path relative to it."""

    root: Path
    files: Mapping[str, TreeEntry]
    _paths: Mapping[str, str]
    _limits: GitLimits

    def read(self, blobs: Sequence[str]) -> dict[str, bytes]:
        """Contents by id, as they were when listed. Raises SourceError, ChangedMeanwhile among others."""
        found = {}
        for blob in dict.fromkeys(blobs):
            path = self._paths.get(blob)
            if path is None:
                raise SourceError("NotABlob", f"{blob[:12]} is no file's content in {self.root}")
            entry = self.files[path]
            if entry.size > self._limits.blob_bytes_max:
                raise SourceError("TooLarge", f"{path} has more than {self._limits.blob_bytes_max} bytes")
            content = _content(self.root / path, entry.mode)
            if _blob_id(len(content), iter((content,))) != blob:
                raise SourceError("ChangedMeanwhile", f"{path} was changed while it was read: try again")
            found[blob] = content
        return found


def working_tree_listing(path: Path, limits: GitLimits | None = None) -> WorkingTree:
    """Everything below directory `path`. Raises SourceError (NotADirectory, TooLarge, Unreadable)."""
    limits = limits or GitLimits()
    if not path.is_dir():
        raise SourceError("NotADirectory", f"{path} is not a directory")
    files: dict[str, TreeEntry] = {}
    paths: dict[str, str] = {}
    for relative, entry in sorted(_walk(path, "", limits)):
        files[relative] = entry
        paths.setdefault(entry.blob, relative)
        if len(files) > limits.files_max:
            raise SourceError("TooLarge", f"{path} has more than {limits.files_max} files")
    paths.pop(_NO_BLOB, None)
    return WorkingTree(path, files, paths, limits)


def _walk(root: Path, below: str, limits: GitLimits) -> Iterator[tuple[str, TreeEntry]]:
    """Every entry below `root`/`below`; depth first by a list of our own, for depth is the author's."""
    waiting, seen = [below], 0
    while waiting:
        below = waiting.pop()
        try:
            entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError("Unreadable", f"{root / below} cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name == ".git":
                continue
            relative = f"{below}/{entry.name}" if below else entry.name
            seen += 1
            if seen > 4 * limits.files_max:
                raise SourceError("TooLarge", f"{root} has more than {limits.files_max} files")
            if not entry.is_dir(follow_symlinks=False):
                if found := _entry(root / relative):
                    yield relative, found
            elif os.path.lexists(root / relative / ".git"):
                yield relative, TreeEntry("160000", _NO_BLOB)
            else:
                waiting.append(relative)


def _entry(path: Path) -> TreeEntry | None:
    """`path` as git records it; None for what git does not (sockets, devices, pipes: opening one could block)."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            content = _content(path, "120000")
            return TreeEntry("120000", _blob_id(len(content), iter((content,))), len(content))
        if not stat.S_ISREG(found.st_mode):
            return None
        mode = "100755" if found.st_mode & stat.S_IXUSR else "100644"
        with path.open("rb") as file:
            blob = _blob_id(found.st_size, iter(lambda: file.read(_CHUNK_BYTES), b""))
        return TreeEntry(mode, blob, found.st_size)
    except OSError as error:
        raise SourceError("Unreadable", f"{path} cannot be read: {error.strerror}") from error


def _content(path: Path, mode: str) -> bytes:
    try:
        if mode == "120000":
            return os.fsencode(path.readlink())
        # A file that has become a link meanwhile is not followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()
    except OSError as error:
        raise SourceError("Unreadable", f"{path} cannot be read: {error.strerror}") from error


def _blob_id(size: int, chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
