"""Credentials of a repository on their way to git: never in a URL, an argument, a log or an error.

A token becomes a header that is bound to the URL's origin and handed over in the environment; an SSH key is named to
ssh, which gets all its options from us. Both are read from files that the daemon's settings name.
"""

from __future__ import annotations

import base64
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from reconciler.shell.git_urls import GitUrl
from reconciler.shell.ports import SourceError

_TOKEN_BYTES_MAX = 16384
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """Where the credentials of one repository are; they are read anew for every call, for tokens are rotated.

    `username` goes with the token; forges that take tokens accept any. Host keys must be in `known_hosts_file` or the
    machine's own file; no key is ever accepted on first sight."""

    token_file: Path | None = None
    username: str = "x-access-token"
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None


def credentials_of(
    url: GitUrl, credentials: GitCredentials
) -> tuple[list[tuple[str, str]], dict[str, str], tuple[str, ...]]:
    """Configuration and environment that carry the credentials for `url`, and the texts that must never be shown."""
    if url.protocol == "ssh":
        return [], {"GIT_SSH_COMMAND": _ssh_command(credentials), "GIT_SSH_VARIANT": "ssh"}, ()
    if url.protocol not in ("https", "http") or credentials.token_file is None:
        return [], {}, ()
    token = _token(credentials.token_file)
    basic = base64.b64encode(f"{credentials.username}:{token}".encode()).decode()
    # Bound to this origin, and no redirect is followed: nobody else is sent the header.
    return [(f"http.{url.origin}.extraHeader", f"Authorization: Basic {basic}")], {}, (token, basic)


def _token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_TOKEN_BYTES_MAX + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not plain text"
        raise SourceError("CredentialsMissing", f"the token file {path} cannot be read: {what}") from None
    if not token or len(token) > _TOKEN_BYTES_MAX or not token.isprintable() or " " in token:
        raise SourceError("CredentialsMissing", f"the token file {path} does not hold one token on one line")
    return token


def _ssh_command(credentials: GitCredentials) -> str:
    """git gives this to a shell, so every path is quoted. No configuration file is read and no host key is learned."""
    for path in (credentials.ssh_key_file, credentials.known_hosts_file):
        if path is not None and not os.access(path, os.R_OK):
            raise SourceError("CredentialsMissing", f"the file {path} cannot be read")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "UserKnownHostsFile": str(credentials.known_hosts_file or "/dev/null"),
        "GlobalKnownHostsFile": _GLOBAL_KNOWN_HOSTS,
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
        "ProxyCommand": "none",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
        "IdentityFile": str(credentials.ssh_key_file or "none"),
    }
    if credentials.ssh_key_file:
        options |= {"IdentitiesOnly": "yes", "IdentityAgent": "none"}
    # ssh reads quotes inside an option's value by itself: a path with a space needs both.
    quoted = [f'{key}="{value}"' if " " in value else f"{key}={value}" for key, value in options.items()]
    return " ".join(["ssh", "-F", "/dev/null", *(f"-o {shlex.quote(option)}" for option in quoted)])
