"""One transaction: `Tx` of the ports, over a connection inside BEGIN and COMMIT.

The methods are grouped by the question they answer: `tx_sources` (what is wanted where), `tx_rollouts` (how it gets
there), `tx_intents` (what is being written), `tx_ledgers` (health, quarantine, budgets), `tx_journal` (what is told).
"""

from __future__ import annotations

from reconciler.shell.store.tx_intents import IntentsTx
from reconciler.shell.store.tx_journal import JournalTx
from reconciler.shell.store.tx_ledgers import LedgersTx
from reconciler.shell.store.tx_rollouts import RolloutsTx
from reconciler.shell.store.tx_sources import SourcesTx


class SqlTx(SourcesTx, RolloutsTx, IntentsTx, LedgersTx, JournalTx):
    """Everything that can be read and written inside one transaction."""

    __slots__ = ()
