"""What can go wrong with the store itself, in words fit for a person.

`ConflictError` and `FencedError` belong to the port (`shell/ports.py`): units handle them. A StoreError is for whoever
runs the daemon, which cannot go on without its store: one line that says what is wrong and what to do.

    StoreError("/var/lib/reconciler/reconciler.db is not a Reconciler store: file is not a database. ...")
"""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be opened, or SQLite refused an operation (disk full, I/O error, corruption). The library's own
    error is its cause."""
