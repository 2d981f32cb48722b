"""A real Git repository in a temporary directory, for tests: made with the git program, isolated from its user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "1700000000 +0100",
    "GIT_COMMITTER_DATE": "1700000000 +0100",
}


class GitRepository:
    """A bare repository. `commit` writes commits without a working tree, so that any path and mode can be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"file://{path}"
        self._count = 0
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", ".")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in the repository; its output without the last newline."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=inherited | _ENVIRONMENT,
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace").rstrip("\n")

    def blob(self, content: bytes) -> str:
        """Write a blob."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def tree(self, entries: dict[bytes, tuple[str, str]]) -> str:
        """Write a tree of one level as it stands, however hostile: name -> (mode, id)."""
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha) for name, (mode, sha) in sorted(entries.items())
        )
        return self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)

    def commit(self, files: dict[str, bytes], *, branch: str = "main", parent: bool = True, message: str = "") -> str:
        """Commit exactly `files` on `branch`."""
        # One process for all of it: some tests commit thousands of files.
        self._count += 1
        message = message or f"Commit {self._count}"
        head = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        stream = [b"commit refs/heads/%s\n" % branch.encode()]
        stream.append(b"author Ada <ada@example.com> %d +0100\n" % (1700000000 + self._count))
        stream.append(b"committer Ada <ada@example.com> %d +0100\n" % (1700000000 + self._count))
        stream.append(b"data %d\n%s\n" % (len(message.encode()), message.encode()))
        if parent and head:
            stream.append(b"from %s\n" % head.encode())
        stream.append(b"deleteall\n")
        for path, content in files.items():
            stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content))
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(stream))
        return self.git("rev-parse", f"refs/heads/{branch}")

    def commit_tree(self, tree: str, *, branch: str = "main") -> str:
        """Commit a tree made by `tree` on `branch`, without a parent."""
        sha = self.git("commit-tree", "-m", "a tree", tree)
        self.git("update-ref", f"refs/heads/{branch}", sha)
        return sha
