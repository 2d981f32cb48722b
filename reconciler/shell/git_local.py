"""A person's own repository, read only: for `plan PATH --from REV --to REV`.

The same isolated git as for mirrors, with no protocol at all, so that nothing is fetched even where a repository is set
up to fetch what it lacks. Nothing is written, no hook and no program of the repository's configuration is run; that is
why it may belong to another user, as a checkout in a container often does.

    with open_local(Path("."), monotonic=time.monotonic) as repository:
        commit, files = repository.listing(repository.resolve("HEAD~1"))
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reconciler.shell.git_command import GitCommand, check_git_version, environment, error_of, git_class
from reconciler.shell.git_objects import GitLimits, MissingObjectError, ObjectReader, is_sha
from reconciler.shell.ports import Commit, SourceError, TreeEntry

#: What people write for a commit: names, @, ~n, ^n, @{n}, @{upstream}. No option, no range, no path, no search.
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_@][A-Za-z0-9._/+@~^={}-]{0,254}")


class LocalRepository:
    """Commits of one repository. Used by one thread; leaving the context ends its process."""

    def __init__(self, command: GitCommand, limits: GitLimits, home: tempfile.TemporaryDirectory[str]) -> None:
        self._command = command
        self._limits = limits
        self._home = home
        self._reader = ObjectReader(command, limits)

    def __enter__(self) -> LocalRepository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def root(self) -> Path:
        """The directory that git was asked in."""
        return self._command.directory

    def close(self) -> None:
        """End the process. May be called twice."""
        self._reader.close()
        self._home.cleanup()

    def resolve(self, revision: str) -> str:
        """The commit that `revision` names. Raises SourceError (RefusedRef, RefNotFound)."""
        if not _REVISION.fullmatch(revision):
            raise SourceError("RefusedRef", "the revision is not a plain name of a commit (main, HEAD~1, v1.2, a SHA)")
        output = self._command.run(
            ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
            action=f"looking for {revision}",
            timeout_s=self._limits.local_timeout_s,
        )
        # --end-of-options itself is printed by git before 2.43.
        found = output.stdout.decode("ascii", "replace").split()
        if output.status != 0 or not found or not is_sha(found[-1]):
            raise SourceError("RefNotFound", f"there is no commit {revision!r} in {self.root}")
        return found[-1]

    def listing(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        """The commit and every file of it by path, from the repository's root. Raises SourceError."""
        try:
            commit, tree = self._reader.commit(sha)
            return commit, self._reader.listing(tree)
        except MissingObjectError as error:
            raise SourceError(
                "RevisionGone", f"commit {sha[:12]} is not all there (a shallow clone?): {error}"
            ) from error

    def read(self, blobs: Sequence[str]) -> dict[str, bytes]:
        """Contents by id. Raises SourceError."""
        try:
            return self._reader.blobs(blobs)
        except MissingObjectError as error:
            raise SourceError("RevisionGone", f"{error}: fetch it first") from error


def open_local(path: Path, *, monotonic: Callable[[], float], limits: GitLimits | None = None) -> LocalRepository:
    """The repository that `path` is in, bare or not. Raises SourceError (NotARepository, GitMissing, GitTooOld)."""
    limits = limits or GitLimits()
    check_git_version(git_class()())
    if not path.is_dir():
        raise SourceError("NotARepository", f"{path} is not a directory")
    home = tempfile.TemporaryDirectory(prefix="reconciler-home-")
    # Any owner: see above. Only configuration of this rank can say so, never the repository's own.
    values = environment(Path(home.name), (), config=(("safe.directory", "*"),))
    command = GitCommand(path.absolute(), values, monotonic=monotonic)
    try:
        output = command.run(["rev-parse", "--git-dir"], action=f"opening {path}", timeout_s=limits.local_timeout_s)
        if output.status != 0:
            raise SourceError("NotARepository", error_of(output.stderr, f"opening {path}").reason.message)
    except BaseException:
        home.cleanup()
        raise
    return LocalRepository(command, limits, home)
