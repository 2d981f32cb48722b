"""What a commit may cost: whoever can push can write anything into one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.core.fleet_model import FleetSettings
from reconciler.resources import catalogue
from reconciler.shell import fleet_reader
from reconciler.shell.asking import rfc3339
from reconciler.shell.fleet_reader import FleetReader
from reconciler.shell.git_source import GitSource
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import SourceError
from tests.integration.git_repository import GitRepository
from tests.integration.test_git_source import executor, make, repository, run

__all__ = ["executor", "repository"]  # fixtures

FLEET = (
    b"apiVersion: reconciler.dev/v1alpha1\nkind: Fleet\nmetadata: {name: f}\n"
    b"spec: {clusters: [clusters/], applications: [apps/], policies: [policies/]}\n"
)


@pytest.mark.parametrize(
    ("seconds", "wall"),
    [("1700000000", 1.7e9), ("253402300799", 253402300799.0), ("999999999999", 0.0), ("-1", 0.0)],
)
def test_the_time_of_a_commit_is_one_that_a_calendar_can_show(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository, seconds: str, wall: float
) -> None:
    tree = repository.tree({})
    head = f"tree {tree}\nauthor A <a@b> {seconds} +0000\ncommitter A <a@b> 1700000000 +0000\n\nx\n"
    sha = repository.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=head.encode())
    repository.git("update-ref", "refs/heads/main", sha)

    async def use(source: GitSource) -> None:
        commit, _ = await source.listing(await source.head())
        assert (commit.author, commit.authored_wall) == ("A <a@b>", wall)
        assert rfc3339(commit.authored_wall) is not None

    run(make(tmp_path, executor, repository.url), use)


@pytest.mark.parametrize("wall", [999999999999.0, -999999999999.0, 1e300, float("inf"), float("nan")])
def test_a_time_no_calendar_has_is_shown_as_none(wall: float) -> None:
    assert rfc3339(wall) is None


def test_the_files_of_a_fleet_have_a_limit_together_that_is_known_before_they_are_read(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_reader, "FLEET_BYTES_MAX", 10_000, raising=False)
    small = {f"apps/a{index}.yaml": b"# %d\n" % index for index in range(3)}
    elsewhere = {"images/photo.png": b"x" * 50_000, "apps/broken.yaml": b"#" * (3 * 1024 * 1024 + 1)}
    good = repository.commit({"fleet.yaml": FLEET, **small, **elsewhere})
    # One content under many names is read once, but parsed as often as it is named.
    repeated = {f"apps/b{index}.yaml": b"#" * 3000 for index in range(4)}
    large = repository.commit({"fleet.yaml": FLEET, **small, **repeated})
    unread = repository.commit({"fleet.yaml": FLEET, **small, "other/b.yaml": b"#" * 30_000})

    async def use(source: GitSource) -> None:
        reader = FleetReader(source, FleetSettings(catalogue()), Metrics("test"))
        await reader.read(good)
        assert reader.usable is not None
        assert reader.usable.sha == good
        for known in (reader, FleetReader(source, FleetSettings(catalogue()), Metrics("test"))):
            with pytest.raises(SourceError) as caught:
                await known.read(large)
            assert caught.value.reason.code == "TooLarge"
            assert "more than the 10000" in caught.value.reason.message
            assert "apps/b0.yaml (3000)" in caught.value.reason.message
        assert reader.usable.sha == good
        await reader.read(unread)
        assert reader.usable.sha == unread

    run(make(tmp_path, executor, repository.url), use)
