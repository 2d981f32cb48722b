"""The Git adapter on real repositories: what it reads, what it fetches, how it recovers."""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reconciler.shell.git_objects import GitLimits
from reconciler.shell.git_source import GitSource
from reconciler.shell.ports import Source, SourceError, TreeEntry
from tests.integration.git_repository import GitRepository

Use = Callable[[GitSource], Awaitable[None]]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "origin.git")


def make(tmp_path: Path, executor: ThreadPoolExecutor, url: str, ref: str = "main", **more: object) -> GitSource:
    return GitSource(
        "fleet", url, ref, directory=tmp_path / "state" / "git", executor=executor, monotonic=time.monotonic,
        protocols=("https", "ssh", "file"), **more,  # type: ignore[arg-type] # whatever a test varies
    )  # fmt: skip


@asynccontextmanager
async def opened(source: GitSource) -> AsyncIterator[GitSource]:
    try:
        yield source
    finally:
        await source.close()


def run(source: GitSource, use: Use) -> None:
    async def main() -> None:
        async with opened(source):
            await use(source)

    asyncio.run(main())


def refusal(source: GitSource, use: Callable[[GitSource], Awaitable[object]]) -> SourceError:
    errors: list[SourceError] = []

    async def inner(opened_source: GitSource) -> None:
        with pytest.raises(SourceError) as caught:
            await use(opened_source)
        errors.append(caught.value)

    run(source, inner)
    return errors[0]


def test_it_is_a_source(tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository) -> None:
    source: Source = make(tmp_path, executor, repository.url)
    assert source is not None


def test_reads_the_tip_and_then_only_what_changed(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    first = repository.commit({"fleet.yaml": b"a: 1\n", "apps/x/app.yaml": b"x: 1\n"}, message="First\n\nbody")

    async def use(source: GitSource) -> None:
        assert await source.head() == first
        commit, files = await source.listing(first)
        assert (commit.sha, commit.author, commit.subject) == (first, "Ada <ada@example.com>", "First")
        assert commit.authored_wall == 1700000001
        assert sorted(files) == ["apps/x/app.yaml", "fleet.yaml"]
        assert files["fleet.yaml"].size == 5
        assert files["fleet.yaml"].mode == "100644"
        read = await source.read([entry.blob for entry in files.values()])
        assert read[files["fleet.yaml"].blob] == b"a: 1\n"

        second = repository.commit({"fleet.yaml": b"a: 1\n", "apps/x/app.yaml": b"x: 2\n"})
        assert await source.head() == second
        _, newer = await source.listing(second)
        assert newer["fleet.yaml"] == files["fleet.yaml"]
        changed = newer["apps/x/app.yaml"].blob
        assert await source.read([changed]) == {changed: b"x: 2\n"}
        # Older commits stay readable, for plans compare with them.
        assert (await source.listing(first))[1] == files

    run(make(tmp_path, executor, repository.url), use)


def test_a_second_process_finds_the_mirror_and_fetches_nothing(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})

    async def use(source: GitSource) -> None:
        await source.listing(sha)

    run(make(tmp_path, executor, repository.url), use)
    repository.path.rename(tmp_path / "gone.git")
    run(make(tmp_path, executor, repository.url), use)


@pytest.mark.parametrize("ref", ["v1", "refs/tags/v1", "main", "refs/heads/main", "HEAD"])
def test_refs_of_every_form_lead_to_the_commit(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository, ref: str
) -> None:
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})
    repository.git("tag", "-a", "-m", "a tag", "v1", sha)

    async def use(source: GitSource) -> None:
        assert await source.head() == sha
        assert list((await source.listing(sha))[1]) == ["fleet.yaml"]

    run(make(tmp_path, executor, repository.url, ref), use)


def test_a_ref_is_matched_as_a_whole(tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository) -> None:
    sha = repository.commit({"fleet.yaml": b"a: 1\n"}, branch="team/refs/heads/main")
    assert sha
    error = refusal(make(tmp_path, executor, repository.url), lambda source: source.head())
    assert error.reason.code == "RefNotFound"


def test_a_force_pushed_branch_is_followed(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    old = repository.commit({"fleet.yaml": b"old\n"})

    async def use(source: GitSource) -> None:
        await source.listing(old)
        new = repository.commit({"fleet.yaml": b"new\n"}, parent=False)
        assert await source.head() == new
        _, files = await source.listing(new)
        assert await source.read([files["fleet.yaml"].blob]) == {files["fleet.yaml"].blob: b"new\n"}
        assert "fleet.yaml" in (await source.listing(old))[1]

    run(make(tmp_path, executor, repository.url), use)


def test_a_commit_that_was_pushed_away_before_it_was_fetched_is_gone(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    old = repository.commit({"fleet.yaml": b"old\n"})
    repository.commit({"fleet.yaml": b"new\n"}, parent=False)
    error = refusal(make(tmp_path, executor, repository.url), lambda source: source.listing(old))
    assert error.reason.code == "RevisionGone"


def _mirror(tmp_path: Path) -> Path:
    [mirror] = (tmp_path / "state" / "git" / "fleet").iterdir()
    return mirror


def _truncate(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")


def _break_objects(mirror: Path) -> None:
    damaged = [path for path in (mirror / "objects").rglob("*") if path.is_file()]
    assert damaged
    for path in damaged:
        _truncate(path)


def _remove_a_tree(mirror: Path) -> None:
    # What a crash while unpacking leaves: the commit, without its tree.
    loose = [path for path in (mirror / "objects").glob("??/*") if path.is_file()]
    assert len(loose) == 3
    for path in loose:
        if b"tree" in _kind(path):
            path.unlink()


def _kind(path: Path) -> bytes:
    return zlib.decompress(path.read_bytes()).split(b" ")[0]


def _break_the_config(mirror: Path) -> None:
    (mirror / "config").write_text("[core\n")


def _lose_the_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def _leave_locks(mirror: Path) -> None:
    (mirror / "refs" / "reconciler" / "tip.lock").touch()
    (mirror / "config.lock").touch()
    (mirror / "objects" / "pack").mkdir(exist_ok=True)
    (mirror / "objects" / "pack" / "tmp_pack_abc").write_bytes(b"x")


@pytest.mark.parametrize("damage", [_break_objects, _remove_a_tree, _break_the_config, _lose_the_head, _leave_locks])
def test_a_damaged_mirror_is_fetched_anew(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository, damage: Callable[[Path], None]
) -> None:
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})

    async def use(source: GitSource) -> None:
        await source.listing(sha)

    run(make(tmp_path, executor, repository.url), use)
    damage(_mirror(tmp_path))
    newer = repository.commit({"fleet.yaml": b"a: 2\n"})

    async def use_again(source: GitSource) -> None:
        for commit in (sha, newer):
            _, files = await source.listing(commit)
            assert len(await source.read([files["fleet.yaml"].blob])) == 1

    run(make(tmp_path, executor, repository.url), use_again)
    assert not list(_mirror(tmp_path).rglob("*.lock"))


def test_damage_found_while_reading_is_said_and_mended_by_the_next_listing(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})

    async def use(source: GitSource) -> None:
        _, files = await source.listing(sha)
        with pytest.raises(SourceError) as caught:
            await source.read(["1" * 40])
        assert caught.value.reason.code == "CorruptMirror"
        assert (await source.listing(sha))[1] == files
        assert len(await source.read([files["fleet.yaml"].blob])) == 1

    run(make(tmp_path, executor, repository.url), use)


def test_another_url_is_another_mirror(tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository) -> None:
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})
    other = GitRepository(tmp_path / "other.git")
    other.commit({"fleet.yaml": b"b: 1\n"})

    async def use(source: GitSource) -> None:
        await source.listing(sha)

    run(make(tmp_path, executor, repository.url), use)
    assert refusal(make(tmp_path, executor, other.url), use).reason.code == "RevisionGone"
    assert _mirror(tmp_path)


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        pytest.param(lambda _: None, "EmptyRepository", id="empty"),
        pytest.param(lambda it: it.commit({"a": b"a"}, branch="other"), "RefNotFound", id="other-branch"),
        pytest.param(
            lambda it: it.git("tag", "main", it.commit({"a": b"a"})), "AmbiguousRef", id="branch-and-tag-of-one-name"
        ),
        pytest.param(lambda it: it.path.rename(it.path.with_name("moved")), "RepositoryUnreachable", id="vanished"),
    ],
)
def test_what_head_refuses(
    tmp_path: Path,
    executor: ThreadPoolExecutor,
    repository: GitRepository,
    prepare: Callable[[GitRepository], object],
    code: str,
) -> None:
    prepare(repository)
    error = refusal(make(tmp_path, executor, repository.url), lambda source: source.head())
    assert error.reason.code == code
    assert error.reason.message.isprintable()


def test_hostile_trees_are_entries_and_never_reach_the_disk(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    content = repository.blob(b"* filter=lfs\n")
    link = repository.blob(b"/etc/passwd")
    inner = repository.tree({b"config": ("100644", content)})
    tree = repository.tree(
        {
            b".gitattributes": ("100644", content),
            b".gitmodules": ("100644", repository.blob(b'[submodule "x"]\n path = sub\n url = ext::sh -c date\n')),
            b"..": ("40000", inner),
            b".GIT": ("40000", inner),
            b"etc": ("120000", link),
            b"loop": ("120000", repository.blob(b"loop")),
            b"sub": ("160000", "1" * 40),
            b"run.sh": ("100755", content),
            b"App": ("100644", content),
            b"app": ("100644", content),
            b"caf\xe9": ("100644", content),
            b"new\nline": ("100644", content),
        }
    )
    sha = repository.commit_tree(tree)

    async def use(source: GitSource) -> None:
        _, files = await source.listing(sha)
        modes = {path: entry.mode for path, entry in files.items()}
        assert modes == {
            ".gitattributes": "100644",
            ".gitmodules": "100644",
            "../config": "100644",
            ".GIT/config": "100644",
            "etc": "120000",
            "loop": "120000",
            "sub": "160000",
            "run.sh": "100755",
            "App": "100644",
            "app": "100644",
            '"caf\\351"': "100644",
            "new\nline": "100644",
        }
        assert files["sub"] == TreeEntry("160000", "1" * 40, -1)
        assert await source.read([files["etc"].blob]) == {link: b"/etc/passwd"}

    run(make(tmp_path, executor, repository.url), use)
    written = {path.name for path in (tmp_path / "state").rglob("*")}
    assert not written & {".gitmodules", ".gitattributes", "etc", "loop", "run.sh", "app", "sub", ".GIT"}
    assert not any(path.is_symlink() for path in (tmp_path / "state").rglob("*"))


@pytest.mark.parametrize(
    ("files", "limits", "read"),
    [
        pytest.param({f"f{index}": b"x" for index in range(11)}, GitLimits(files_max=10), False, id="files"),
        pytest.param({"a" * 200: b"x"}, GitLimits(path_length_max=100), False, id="path"),
        pytest.param({"big": b"x" * 5001}, GitLimits(blob_bytes_max=5000), True, id="blob"),
    ],
)
def test_limits_are_refusals(
    tmp_path: Path,
    executor: ThreadPoolExecutor,
    repository: GitRepository,
    files: dict[str, bytes],
    limits: GitLimits,
    read: bool,
) -> None:
    sha = repository.commit(files)

    async def use(source: GitSource) -> None:
        _, found = await source.listing(sha)
        assert read, "the listing should have been refused"
        await source.read([entry.blob for entry in found.values()])

    assert refusal(make(tmp_path, executor, repository.url, limits=limits), use).reason.code == "TooLarge"


def test_a_repository_that_is_too_large_does_not_stay_on_the_disk(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    sha = repository.commit({f"f{index}": os.urandom(20_000) for index in range(150)})
    source = make(tmp_path, executor, repository.url, limits=GitLimits(mirror_bytes_max=1_000_000))
    assert refusal(source, lambda it: it.listing(sha)).reason.code == "TooLarge"
    assert not list((tmp_path / "state").rglob("*.pack"))


def test_after_a_refused_blob_others_can_be_read(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    sha = repository.commit({"big": os.urandom(300_000), "small": b"s"})

    async def use(source: GitSource) -> None:
        _, files = await source.listing(sha)
        with pytest.raises(SourceError) as caught:
            await source.read([files["big"].blob, files["small"].blob])
        assert caught.value.reason.code == "TooLarge"
        assert await source.read([files["small"].blob]) == {files["small"].blob: b"s"}

    run(make(tmp_path, executor, repository.url, limits=GitLimits(blob_bytes_max=1000)), use)


def test_many_and_large_blobs_come_whole(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository
) -> None:
    contents = {f"f{index}": b"%d\n" % index * (index % 97) for index in range(1000)}
    contents["large"] = os.urandom(3_000_000)
    sha = repository.commit(contents)

    async def use(source: GitSource) -> None:
        _, files = await source.listing(sha)
        read = await source.read([entry.blob for entry in files.values()])
        assert {path: read[entry.blob] for path, entry in files.items()} == contents

    run(make(tmp_path, executor, repository.url), use)


def test_read_takes_only_object_ids(tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository) -> None:
    repository.commit({"a": b"a"})

    async def use(source: GitSource) -> None:
        for name in ("HEAD", "--batch", "0123", "a" * 40 + "\n"):
            with pytest.raises(ValueError, match="not a full object id"):
                await source.read([name])

    run(make(tmp_path, executor, repository.url), use)


def test_the_callers_environment_changes_nothing(
    tmp_path: Path, executor: ThreadPoolExecutor, repository: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = repository.commit({"a": b"a"})
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "file:///nowhere"]\n insteadOf = file:\n[core]\n fsmonitor = {hook}\n')
    for name, value in {
        "GIT_DIR": "/nonexistent",
        "GIT_OBJECT_DIRECTORY": "/nonexistent",
        "GIT_SSH_COMMAND": str(hook),
        "GIT_CONFIG_PARAMETERS": "'protocol.file.allow=never'",
        "GIT_CEILING_DIRECTORIES": "/",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)

    async def use(source: GitSource) -> None:
        assert await source.head() == sha
        assert list((await source.listing(sha))[1]) == ["a"]

    run(make(tmp_path, executor, repository.url), use)
    assert not (tmp_path / "ran").exists()


def test_closing_ends_a_running_call_and_leaves_no_process(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An ssh that never answers stands for a host that never answers.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    source = make(tmp_path, executor, "ssh://git@host.example/fleet.git")
    pid_file = tmp_path / "pid"

    async def main() -> SourceError:
        head = asyncio.get_running_loop().create_task(source.head())
        while not (pid_file.exists() and pid_file.read_text().strip()):  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.01)
        await source.close()
        with pytest.raises(SourceError) as caught:
            await head
        return caught.value

    assert asyncio.run(main()).reason.code == "Closed"
    assert _ends(int(pid_file.read_text()))


def test_a_call_that_takes_too_long_is_killed_with_its_helpers(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    # A packet of 65,520 bytes that comes byte by byte: it is not silence that ends it.
    (programs / "ssh").write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid\nprintf fff0\nwhile :; do printf x; sleep 0.05; done\n"
    )
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    source = make(tmp_path, executor, "ssh://git@host.example/fleet.git", limits=GitLimits(ls_remote_timeout_s=1.0))
    assert refusal(source, lambda it: it.head()).reason.code == "Timeout"
    assert _ends(int((tmp_path / "pid").read_text()))


def _ends(pid: int) -> bool:
    """True once process `pid` has ended. It was killed with its session, but nobody of ours waits for it."""
    for _ in range(1000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False
