"""A person's own repository, and a plain directory, read as the same files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.shell.git_local import open_local
from reconciler.shell.ports import SourceError
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
