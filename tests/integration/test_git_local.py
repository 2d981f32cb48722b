"""A person's own repository, and a plain directory, read as the same files."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from reconciler.shell.git_local import open_local
from reconciler.shell.git_objects import GitLimits
from reconciler.shell.ports import SourceError, TreeEntry
from reconciler.shell.working_tree import working_tree_listing
from tests.integration.git_repository import GitRepository


def _clone(tmp_path: Path) -> tuple[Path, str, str]:
    """A checkout with two commits, and their ids."""
    origin = GitRepository(tmp_path / "origin.git")
    first = origin.commit({"fleet.yaml": b"a: 1\n", "apps/x/app.yaml": b"x: 1\n"})
    second = origin.commit({"fleet.yaml": b"a: 2\n", "apps/x/app.yaml": b"x: 1\n"})
    origin.git("tag", "v1", first)
    checkout = tmp_path / "checkout"
    origin.git("clone", "--quiet", "--", str(origin.path), str(checkout))
    return checkout, first, second


def test_revisions_of_a_checkout_are_read(tmp_path: Path) -> None:
    checkout, first, second = _clone(tmp_path)
    with open_local(checkout / "apps", monotonic=time.monotonic) as repository:
        names = {"HEAD": second, "main": second, "HEAD~1": first, "v1": first, first[:10]: first, "@^": first}
        assert {name: repository.resolve(name) for name in names} == names
        commit, files = repository.listing(first)
        assert commit.sha == first
        assert sorted(files) == ["apps/x/app.yaml", "fleet.yaml"]
        blob = files["fleet.yaml"].blob
        assert repository.read([blob]) == {blob: b"a: 1\n"}


@pytest.mark.parametrize(
    ("revision", "code"),
    [
        ("nothing", "RefNotFound"),
        ("--all", "RefusedRef"),
        ("-h", "RefusedRef"),
        ("a..b", "RefusedRef"),
        (":/fix", "RefusedRef"),
        ("HEAD:fleet.yaml", "RefusedRef"),
        ("HEAD\n", "RefusedRef"),
        ("", "RefusedRef"),
        ("HEAD^{tree}", "RefNotFound"),
        ("f" * 40, "RefNotFound"),
    ],
)
def test_revisions_that_are_refused(tmp_path: Path, revision: str, code: str) -> None:
    checkout, _, _ = _clone(tmp_path)
    with open_local(checkout, monotonic=time.monotonic) as repository, pytest.raises(SourceError) as caught:
        repository.resolve(revision)
    assert caught.value.reason.code == code


def test_nothing_of_the_repositorys_configuration_is_run(tmp_path: Path) -> None:
    checkout, first, _ = _clone(tmp_path)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    (checkout / ".git" / "config").write_text(
        f"""[core]
    repositoryformatversion = 1
    fsmonitor = {program}
    pager = {program}
    sshCommand = {program}
    hooksPath = {tmp_path}
[extensions]
    partialClone = origin
[remote "origin"]
    url = ssh://host.example/x
    promisor = true
    uploadpack = {program}
[alias]
    rev-parse = !{program}
"""
    )
    with open_local(checkout, monotonic=time.monotonic) as repository:
        assert repository.resolve("v1") == first
        assert len(repository.listing(first)[1]) == 2
        with pytest.raises(SourceError) as caught:
            repository.read(["1" * 40])
    assert caught.value.reason.code == "RevisionGone"
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_checkout_of_another_user_is_read(tmp_path: Path) -> None:
    checkout, _, second = _clone(tmp_path)
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 12345, 12345)
    with open_local(checkout, monotonic=time.monotonic) as repository:
        assert repository.resolve("HEAD") == second


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.touch(), lambda _: None])
def test_what_is_no_repository(tmp_path: Path, make: object) -> None:
    path = tmp_path / "plain"
    assert callable(make)
    make(path)
    with pytest.raises(SourceError) as caught:
        open_local(path, monotonic=time.monotonic)
    assert caught.value.reason.code == "NotARepository"


def test_a_directory_reads_as_the_commit_of_it_would(tmp_path: Path) -> None:
    root = tmp_path / "fleet"
    (root / "apps" / "x").mkdir(parents=True)
    (root / "apps" / "empty").mkdir()
    (root / "fleet.yaml").write_bytes(b"a: 1\n")
    (root / "apps" / "x" / "ü.yaml").write_bytes(b"x" * 100_000)
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "loop").symlink_to("loop")
    (root / "up").symlink_to("..")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True, env=environment)

    tree = working_tree_listing(root)
    with open_local(root, monotonic=time.monotonic) as repository:
        _, committed = repository.listing(repository.resolve("HEAD"))
        assert tree.files == committed
        blobs = [entry.blob for entry in committed.values()]
        assert tree.read(blobs) == repository.read(blobs)
    assert tree.files["passwd"].mode == "120000"


def test_what_git_would_not_record_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "nested" / ".git").mkdir(parents=True)
    (tmp_path / "nested" / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert working_tree_listing(tmp_path).files == {"nested": TreeEntry("160000", "0" * 40)}


def test_a_file_that_changes_while_it_is_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    tree = working_tree_listing(tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(SourceError) as caught:
        tree.read([tree.files["a"].blob])
    assert caught.value.reason.code == "Unreadable"
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("two")
    with pytest.raises(SourceError) as caught:
        tree.read([tree.files["a"].blob])
    assert caught.value.reason.code == "ChangedMeanwhile"


@pytest.mark.parametrize("limits", [GitLimits(files_max=2), GitLimits(blob_bytes_max=2)])
def test_limits_hold_for_directories_too(tmp_path: Path, limits: GitLimits) -> None:
    for name in "abc":
        (tmp_path / name).write_text("xxx" + name)

    def read() -> None:
        tree = working_tree_listing(tmp_path, limits)
        tree.read([entry.blob for entry in tree.files.values()])

    with pytest.raises(SourceError) as caught:
        read()
    assert caught.value.reason.code == "TooLarge"
