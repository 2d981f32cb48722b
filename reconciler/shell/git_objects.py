"""Reading a repository's objects: one long-lived `cat-file --batch`, and `ls-tree` for what a commit holds.

A tree's id is a hash over all below it, so that of the next tree only what differs from the last one is asked for
(`diff-tree`): a commit that changes one file of ten thousand costs git and us that one.

Nothing is checked out and nothing is followed: a link is an entry of mode 120000 whose content is its text, a submodule
one of mode 160000 without content. Both the daemon's mirrors and a person's own repository are read this way.

    reader = ObjectReader(command, limits)
    commit, tree = reader.commit(sha)
    reader.listing(tree)["apps/orders/app.yaml"].blob
"""

from __future__ import annotations

import os
import re
import selectors
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.shell.git_command import TICK_S, GitCommand, Process, clean, error_of
from reconciler.shell.ports import Commit, SourceError, TreeEntry

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: Requests in flight: 256 lines of 65 bytes fit into any pipe, so that writing never waits for reading.
_REQUESTS_MAX = 256
_HEADER_BYTES_MAX = 256
#: With more files than this that differ, the whole tree is listed.
_DIFFERING_MAX = 1000
_CHUNK_BYTES = 262144
_COMMIT_BYTES_MAX = 1 << 20
_SUBJECT_LENGTH_MAX = 200
#: The last second of the year 9999: no calendar of ours can show a later one.
_AUTHORED_WALL_MAX = 253_402_300_799
_SUBMODULE = "160000"
_MODES = {mode: mode for mode in ("100644", "100755", "120000", _SUBMODULE)}


@dataclass(frozen=True, slots=True)
class GitLimits:
    """What one repository may cost. Sizes are bytes."""

    files_max: int = 200_000
    path_length_max: int = 1024
    blob_bytes_max: int = 16 << 20
    mirror_bytes_max: int = 4 << 30
    remote_refs_bytes_max: int = 1 << 20
    ls_remote_timeout_s: float = 30.0
    fetch_timeout_s: float = 600.0
    local_timeout_s: float = 120.0


class MissingObjectError(Exception):
    """An object is not there: not fetched yet, or the mirror is damaged. Never leaves the adapter."""


def is_sha(text: str) -> bool:
    """True if `text` is a full object id."""
    return _SHA.fullmatch(text) is not None


class ObjectReader:
    """Objects of one repository. Used by one thread at a time."""

    def __init__(self, command: GitCommand, limits: GitLimits) -> None:
        self._command = command
        self._limits = limits
        self._batch: _Batch | None = None
        self._sizes: _Batch | None = None
        self._listed: tuple[str, Mapping[str, TreeEntry]] | None = None

    def close(self) -> None:
        """End the batch processes and forget what was listed; the next read starts others."""
        for batch in (self._batch, self._sizes):
            if batch is not None:
                batch.process.kill()
        self._batch = self._sizes = self._listed = None

    def commit(self, sha: str) -> tuple[Commit, str]:
        """The commit and its tree's id. Raises MissingObjectError, SourceError NotACommit."""
        _require_sha(sha)
        [(kind, content)] = self._objects([sha], _COMMIT_BYTES_MAX)
        if kind != "commit":
            raise SourceError("NotACommit", f"{sha[:12]} is a {kind}, not a commit")
        return _parse_commit(sha, content)

    def blobs(self, blobs: Sequence[str]) -> dict[str, bytes]:
        """Contents by id. Raises MissingObjectError, SourceError TooLarge."""
        wanted = list(dict.fromkeys(blobs))
        for blob in wanted:
            _require_sha(blob)
        found = {}
        for blob, (kind, content) in zip(wanted, self._objects(wanted, self._limits.blob_bytes_max), strict=True):
            if kind != "blob":
                raise SourceError("NotABlob", f"{blob[:12]} is a {kind}, not a file's content")
            found[blob] = content
        return found

    def listing(self, tree: str) -> Mapping[str, TreeEntry]:
        """Every file below `tree`, not to be changed. Raises MissingObjectError, SourceError TooLarge."""
        entries = self._listing_again(tree)
        if entries is None:
            entries, is_sound = self._whole_listing(tree)
            self._listed = (tree, entries) if is_sound else None
        else:
            self._listed = (tree, entries)
        return entries

    def _listing_again(self, tree: str) -> Mapping[str, TreeEntry] | None:
        """The same, from what was listed last; None where that cannot be: whatever is wrong then shows in the whole."""
        if self._listed is None:
            return None
        last, before = self._listed
        if last == tree:
            return before
        output = self._command.run(
            ["diff-tree", "-r", "-z", "--no-renames", "--ignore-submodules=none", "--end-of-options", last, tree],
            action=f"comparing the files of tree {tree[:12]}",
            timeout_s=self._limits.local_timeout_s,
            output_bytes_max=_DIFFERING_MAX * (self._limits.path_length_max + 200),
        )
        usable = output.status == 0 and not output.truncated
        differing = _parse_differing(output.stdout, before, self._limits) if usable else None
        if differing is None:
            return None
        files = [(mode, blob) for mode, blob in differing.values() if mode and mode != _SUBMODULE]
        sizes = self._sizes_of(sorted({blob for _, blob in files}))
        entries = dict(before)
        for path, (mode, blob) in differing.items():
            if mode:
                entries[path] = TreeEntry(_MODES.get(mode, mode), blob, sizes.get(blob, -1))
            else:
                entries.pop(path, None)
        if len(entries) > self._limits.files_max:
            return None
        # As git lists them: by the bytes of their paths.
        return entries if entries.keys() == before.keys() else dict(sorted(entries.items()))

    def _sizes_of(self, blobs: Sequence[str]) -> dict[str, int]:
        """Bytes by id, none of them read. Raises MissingObjectError."""
        action = "asking the mirror for sizes"
        deadline = self._command.deadline(self._limits.local_timeout_s)
        sizes = {}
        try:
            if self._sizes is None:
                self._sizes = _Batch(self._command, self._command.start(["cat-file", "--batch-check"], stdin=True))
            for start in range(0, len(blobs), _REQUESTS_MAX):
                part = blobs[start : start + _REQUESTS_MAX]
                self._sizes.request(part)
                sizes.update({blob: self._sizes.header(blob, deadline, action)[1] for blob in part})
        except BaseException:
            self.close()
            raise
        return sizes

    def _whole_listing(self, tree: str) -> tuple[dict[str, TreeEntry], bool]:
        """The files, and whether each stands there once: of another tree nothing can be said that another one is
        compared with."""
        limits = self._limits
        action = f"listing the files of tree {tree[:12]}"
        output = self._command.run(
            ["ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", tree],
            action=action,
            timeout_s=limits.local_timeout_s,
            # 70 bytes of mode, type, id and size, and an average path far below the longest.
            output_bytes_max=limits.files_max * 400,
        )
        if output.truncated:
            raise _too_many(limits)
        if output.status != 0:
            error = error_of(output.stderr, action, self._command.secrets, default="CorruptMirror")
            if error.reason.code == "CorruptMirror":
                raise MissingObjectError(error.reason.message) from error
            raise error
        return _parse_listing(output.stdout, limits)

    def _objects(self, names: Sequence[str], bytes_max: int) -> list[tuple[str, bytes]]:
        """(type, content) of each of `names`."""
        action = "reading from the mirror"
        deadline = self._command.deadline(self._limits.local_timeout_s)
        found = []
        try:
            if self._batch is None:
                self._batch = _Batch(self._command, self._command.start(["cat-file", "--batch"], stdin=True))
            for start in range(0, len(names), _REQUESTS_MAX):
                part = names[start : start + _REQUESTS_MAX]
                self._batch.request(part)
                found += [self._batch.answer(name, bytes_max, deadline, action) for name in part]
        except BaseException:
            # Answers of this request may still be in the pipe: the next one needs a fresh process.
            self.close()
            raise
        return found


class _Batch:
    """The pipe to one `cat-file --batch`."""

    def __init__(self, command: GitCommand, process: Process) -> None:
        self.process = process
        self._command = command
        self._buffer = bytearray()

    def request(self, names: Sequence[str]) -> None:
        if self.process.stdin is None:
            raise AssertionError("cat-file was started without its input")
        try:
            self.process.stdin.write("".join(f"{name}\n" for name in names).encode())
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def header(self, name: str, deadline: float, action: str) -> tuple[str, int]:
        """The type and size of an object: all that `--batch-check` answers, and what `--batch` begins with."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _HEADER_BYTES_MAX:
                raise SourceError("CorruptMirror", f"{action}: cat-file answered something else than a header")
            self._fill(deadline, action)
        header = bytes(self._buffer[:end]).decode("ascii", "replace").split(" ")
        del self._buffer[: end + 1]
        if header[-1] == "missing":
            raise MissingObjectError(f"object {name[:12]} is missing")
        if len(header) != 3 or header[0] != name or not header[2].isdigit():
            raise SourceError("CorruptMirror", f"{action}: cat-file answered something else than a header")
        return header[1], int(header[2])

    def answer(self, name: str, bytes_max: int, deadline: float, action: str) -> tuple[str, bytes]:
        """The type and content of an object."""
        kind, size = self.header(name, deadline, action)
        if size > bytes_max:
            raise SourceError("TooLarge", f"object {name[:12]} has {size} bytes, more than the {bytes_max} allowed")
        while len(self._buffer) <= size:
            self._fill(deadline, action)
        content = bytes(memoryview(self._buffer)[:size])
        del self._buffer[: size + 1]
        return kind, content

    def _fill(self, deadline: float, action: str) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not selector.select(min(self._command.check(deadline, action), TICK_S)):
                pass
        chunk = os.read(self.process.stdout.fileno(), _CHUNK_BYTES)
        if not chunk:
            raise self._ended()
        self._buffer += chunk

    def _ended(self) -> MissingObjectError | SourceError:
        self.process.wait(TICK_S)
        stderr = self.process.stderr.read1(8192).decode("utf-8", "replace")  # type: ignore[attr-defined] # a buffered pipe
        error = error_of(stderr, "reading from the mirror", self._command.secrets, default="CorruptMirror")
        return MissingObjectError(error.reason.message) if error.reason.code == "CorruptMirror" else error


def _require_sha(text: str) -> None:
    if not is_sha(text):
        raise ValueError(f"not a full object id: {text[:80]!r}")


def _too_many(limits: GitLimits) -> SourceError:
    return SourceError("TooLarge", f"the commit has more than {limits.files_max} files, or very long paths")


def _parse_listing(output: bytes, limits: GitLimits) -> tuple[dict[str, TreeEntry], bool]:
    lines = output.split(b"\0")
    if len(lines) - 1 > limits.files_max:
        raise _too_many(limits)
    entries = {}
    for line in lines[:-1]:
        head, _, raw_path = line.partition(b"\t")
        mode, _, blob, size = head.decode("ascii").split()
        if len(raw_path) > limits.path_length_max:
            raise SourceError(
                "TooLarge", f"a path is longer than {limits.path_length_max} bytes: {clean(_text(raw_path[:60]))}…"
            )
        size_bytes = int(size) if size.isdigit() else -1
        entries[_text(raw_path)] = TreeEntry(_MODES.get(mode, mode), blob, size_bytes)
    return entries, len(entries) == len(lines) - 1


def _parse_differing(
    output: bytes, before: Mapping[str, TreeEntry], limits: GitLimits
) -> dict[str, tuple[str, str]] | None:
    """Path -> (mode, blob) of each file that differs from `before`, ("", "") of one that is not there any more.

    None if there are too many, or if this is not the difference of two sound trees: who can push may write one whose
    names stand twice or in another order, and git then names a file twice, or adds one that is there."""
    fields = output.split(b"\0")[:-1]
    if len(fields) > 2 * _DIFFERING_MAX:
        return None
    differing = {}
    # b":100644 100644 <id before> <id after> M" and the path, in turn.
    for head, raw_path in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, blob, status = head.decode("ascii").split()
        if len(raw_path) > limits.path_length_max:
            return None
        path = _text(raw_path)
        if path in differing or (path in before) != (status != "A"):
            return None
        differing[path] = ("", "") if status == "D" else (mode, blob)
    return differing


def _text(path: bytes) -> str:
    """A path as text. One that is not UTF-8 is shown in git's own quoting, so that it is printable and stays distinct:
    it is a key, never opened."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        quoted = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in path)
        return f'"{quoted}"'


def _parse_commit(sha: str, content: bytes) -> tuple[Commit, str]:
    head, _, message = content.decode("utf-8", "replace").partition("\n\n")
    tree, author, authored_wall = "", "", 0.0
    for line in head.splitlines():
        key, _, value = line.partition(" ")
        if key == "tree" and not tree:
            tree = value
        elif key == "author" and not author:
            author, authored_wall = _parse_person(value)
    if not is_sha(tree):
        raise MissingObjectError(f"commit {sha[:12]} names no tree")
    lines = message.strip().splitlines()
    subject = clean(lines[0])[:_SUBJECT_LENGTH_MAX] if lines else ""
    return Commit(sha, author, subject, authored_wall), tree


def _parse_person(value: str) -> tuple[str, float]:
    """ "Ada <ada@example.com> 1700000000 +0100" -> the name and address, and the time. Anything may stand here: a time
    that is missing, before 1970 or after the year 9999 is 0.0."""
    match = re.fullmatch(r"(.*?)(?: (-?\d{1,12}) [+-]\d{4})?", value, re.DOTALL)
    person, seconds = (match[1], match[2]) if match else (value, None)
    wall = int(seconds or 0)
    return clean(person)[:_SUBJECT_LENGTH_MAX], float(wall) if 0 <= wall <= _AUTHORED_WALL_MAX else 0.0
