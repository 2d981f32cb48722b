"""A Git repository in memory, for the simulator: the Source port without a disk.

`SimRepository` is the remote: it outlives the daemon's crashes, and scenarios commit to it, force-push it, or make it
vanish. `SimSource` is one daemon's view of one ref. Blob, tree and commit ids are the ones git itself would compute, so
the same files at the same moment are the same commit in every run.

    repository = SimRepository()
    sha = repository.commit({"fleet.yaml": b"kind: Fleet"}, "first")
    await SimSource(repository).head() == sha
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.shell.ports import Commit, SourceError, TreeEntry
from reconciler.sim.loop import WALL_START_S

AUTHOR = "Ada Example"
EMAIL = "ada@example.com"
#: A commit's date follows its parent's by this much unless it is given.
BETWEEN_COMMITS_S = 60.0


def object_id(kind: str, content: bytes) -> str:
    """The id git gives an object: SHA-1 over its kind, size and content."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def tree_id(files: Mapping[str, TreeEntry]) -> str:
    """The id of the tree that holds `files` (by path)."""
    entries: list[tuple[bytes, bytes]] = []
    below: dict[str, dict[str, TreeEntry]] = {}
    for path, entry in files.items():
        head, slash, rest = path.partition("/")
        if slash:
            below.setdefault(head, {})[rest] = entry
        else:
            entries.append((head.encode(), f"{entry.mode} {head}\0".encode() + bytes.fromhex(entry.blob)))
    for name, inner in below.items():
        # Git sorts a directory as if its name ended in a slash.
        entries.append((f"{name}/".encode(), f"40000 {name}\0".encode() + bytes.fromhex(tree_id(inner))))
    return object_id("tree", b"".join(line for _, line in sorted(entries)))


@dataclass(frozen=True, slots=True)
class _Stored:
    """One commit and its files."""

    commit: Commit
    parent: str
    files: dict[str, TreeEntry]


class SimRepository:
    """A remote repository. `refs` maps ref names to commit ids; `main` is the one most calls mean."""

    def __init__(self) -> None:
        self.refs: dict[str, str] = {}
        self._commits: dict[str, _Stored] = {}
        self._blobs: dict[str, bytes] = {}
        self._fetched: set[str] = set()
        self._gone = False

    def commit(
        self,
        files: Mapping[str, bytes | str | None],
        subject: str = "change",
        *,
        ref: str = "main",
        replace: bool = False,
        authored_wall: float | None = None,
        executable: Sequence[str] = (),
        links: Sequence[str] = (),
        submodules: Sequence[str] = (),
    ) -> str:
        """Commit `files` on top of `ref` (None deletes a path; `replace` starts from nothing) and return the id.
        The content of one of `links` is where it leads, that of one of `submodules` names a commit of another
        repository."""
        parent = self.refs.get(ref, "")
        tree = {} if replace or not parent else dict(self._commits[parent].files)
        for path, content in sorted(files.items()):
            if content is None:
                tree.pop(path, None)
                continue
            data = content.encode() if isinstance(content, str) else content
            if path in submodules:
                tree[path] = TreeEntry("160000", object_id("commit", data))  # its objects are elsewhere
                continue
            blob = object_id("blob", data)
            self._blobs[blob] = data
            mode = "120000" if path in links else "100755" if path in executable else "100644"
            tree[path] = TreeEntry(mode, blob, len(data))
        if authored_wall is None:
            before = self._commits[parent].commit.authored_wall if parent else WALL_START_S
            authored_wall = before + BETWEEN_COMMITS_S
        sha = _commit_id(tree, parent, subject, authored_wall)
        self._commits[sha] = _Stored(Commit(sha, AUTHOR, subject, authored_wall), parent, tree)
        self.refs[ref] = sha
        return sha

    def delete_everything(self, subject: str = "delete everything", *, ref: str = "main") -> str:
        """A commit with an empty tree."""
        return self.commit({}, subject, ref=ref, replace=True)

    def force_push(self, sha: str, *, ref: str = "main") -> None:
        """Move `ref` to `sha`, wherever it was."""
        if sha not in self._commits:
            raise KeyError(f"no commit {sha}")
        self.refs[ref] = sha

    def delete_ref(self, ref: str = "main") -> None:
        """The branch goes; its commits stay fetchable for who has them."""
        del self.refs[ref]

    def vanish(self) -> None:
        """The repository can no longer be reached, until `come_back`."""
        self._gone = True

    def come_back(self) -> None:
        """Undo `vanish`."""
        self._gone = False

    def parent(self, sha: str) -> str:
        """The parent of `sha`; "" for a first commit."""
        return self._commits[sha].parent

    # What a fetch would carry over, for SimSource.

    def ask(self, ref: str) -> str:
        """The commit of `ref`, asked of the remote. Raises SourceError."""
        self._reach()
        if ref not in self.refs:
            raise SourceError("RefNotFound", f"the repository has no ref {ref!r}")
        return self.refs[ref]

    def fetch(self, sha: str) -> tuple[Commit, dict[str, TreeEntry]]:
        """A commit and its files, from the mirror if it was fetched before. Raises SourceError."""
        if sha not in self._fetched:
            self._reach()
            if sha not in self._commits:
                raise SourceError("CommitNotFound", f"the repository has no commit {sha}")
            self._fetched.add(sha)
        stored = self._commits[sha]
        return stored.commit, dict(sorted(stored.files.items()))

    def blob(self, blob: str) -> bytes:
        """The content of a blob. Raises SourceError."""
        if blob not in self._blobs:
            raise SourceError("BlobNotFound", f"the repository has no blob {blob}")
        return self._blobs[blob]

    def _reach(self) -> None:
        if self._gone:
            raise SourceError("RepositoryUnreachable", "the repository does not answer")


def _commit_id(files: Mapping[str, TreeEntry], parent: str, subject: str, authored_wall: float) -> str:
    who = f"{AUTHOR} <{EMAIL}> {int(authored_wall)} +0000"
    lines = [f"tree {tree_id(files)}", *([f"parent {parent}"] if parent else []), f"author {who}", f"committer {who}"]
    return object_id("commit", ("\n".join(lines) + f"\n\n{subject}\n").encode())


class SimSource:
    """ports.Source over a SimRepository at one ref. `reads` counts blobs read, for tests that assert how few."""

    def __init__(self, repository: SimRepository, ref: str = "main") -> None:
        self._repository = repository
        self._ref = ref
        self.reads = 0

    async def head(self) -> str:
        return self._repository.ask(self._ref)

    async def listing(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        return self._repository.fetch(sha)

    async def read(self, blobs: Sequence[str]) -> Mapping[str, bytes]:
        self.reads += len(blobs)
        return {blob: self._repository.blob(blob) for blob in blobs}

    async def close(self) -> None:
        """There is nothing to close."""
