"""The durable state: schema.py says what it is, sqlite.py how it is written, docs/design/0003-store.md why so."""

from __future__ import annotations

from reconciler.shell.store.errors import StoreError
from reconciler.shell.store.opening import from_bytes, open_store
from reconciler.shell.store.retention import Pruned
from reconciler.shell.store.sqlite import SqlStore

__all__ = ["Pruned", "SqlStore", "StoreError", "from_bytes", "open_store"]
