"""A Git repository on disk, made and committed to by the git program: what people do, played by the demo.

Author and dates are given, and the user's own configuration is not read: the same content is the same commit every
time, also where HOME is empty.

    repository = await LocalRepository.create(directory / "fleet", files, at_wall=clock.now().wall)
    sha = await repository.commit({"apps/orders/app.yaml": text}, "orders: 4.3.0", "Mia Keller", at_wall)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

BRANCH = "main"


class GitFailedError(Exception):
    """git is missing or refused; the message says what to do or what it said."""


class LocalRepository:
    """A repository with a working tree. Not for use by two tasks at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        """Its address, as a daemon's settings name it."""
        return f"file://{self.path}"

    @classmethod
    async def create(cls, path: Path, files: Mapping[str, bytes], author: str, at_wall: float) -> LocalRepository:
        """A new repository with one commit that holds `files`."""
        repository = cls(path)
        path.mkdir(parents=True)  # noqa: ASYNC240 - one local call
        await repository._git("init", "--quiet", f"--initial-branch={BRANCH}", "--template=")
        await repository.commit(files, "The fleet", author, at_wall)
        return repository

    async def commit(self, files: Mapping[str, bytes], subject: str, author: str, at_wall: float) -> str:
        """Write `files`, commit them, and return the commit's SHA."""
        for name, content in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        await self._git("add", "--all")
        mail = ".".join(author.lower().split()) + "@example.com"
        date = f"{int(at_wall)} +0000"
        await self._git(
            "commit",
            "--quiet",
            f"--message={subject}",
            variables={
                "GIT_AUTHOR_NAME": author,
                "GIT_AUTHOR_EMAIL": mail,
                "GIT_AUTHOR_DATE": date,
                "GIT_COMMITTER_NAME": author,
                "GIT_COMMITTER_EMAIL": mail,
                "GIT_COMMITTER_DATE": date,
            },
        )
        return await self.head()

    async def head(self) -> str:
        """The newest commit's SHA."""
        return (await self._git("rev-parse", "HEAD")).strip()

    async def _git(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """One call. It has a session of its own, for Ctrl-C is ours to handle; cancelled, it ends with us."""
        program = shutil.which("git")
        if program is None:
            raise GitFailedError("the demo needs the git program: install git")
        options = ("-c", "commit.gpgSign=false", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0")
        process = await asyncio.create_subprocess_exec(
            program,
            *options,
            *arguments,
            cwd=self.path,
            env=_environment(self.path) | dict(variables or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, errors = await process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip()[:500]
            raise GitFailedError(f"git {arguments[0]} failed: {said}")
        return output.decode()


def _environment(home: Path) -> dict[str, str]:
    """git's whole environment: nothing of the user's, no configuration of the system, no question to anybody."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
