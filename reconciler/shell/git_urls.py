"""What may be handed to git: URLs, refs and paths, checked against an allow-list before git sees them.

A URL or a ref comes from a settings file, a path from a commit; git turns some of them into programs (`ext::`), options
(`--upload-pack=x`) or files of ours (`file:///etc`). So nothing is escaped or repaired here: what is not plainly a URL
of an allowed protocol, or a plain ref name, is refused with a code and a sentence, and no refusal repeats a credential.

    >>> parse_url("https://git.example.com/fleet.git", ("https", "ssh")).host
    'git.example.com'
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from reconciler.core.model import Reason
from reconciler.shell.ports import SourceError

#: What a setting may allow. `git://` is missing on purpose: it is neither authenticated nor encrypted.
KNOWN_PROTOCOLS = ("https", "ssh", "http", "file")

_URL_LENGTH_MAX = 2048
_REF_LENGTH_MAX = 255
#: No space, control character, quote, `$`, backslash, `?` or `#` (queries carry tokens), `*`, `;`, `|`, `&`, `<`, `>`.
_URL_CHARACTERS = re.compile(r"[A-Za-z0-9._~/@:+,=%\[\]-]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCP_LIKE = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9.-]+):(?P<path>[A-Za-z0-9._~+][^:]*)")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@#=-]*")
#: Characters that HFS+ ignores in names, so that `.g\u200cit` is `.git` there.
_IGNORED_IN_NAMES = re.compile("[\u200c\u200d\u200e\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


@dataclass(frozen=True, slots=True)
class GitUrl:
    """A URL that passed. `text` is what git is given: it never holds a password, and for http(s) no user either."""

    text: str
    protocol: str
    host: str

    @property
    def origin(self) -> str:
        """Scheme, host and port ("https://git.example.com:8443/"): credentials are bound to it, never wider."""
        head, _, rest = self.text.partition("://")
        return f"{head}://{rest.partition('/')[0]}/"


def parse_url(url: str, protocols: Collection[str]) -> GitUrl:
    """`url` as a GitUrl, or SourceError RefusedUrl. `protocols` are those the settings allow."""
    if not url or len(url) > _URL_LENGTH_MAX:
        raise _refused_url(f"a repository URL has 1 to {_URL_LENGTH_MAX} characters")
    if url.startswith("-"):
        raise _refused_url("a repository URL does not start with '-'")
    if not _URL_CHARACTERS.fullmatch(url):
        raise _refused_url(
            "the URL has a character that no repository URL needs (space, control character, quote, '$', '?', '#', ...)"
        )
    if "::" in url.partition("[")[0]:
        raise _refused_url("transport helpers ('ext::', 'fd::', ...) are never used")
    scp_like = _SCP_LIKE.fullmatch(url)
    if scp_like and "://" not in url:
        _check_protocol("ssh", protocols)
        return GitUrl(url, "ssh", _check_host(scp_like["host"]))
    match = _SCHEME.fullmatch(url)
    if not match:
        raise _refused_url("a repository is named by a URL (https://..., ssh://..., file:///... where allowed)")
    protocol = match[1].lower()
    _check_protocol(protocol, protocols)
    authority, slash, path = match[2].partition("/")
    if protocol == "file":
        if authority or not path:
            raise _refused_url("a file URL is file:///absolute/path")
        return GitUrl(f"file:///{path}", protocol, "")
    if not slash or not path.strip("/"):
        raise _refused_url("the URL names no repository on its host")
    return _parse_authority(protocol, authority, path)


def _parse_authority(protocol: str, authority: str, path: str) -> GitUrl:
    user_info, at, host_port = authority.rpartition("@")
    if at and (protocol != "ssh" or ":" in user_info):
        raise _refused_url("a URL carries no credentials: use `credentials` (tokenFile, username) of the repository")
    if at and not _USER.fullmatch(user_info):
        raise _refused_url("the user in the URL is not a plain name")
    bracketed = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\])(?::(\d+))?", host_port)
    plain = re.fullmatch(r"([^:\[\]]+)(?::(\d+))?", host_port)
    found = bracketed or plain
    if not found:
        raise _refused_url("the URL has no plain host and port")
    if found[2] is not None and not 0 < int(found[2]) < 65536:
        raise _refused_url("the port in the URL is not between 1 and 65535")
    host = _check_host(found[1])
    return GitUrl(f"{protocol}://{authority}/{path}", protocol, host)


def _check_protocol(protocol: str, protocols: Collection[str]) -> None:
    if protocol not in KNOWN_PROTOCOLS or protocol not in protocols:
        allowed = ", ".join(sorted(protocols)) or "none"
        raise _refused_url(f"the protocol '{protocol}' is not allowed (allow.protocols: {allowed})")


def _check_host(host: str) -> str:
    literal = host.strip("[]")
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        if host.startswith("[") or not _HOST.fullmatch(host) or len(host) > 253:
            raise _refused_url("the host in the URL is not a plain host name") from None
        return host
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise _refused_url("the host in the URL is a link-local, multicast or unspecified address")
    return host


def check_ref(ref: str) -> str:
    """`ref` if it is "HEAD", a plain branch or tag name, or a full ref name; else SourceError RefusedRef."""
    plain = (
        0 < len(ref) <= _REF_LENGTH_MAX
        and _REF.fullmatch(ref)
        and ".." not in ref
        and "//" not in ref
        and "@{" not in ref
        and not any(part.startswith(".") or part.endswith((".lock", ".")) for part in ref.split("/"))
        and not ref.endswith("/")
    )
    if not plain:
        raise SourceError("RefusedRef", "the ref is not the name of a branch or tag (letters, digits, . _ / + @ # = -)")
    if ref.startswith("refs/") and not re.match(r"refs/(heads|tags)/.", ref):
        raise SourceError("RefusedRef", "a full ref name starts with refs/heads/ or refs/tags/")
    return ref


def candidate_refs(ref: str) -> tuple[str, ...]:
    """The full names that `ref` may mean, to be asked of the remote: a short name is a branch or a tag."""
    if ref == "HEAD" or ref.startswith("refs/"):
        return (ref,)
    return (f"refs/heads/{ref}", f"refs/tags/{ref}")


def unsafe_path(path: str) -> Reason | None:
    """Why `path` of a commit must never become a file on disk, or None. Reading its blob is harmless: a path is a key
    here. What writes files (rendering in a worker) asks this first; validation makes a located problem of it."""
    if path.startswith("/") or "\\" in path or re.match(r"[A-Za-z]:", path):
        return Reason("UnsafePath", "absolute paths and backslashes are not read")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return Reason("UnsafePath", "empty, '.' and '..' parts are not read")
        if any(unicodedata.category(character) == "Cc" for character in part):
            return Reason("UnsafePath", "control characters in a path are not read")
        folded = _IGNORED_IN_NAMES.sub("", unicodedata.normalize("NFKC", part)).casefold().rstrip(". ")
        if folded.partition(":")[0] in (".git", "git~1"):
            return Reason("UnsafePath", "parts that some file system takes for '.git' are not read")
    return None


def _refused_url(message: str) -> SourceError:
    # The URL itself is never repeated: what was refused may be a credential.
    return SourceError("RefusedUrl", message)
