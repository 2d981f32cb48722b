"""Who writes: the identity that what a repository declares is written with, on every cluster.

The daemon's own identity only reads. A write, and a dry-run, is made in the name of the repository it comes from, by
impersonation: what a tenant may touch is said by each cluster's own authorizer, which nothing in Git and no mistake of
the daemon's can talk round. A repository that names no identity has one all the same, and nobody has given that one any
right. (docs/design/0009-least-privilege.md)

    default_identity("payments").headers()    # (("Impersonate-User", "reconciler:tenant:payments"),)

The texts become headers, so they are plain: no spaces, commas or controls, which servers and proxies read as syntax.
Names below `system:` are Kubernetes' own, and are refused but for service accounts: `system:masters` may do anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

TENANT_PREFIX = "reconciler:tenant:"
NAME_MAX_CHARACTERS = 253
_RESERVED = "system:"
_PLAIN = re.compile(r"[!-+\--~]+")  # printable ASCII without space and comma
_NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_SERVICE_ACCOUNT = re.compile(rf"system:serviceaccount:{_NAME}:{_NAME}")
_SERVICE_ACCOUNT_GROUP = re.compile(rf"system:serviceaccounts(:{_NAME})?")


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and groups, as a cluster's authorizer is to see them. Raises ValueError for what no header may carry."""

    user: str
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = wrong_user(self.user) or next(filter(None, map(wrong_group, self.groups)), "")
        if wrong:
            raise ValueError(wrong)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What asks the API server to decide as for this identity."""
        return (("Impersonate-User", self.user), *(("Impersonate-Group", group) for group in self.groups))

    def __str__(self) -> str:
        among = f" (groups {', '.join(self.groups)})" if self.groups else ""
        return f"user {self.user}{among}"


#: The identity that a source's writes are made with, by the source's name; None: the connection's own.
Identities = Callable[[str], Identity | None]


def default_identity(source: str) -> Identity:
    """The identity of a repository that names none: a user that has no right before somebody gives it one."""
    return Identity(TENANT_PREFIX + source)


def wrong_user(user: str) -> str:
    """Why `user` cannot be impersonated, "" if it can."""
    if wrong := _not_plain(user):
        return wrong
    if user.startswith(_RESERVED) and not _SERVICE_ACCOUNT.fullmatch(user):
        return f"{user!r} is one of Kubernetes' own users: of those only system:serviceaccount:NAMESPACE:NAME may write"
    return ""


def wrong_group(group: str) -> str:
    """Why `group` cannot be impersonated, "" if it can."""
    if wrong := _not_plain(group):
        return wrong
    if group.startswith(_RESERVED) and not _SERVICE_ACCOUNT_GROUP.fullmatch(group):
        return f"{group!r} is one of Kubernetes' own groups: of those only system:serviceaccounts:NAMESPACE may write"
    return ""


def _not_plain(name: str) -> str:
    if not name:
        # An empty header would ask for nobody in particular: the request would be the daemon's own.
        return "an empty name"
    if len(name) > NAME_MAX_CHARACTERS:
        return f"longer than {NAME_MAX_CHARACTERS} characters"
    if not _PLAIN.fullmatch(name):
        return f"{name!r} is not plain: letters, digits and punctuation without spaces and commas"
    return ""
