"""The proxy's certificates: one that is right and three that are not, each made for one run."""

from __future__ import annotations

import enum
import ssl
from datetime import UTC, datetime, timedelta

import trustme

HOST = "127.0.0.1"


class Certificate(enum.Enum):
    """What the proxy shows to who connects."""

    GOOD = "good"
    EXPIRED = "expired"
    WRONG_NAME = "wrong name"
    UNKNOWN_AUTHORITY = "unknown authority"


class Certificates:
    """An authority, and a TLS context whose certificate can be changed while a server uses it."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        now = datetime.now(UTC)
        self._leaves = {
            Certificate.GOOD: self._authority.issue_cert(HOST),
            Certificate.EXPIRED: self._authority.issue_cert(
                HOST, not_before=now - timedelta(days=90), not_after=now - timedelta(days=1)
            ),
            Certificate.WRONG_NAME: self._authority.issue_cert("elsewhere.example.com"),
            Certificate.UNKNOWN_AUTHORITY: trustme.CA().issue_cert(HOST),
        }
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.present(Certificate.GOOD)

    @property
    def authority_pem(self) -> bytes:
        """The certificate of the authority that clients are told to trust."""
        return self._authority.cert_pem.bytes()

    def present(self, certificate: Certificate) -> None:
        """Show this one to new connections."""
        self._leaves[certificate].configure_cert(self.context)
