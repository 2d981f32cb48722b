"""GitSource: one repository at one ref, read through a bare mirror in the state directory.

A poll asks the remote for the ref only (`ls-remote`, some milliseconds). A commit that the mirror lacks is fetched: the
one ref, without tags, its whole history, for plans compare with older commits. Content is read from the mirror and
nothing is ever checked out, so links, filters and hooks of a repository never reach a disk. The mirror is a cache: a
damaged one is thrown away and fetched anew.

    source = GitSource("fleet", "https://git.example.com/fleet.git", "main",
                       directory=state / "git", executor=ThreadPoolExecutor(1), monotonic=time.monotonic)
    commit, files = await source.listing(await source.head())

git runs in `executor`, which has one thread, of this source alone. Reason codes of its SourceErrors: RefusedUrl,
RefusedRef, RefusedRedirect, RepositoryUnreachable, AuthenticationFailed, HostKeyRefused, CredentialsMissing,
RefNotFound, AmbiguousRef, EmptyRepository, RevisionGone, NotACommit, TooLarge, Timeout, CorruptMirror, StorageFailed,
UnsupportedRepository, GitMissing, GitTooOld, Closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from reconciler.shell.git_command import GitCommand, Output, check_git_version, clean, environment, error_of, git_class
from reconciler.shell.git_credentials import GitCredentials, credentials_of
from reconciler.shell.git_objects import GitLimits, MissingObjectError, ObjectReader, is_sha
from reconciler.shell.git_urls import GitUrl, candidate_refs, check_ref, parse_url
from reconciler.shell.logs import event
from reconciler.shell.ports import Commit, SourceError, TreeEntry

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TIP = "refs/reconciler/tip"

R = TypeVar("R")


class GitSource:
    """ports.Source over git. Nothing is touched until the first call; `close` ends a call that is running."""

    def __init__(
        self,
        name: str,
        url: str,
        ref: str,
        *,
        directory: Path,
        executor: Executor,
        monotonic: Callable[[], float],
        protocols: Collection[str] = ("https", "ssh"),
        credentials: GitCredentials | None = None,
        limits: GitLimits | None = None,
    ) -> None:
        self._mirror = Mirror(
            name,
            url,
            ref,
            directory=directory,
            monotonic=monotonic,
            protocols=protocols,
            credentials=credentials or GitCredentials(),
            limits=limits or GitLimits(),
        )
        self._executor = executor

    async def head(self) -> str:
        """The ref's commit, asked of the remote. Raises SourceError."""
        return await self._call(self._mirror.head)

    async def listing(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        """The commit and every file of it by path. Raises SourceError."""
        return await self._call(lambda: self._mirror.listing(sha))

    async def read(self, blobs: Sequence[str]) -> Mapping[str, bytes]:
        """Contents of `blobs` by id. Raises SourceError."""
        return await self._call(lambda: self._mirror.read(blobs))

    async def close(self) -> None:
        """End a running call within a quarter of a second, and the batch process. May be called twice."""
        self._mirror.cancel()
        await self._call(self._mirror.close)

    async def _call(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class Mirror:
    """The blocking half: a bare mirror and the calls on it. Used by one thread, but for `cancel`."""

    def __init__(
        self,
        name: str,
        url: str,
        ref: str,
        *,
        directory: Path,
        monotonic: Callable[[], float],
        protocols: Collection[str],
        credentials: GitCredentials,
        limits: GitLimits,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a repository name: {name[:80]!r}")
        self._url, self._ref = url, ref
        self._protocols = tuple(protocols)
        self._credentials = credentials
        self._limits = limits
        self._home = directory / "home"
        # Another URL is another mirror: nothing of the former one can be taken for the new one's.
        self._path = directory / name / (hashlib.sha256(url.encode()).hexdigest()[:16] + ".git")
        self._command = GitCommand(self._path, environment(self._home, ()), monotonic=monotonic)
        self._reader = ObjectReader(self._command, limits)
        self._ready = False
        self._full_ref = ""

    def cancel(self) -> None:
        self._command.cancel()

    def close(self) -> None:
        self._reader.close()

    # ---- the remote ----------------------------------------------------------------------------------------------

    def head(self) -> str:
        """The commit of the ref; a tag's is the commit it points to."""
        check_ref(self._ref)
        names = candidate_refs(self._ref)
        found = self._ls_remote([*names, *(f"{name}^{{}}" for name in names if name.startswith("refs/tags/"))])
        full_names = [name for name in names if name in found]
        if len(full_names) > 1:
            raise SourceError(
                "AmbiguousRef", f"{self._ref!r} is a branch and a tag: write refs/heads/{self._ref} or refs/tags/..."
            )
        if not full_names:
            if not self._ls_remote([]):
                raise SourceError("EmptyRepository", "the repository has no commit yet")
            raise SourceError("RefNotFound", f"the repository has no branch or tag {self._ref!r}")
        self._full_ref = full_names[0]
        sha = found.get(f"{self._full_ref}^{{}}", found[self._full_ref])
        if len(sha) != 40:
            raise SourceError("UnsupportedRepository", "repositories with SHA-256 object ids are not supported")
        return sha

    def _ls_remote(self, patterns: Sequence[str]) -> dict[str, str]:
        self._prepare()
        url = parse_url(self._url, self._protocols)
        limits = self._limits
        output = self._remote(
            ["ls-remote", "--quiet", "--", url.text, *patterns],
            url,
            action="asking the repository for its refs",
            timeout_s=limits.ls_remote_timeout_s,
            output_bytes_max=limits.remote_refs_bytes_max,
        )
        if output.truncated and patterns:
            raise SourceError("TooLarge", f"the refs that match take more than {limits.remote_refs_bytes_max} bytes")
        # A pattern matches from the end of a ref, so that more may come than was asked for.
        lines = (line.partition("\t") for line in output.stdout.decode("utf-8", "replace").splitlines())
        return {ref: sha for sha, _, ref in lines if is_sha(sha) and (not patterns or ref in patterns)}

    def _fetch(self) -> None:
        """Fetch the ref. A mirror too damaged for it is made anew, once."""
        if not self._full_ref:
            self.head()
        url = parse_url(self._url, self._protocols)
        try:
            self._fetch_once(url)
        except SourceError as error:
            if error.reason.code != "CorruptMirror":
                raise
            self._rebuild(error.reason.message)
            self._fetch_once(url)
        self._maintain()

    def _fetch_once(self, url: GitUrl) -> None:
        try:
            self._remote(
                [
                    "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
                    "--no-auto-maintenance", "--force", "--", url.text, f"+{self._full_ref}:{_TIP}",
                ],
                url,
                action="fetching from the repository",
                timeout_s=self._limits.fetch_timeout_s,
                watch=self._check_size,
            )  # fmt: skip
        except SourceError as error:
            # What was killed may have left a lock, which would refuse every later fetch.
            self._remove_leftovers()
            if error.reason.code == "TooLarge":
                self._reader.close()
                _remove(self._path)
                self._ready = False
            raise

    def _remote(
        self,
        arguments: Sequence[str],
        url: GitUrl,
        *,
        action: str,
        timeout_s: float,
        output_bytes_max: int = 1 << 20,
        watch: Callable[[], None] | None = None,
    ) -> Output:
        config, extra, secrets = credentials_of(url, self._credentials)
        self._command.secrets = secrets
        output = self._command.run(
            arguments,
            action=action,
            timeout_s=timeout_s,
            output_bytes_max=output_bytes_max,
            extra=environment(self._home, (url.protocol,), config=config, extra=extra),
            watch=watch,
        )
        if output.status != 0 and not output.truncated:
            raise error_of(output.stderr, action, secrets)
        return output

    # ---- the mirror ----------------------------------------------------------------------------------------------

    def listing(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        """The commit and its files, fetched if the mirror lacks any of it."""
        self._prepare()
        try:
            return self._files_of(sha)
        except MissingObjectError:
            self._fetch()
        try:
            return self._files_of(sha)
        except MissingObjectError as error:
            if self._is_sound() and not self._has_commit(sha):
                raise SourceError(
                    "RevisionGone", f"commit {sha[:12]} is not in the history of {self._ref!r} any more"
                ) from error
            self._rebuild(str(error))
            self._fetch()
        try:
            return self._files_of(sha)
        except MissingObjectError as error:
            raise SourceError("CorruptMirror", f"a new mirror is damaged, too: {error}") from error

    def read(self, blobs: Sequence[str]) -> Mapping[str, bytes]:
        """Contents by id. A listing named them, so a missing one is damage: the mirror is then dropped, and the next
        listing fetches it anew."""
        self._prepare()
        try:
            return self._reader.blobs(blobs)
        except MissingObjectError as error:
            self._rebuild(str(error))
            raise SourceError("CorruptMirror", f"the mirror was damaged and is fetched anew: {error}") from error

    def _files_of(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        commit, tree = self._reader.commit(sha)
        return commit, self._reader.listing(tree)

    def _has_commit(self, sha: str) -> bool:
        try:
            self._reader.commit(sha)
        except MissingObjectError:
            return False
        return True

    def _is_sound(self) -> bool:
        """True if what the tip names can be read: then a commit that is missing is not there to be fetched."""
        output = self._command.run(
            ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{_TIP}^{{tree}}"],
            action="checking the mirror",
            timeout_s=self._limits.local_timeout_s,
        )
        return output.status == 0

    def _prepare(self) -> None:
        """Make the mirror if there is none; clear what an earlier process left behind."""
        if self._ready:
            return
        check_ref(self._ref)
        parse_url(self._url, self._protocols)
        check_git_version(git_class()())
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for other in sorted(self._path.parent.iterdir()):
                if other != self._path:
                    _remove(other)
        except OSError as error:
            raise SourceError("StorageFailed", f"the mirror cannot be made: {error.strerror}") from error
        self._remove_leftovers()
        if self._init().status != 0:
            # It is too damaged even to be made anew in place.
            _remove(self._path)
            self._path.mkdir(mode=0o700)
            if (output := self._init()).status != 0:
                raise error_of(output.stderr, "making the mirror", default="StorageFailed")
        self._ready = True

    def _init(self) -> Output:
        return self._command.run(
            ["init", "--quiet", "--bare", "--template=", "--initial-branch=none", "--", str(self._path)],
            action="making the mirror",
            timeout_s=self._limits.local_timeout_s,
        )

    def _rebuild(self, why: str) -> None:
        event(_LOG, logging.WARNING, "git.mirror.rebuilt", mirror=self._path.parent.name, why=why)
        self._reader.close()
        _remove(self._path)
        self._ready = False
        self._prepare()

    def _remove_leftovers(self) -> None:
        """Locks and half-written packs of a git that was killed: this process alone uses the mirror."""
        for root, _, files in os.walk(self._path):
            for name in files:
                if name.endswith(".lock") or name.startswith(("tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_obj_")):
                    (Path(root) / name).unlink(missing_ok=True)

    def _check_size(self) -> None:
        """Called while a fetch runs: a pack bomb ends at the limit, not at the end of the disk."""
        total, packs = 0, self._path / "objects" / "pack"
        for entry in os.scandir(packs) if packs.is_dir() else ():
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # git renames its temporary files meanwhile
        if total > self._limits.mirror_bytes_max:
            raise SourceError("TooLarge", f"the repository has more than {self._limits.mirror_bytes_max} bytes")

    def _maintain(self) -> None:
        """Let git pack what has gathered: it does so only now and then, and keeps what is younger than two weeks."""
        output = self._command.run(
            ["gc", "--auto", "--quiet"], action="packing the mirror", timeout_s=self._limits.fetch_timeout_s
        )
        if output.status != 0:
            event(_LOG, logging.WARNING, "git.gc.failed", mirror=self._path.parent.name, why=clean(output.stderr))


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError("StorageFailed", f"the mirror cannot be removed: {error.strerror}") from error
