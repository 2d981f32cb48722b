"""What is refused before git sees it, and that no credential is ever seen: the threats of URLs and refs."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.shell.git_command import clean, error_of
from reconciler.shell.git_credentials import GitCredentials
from reconciler.shell.git_source import GitSource
from reconciler.shell.git_urls import check_ref, parse_url, unsafe_path
from reconciler.shell.ports import SourceError
from tests.integration.git_repository import GitRepository

ALL = ("https", "ssh", "http", "file")
TOKEN = "s3cr3t-t0ken-value"  # noqa: S105  # it is what must never be seen


@pytest.mark.parametrize(
    ("url", "protocols"),
    [
        ("ext::sh -c 'touch pwned'", ALL),
        ("ext::sh", ALL),
        ("fd::17/foo", ALL),
        ("https::https://example.com/x", ALL),
        ("file:///etc", ("https", "ssh")),
        ("http://example.com/x.git", ("https", "ssh")),
        ("git://example.com/x.git", ALL),
        ("ftp://example.com/x.git", ALL),
        ("/etc/passwd", ALL),
        ("../relative", ALL),
        ("C:\\repo", ALL),
        ("file://host/path", ALL),
        ("file://", ALL),
        ("--upload-pack=touch pwned", ALL),
        ("--upload-pack=x", ALL),
        ("-oProxyCommand=x", ALL),
        ("ssh://-oProxyCommand=x/y", ALL),
        ("ssh://-oProxyCommand=touch%20x/y", ALL),
        ("ssh://git@-oProxyCommand=x/y", ALL),
        ("ssh://-lroot@host/y", ALL),
        ("-oProxyCommand=x@host:path", ALL),
        ("git@-host:path", ALL),
        ("git@host:-path", ALL),
        ("https://example.com/$SECRET.git", ALL),
        ("https://example.com/${SECRET}.git", ALL),
        ("https://example.com/`id`.git", ALL),
        ("https://example.com/x.git\nInjected: yes", ALL),
        ("https://example.com/x.git\r", ALL),
        ("https://example.com/x\x00.git", ALL),
        ("https://example.com/x y.git", ALL),
        ("https://example.com/x.git?token=abc", ALL),
        ("https://example.com/x.git#main", ALL),
        (f"https://user:{TOKEN}@example.com/x.git", ALL),
        (f"https://{TOKEN}@example.com/x.git", ALL),
        (f"ssh://git:{TOKEN}@example.com/x.git", ALL),
        ("https://example.com", ALL),
        ("https://example.com/", ALL),
        ("https:///x.git", ALL),
        ("https://example.com:99999/x.git", ALL),
        ("https://example.com:port/x.git", ALL),
        ("https://exam_ple.com/x.git", ALL),
        ("https://169.254.169.254/latest/meta-data", ALL),
        ("https://[fe80::1]/x.git", ALL),
        ("https://0.0.0.0/x.git", ALL),
        ("https://éxample.com/x.git", ALL),
        ("https://example.com/" + "x" * 3000, ALL),
        ("", ALL),
    ],
)
def test_urls_that_are_refused(url: str, protocols: tuple[str, ...]) -> None:
    with pytest.raises(SourceError) as caught:
        parse_url(url, protocols)
    assert caught.value.reason.code == "RefusedUrl"
    assert TOKEN not in caught.value.reason.message
    assert caught.value.reason.message.isprintable()


@pytest.mark.parametrize(
    ("url", "protocol", "host"),
    [
        ("https://example.com/team/fleet.git", "https", "example.com"),
        ("HTTPS://example.com/fleet", "https", "example.com"),
        ("https://example.com:8443/a/b/c.git", "https", "example.com"),
        ("https://[::1]:8443/x.git", "https", "[::1]"),
        ("https://dev.azure.com/org/project/_git/repo%20name", "https", "dev.azure.com"),
        ("ssh://git@example.com:2222/team/fleet.git", "ssh", "example.com"),
        ("ssh://example.com/~ada/fleet.git", "ssh", "example.com"),
        ("git@github.com:team/fleet.git", "ssh", "github.com"),
        ("http://127.0.0.1:3000/x.git", "http", "127.0.0.1"),
        ("file:///srv/git/fleet.git", "file", ""),
    ],
)
def test_urls_that_pass(url: str, protocol: str, host: str) -> None:
    parsed = parse_url(url, ALL)
    assert (parsed.protocol, parsed.host) == (protocol, host)
    assert parsed.text.partition("://")[2] == url.partition("://")[2]


@pytest.mark.parametrize(
    "ref",
    ["", "-h", "--upload-pack=x", "a b", "a\nb", "a\0b", "a..b", "a//b", "/a", "a/", ".a", "a/.b", "a.lock", "a.",
     "@{u}", "a~1", "a^", "a:b", "*", "a?", "a[b", "a\\b", "+main", "refs/heads/", "refs/notes/x", "x" * 300,
     "$REF", "é"],
)  # fmt: skip
def test_refs_that_are_refused(ref: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_ref(ref)
    assert caught.value.reason.code == "RefusedRef"


@pytest.mark.parametrize("ref", ["main", "HEAD", "release/2.1", "v1.0.0", "refs/heads/main", "refs/tags/v1", "a-b_c"])
def test_refs_that_pass(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../b", "a/./b", "a//b", ".git/config", "a/.GIT/hooks/x", "a/.g\u200cit/x", ".git./x",
     ".git /x", "git~1/x", "a\\b", "C:/x", "a\nb", "a\x00b", ".git::$INDEX_ALLOCATION/x", "．git/x"],
)  # fmt: skip
def test_paths_that_must_not_become_files(path: str) -> None:
    reason = unsafe_path(path)
    assert reason is not None
    assert reason.code == "UnsafePath"


@pytest.mark.parametrize(
    "path", ["fleet.yaml", "apps/a/app.yaml", ".gitattributes", "a/.gitignore", "ü/ä.yaml", "a..b"]
)
def test_paths_that_may(path: str) -> None:
    assert unsafe_path(path) is None


def test_refusals_come_before_anything_is_made(tmp_path: Path) -> None:
    for url, ref in (("ext::sh -c date", "main"), ("--upload-pack=x", "main"), ("https://example.com/x", "-h")):
        error = _refusal(tmp_path, url, ref=ref)
        assert error.reason.code in ("RefusedUrl", "RefusedRef")
    assert not (tmp_path / "git").exists()


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        ("fatal: unable to access 'https://h/x/': Could not resolve host: h", "RepositoryUnreachable"),
        ("fatal: Authentication failed for 'https://h/x/'", "AuthenticationFailed"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "AuthenticationFailed"),
        (
            "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            "AuthenticationFailed",
        ),
        ("No ED25519 host key is known for h\nHost key verification failed.\nfatal: x", "HostKeyRefused"),
        ("fatal: transport 'ext' not allowed", "RefusedUrl"),
        ("fatal: couldn't find remote ref refs/heads/x", "RefNotFound"),
        ("error: object file .git/objects/ab/cd is empty\nfatal: loose object abcd is corrupt", "CorruptMirror"),
        ("fatal: write error: No space left on device", "StorageFailed"),
        ("remote: Authentication failed, corrupt, bad object\nfatal: early EOF", "RepositoryUnreachable"),
        ("", "RepositoryUnreachable"),
    ],
)
def test_what_git_says_becomes_a_code(stderr: str, code: str) -> None:
    error = error_of(stderr, "asking")
    assert error.reason.code == code
    assert error.reason.message.startswith("asking: ")


def test_what_git_says_is_cleaned() -> None:
    said = f"remote: \x1b[31mred\x1b[0m {TOKEN}\r\nfatal: https://user:pw@host/x " + "y" * 1000
    shown = clean(said, (TOKEN,))
    assert TOKEN not in shown
    assert "pw@" not in shown
    assert shown.isprintable()
    assert len(shown) <= 300


# ---- over HTTP ---------------------------------------------------------------------------------------------------


class Forge(ThreadingHTTPServer):
    """Serves repositories as files ("dumb" HTTP) to whoever has the token, and redirects."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(root)))
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(SimpleHTTPRequestHandler):
    server: Forge

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.server.asked.append((self.path, authorization))
        if self.path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/private.git/{self.path.removeprefix('/redirect/')}")
            self.end_headers()
        elif authorization != "Basic " + base64.b64encode(f"ada:{TOKEN}".encode()).decode():
            # The realm repeats what was sent: a hostile server echoes credentials.
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Basic realm="{authorization}"')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Quiet."""


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    with Forge(tmp_path / "served") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _credentials(tmp_path: Path, token: str) -> GitCredentials:
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    return GitCredentials(token_file=file, username="ada")


def _source(
    tmp_path: Path, executor: ThreadPoolExecutor, url: str, ref: str, credentials: GitCredentials | None
) -> GitSource:
    return GitSource(
        "fleet", url, ref, directory=tmp_path / "git", executor=executor, monotonic=time.monotonic,
        protocols=ALL, credentials=credentials,
    )  # fmt: skip


def _refusal(tmp_path: Path, url: str, *, ref: str = "main", credentials: GitCredentials | None = None) -> SourceError:
    async def main(source: GitSource) -> None:
        try:
            await source.head()
        finally:
            await source.close()

    with ThreadPoolExecutor(1) as executor, pytest.raises(SourceError) as caught:
        asyncio.run(main(_source(tmp_path, executor, url, ref, credentials)))
    return caught.value


def test_a_token_opens_a_private_repository_and_stands_nowhere(
    tmp_path: Path, forge: Forge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    repository = GitRepository(tmp_path / "served" / "private.git")
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})
    repository.git("update-server-info")

    async def main(source: GitSource) -> None:
        assert await source.head() == sha
        assert list((await source.listing(sha))[1]) == ["fleet.yaml"]
        await source.close()

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(
            main(_source(tmp_path, executor, f"{forge.url}/private.git", "main", _credentials(tmp_path, TOKEN)))
        )
    assert all(path.startswith("/private.git/") for path, _ in forge.asked)
    basic = base64.b64encode(f"ada:{TOKEN}".encode()).decode()
    assert TOKEN not in caplog.text
    assert basic not in caplog.text
    for file in (tmp_path / "git").rglob("*"):
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes()
            assert basic.encode() not in file.read_bytes()


def test_a_wrong_token_is_said_without_showing_it(tmp_path: Path, forge: Forge) -> None:
    wrong = f"wrong-{TOKEN}"
    error = _refusal(tmp_path, f"{forge.url}/private.git", credentials=_credentials(tmp_path, wrong))
    assert error.reason.code == "AuthenticationFailed"
    chain: BaseException | None = error
    while chain is not None:
        assert TOKEN not in repr(chain)
        assert base64.b64encode(f"ada:{wrong}".encode()).decode() not in repr(chain)
        chain = chain.__cause__ or chain.__context__


def test_no_token_is_asked_of_nobody(tmp_path: Path, forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "askpass"
    asked.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\necho x\n")
    asked.chmod(0o755)
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(asked))
    assert _refusal(tmp_path, f"{forge.url}/private.git").reason.code == "AuthenticationFailed"
    assert not (tmp_path / "asked").exists()


def test_redirects_are_not_followed(tmp_path: Path, forge: Forge) -> None:
    GitRepository(tmp_path / "served" / "private.git").commit({"a": b"a"})
    error = _refusal(tmp_path, f"{forge.url}/redirect/", credentials=_credentials(tmp_path, TOKEN))
    assert error.reason.code == "RefusedRedirect"
    assert all(path.startswith("/redirect/") for path, _ in forge.asked)


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff\xfe", b"x" * 20000, b"a\nb"])
def test_a_token_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    error = _refusal(tmp_path, "http://127.0.0.1:9/x.git", credentials=GitCredentials(token_file=file))
    assert error.reason.code == "CredentialsMissing"


# ---- over SSH ----------------------------------------------------------------------------------------------------


def test_ssh_is_given_all_its_options_by_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in ssh's place notes its arguments and then runs what a server would run."""
    repository = GitRepository(tmp_path / "served.git")
    sha = repository.commit({"fleet.yaml": b"a: 1\n"})
    programs = tmp_path / "bin"
    programs.mkdir()
    script = f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nfor last; do :; done\nexec sh -c "$last"\n'
    (programs / "ssh").write_text(script)
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    key = tmp_path / "a key; touch pwned"
    key.write_text("key")
    hosts = tmp_path / "known_hosts"
    hosts.write_text("")

    async def main(source: GitSource) -> None:
        assert await source.head() == sha
        await source.close()

    with ThreadPoolExecutor(1) as executor:
        credentials = GitCredentials(ssh_key_file=key, known_hosts_file=hosts)
        asyncio.run(main(_source(tmp_path, executor, f"ssh://git@host.example{repository.path}", "main", credentials)))
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:2] == ["-F", "/dev/null"]
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={hosts}",
        "ProxyCommand=none",
        "ForwardAgent=no",
        "IdentitiesOnly=yes",
        f'IdentityFile="{key}"',
    ):
        assert option in arguments
        assert arguments[arguments.index(option) - 1] == "-o"
    assert not (tmp_path / "pwned").exists()
