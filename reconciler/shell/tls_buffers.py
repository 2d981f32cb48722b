"""How much memory each TLS connection reads into.

asyncio gives every TLS connection a read buffer of 256 KiB for as long as it lives, and has no setting for it. A
cluster has three to five connections, most of them watches that say something once a minute: in a fleet of a thousand
clusters that is more than a gigabyte of buffers in which nothing happens. What the network has is read in several turns
where the buffer is smaller, which costs no measurable time: the work is in decrypting records of at most 16 KiB.

The size is a class attribute of asyncio's protocol, the same from Python 3.11 on. A Python that has none, or a
smaller one, is left as it is.
"""

from __future__ import annotations

from asyncio import sslproto

#: Two TLS records, near enough.
TLS_BUFFER_BYTES = 32 * 1024


def shrink_tls_buffers() -> None:
    """Have connections of this process that are opened from now on read into TLS_BUFFER_BYTES at most. May be called
    any number of times."""
    size = getattr(sslproto.SSLProtocol, "max_size", None)
    if isinstance(size, int) and size > TLS_BUFFER_BYTES:
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
