"""The in-memory Git repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reconciler.shell.ports import SourceError
from reconciler.sim.git import AUTHOR, EMAIL, SimRepository, SimSource, object_id
from reconciler.sim.loop import run


def test_ids_are_those_of_git(tmp_path: Path) -> None:
    files = {"fleet.yaml": b"kind: Fleet\n", "apps/a.yaml": b"a", "apps/b/c.yaml": b"c", "apps.txt": b"sorts between"}
    sha = SimRepository().commit(files, "first", authored_wall=1_767_600_060, executable=["fleet.yaml"])

    who = {"NAME": AUTHOR, "EMAIL": EMAIL, "DATE": "1767600060 +0000"}
    environment = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    environment |= {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "fleet.yaml").chmod(0o755)
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    assert git("rev-parse", "HEAD") == sha


def test_a_source_reads_what_was_committed() -> None:
    repository = SimRepository()
    first = repository.commit({"a": "1", "b/c": b"2"}, "first")
    second = repository.commit({"a": None, "d": b"3"}, "second")
    source = SimSource(repository)

    async def main() -> None:
        assert await source.head() == second
        commit, files = await source.listing(second)
        assert (commit.subject, sorted(files), repository.parent(second)) == ("second", ["b/c", "d"], first)
        assert files["d"].blob == object_id("blob", b"3")
        assert await source.read([files["d"].blob]) == {files["d"].blob: b"3"}
        assert source.reads == 1

    run(main())


def _code(repository: SimRepository, method: str, *arguments: object) -> str:
    with pytest.raises(SourceError) as caught:
        run(getattr(SimSource(repository), method)(*arguments))
    return caught.value.reason.code


def test_what_can_go_wrong() -> None:
    repository = SimRepository()
    assert _code(repository, "head") == "RefNotFound"
    first = repository.commit({"a": b"1"})
    second = repository.commit({"a": b"2"})
    assert _code(repository, "listing", "0" * 40) == "CommitNotFound"
    assert _code(repository, "read", ["0" * 40]) == "BlobNotFound"

    run(SimSource(repository).listing(first))
    repository.vanish()
    assert _code(repository, "head") == "RepositoryUnreachable"
    assert _code(repository, "listing", second) == "RepositoryUnreachable"
    assert run(SimSource(repository).listing(first))[0].sha == first  # the mirror has it
    repository.come_back()
    assert run(SimSource(repository).head()) == second

    repository.force_push(first)
    assert run(SimSource(repository).head()) == first
    empty = repository.delete_everything()
    assert run(SimSource(repository).listing(empty))[1] == {}
    repository.delete_ref()
    assert _code(repository, "head") == "RefNotFound"


def test_the_same_history_is_the_same_commits() -> None:
    def history() -> str:
        repository = SimRepository()
        repository.commit({"b": b"2", "a": b"1"})
        return repository.commit({"c": b"3"})

    assert history() == history()
