"""Group commit: transactions that wait together are committed together, and still each for itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reconciler.shell.ports import FencedError, SourceRow, Tx
from reconciler.shell.store import SqlStore, StoreError, open_store
from tests.integration.store_values import TARGETS, assignment, release


class Grouped:
    """A store whose writer is kept busy until `together` has queued everything."""

    def __init__(self, path: Path, writer: ThreadPoolExecutor) -> None:
        self.path = path
        self.writer = writer
        self.store: SqlStore = open_store(path, new_id=lambda: "i", executor=writer)

    def together(self, *transactions: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run them so that all wait for the writer at once; returns results and exceptions."""

        async def run() -> list[Any]:
            started, let_go = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def hold() -> None:
                loop.call_soon_threadsafe(started.set)
                asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result()

            held = loop.run_in_executor(self.writer, hold)
            await started.wait()
            async with asyncio.TaskGroup() as tasks:
                waiting = [tasks.create_task(outcome(one)) for one in transactions]
                await asyncio.sleep(0)  # each task runs up to its place in the queue
                let_go.set()
            await held
            return [one.result() for one in waiting]

        async def outcome(one: Coroutine[Any, Any, Any]) -> Any:
            try:
                return await one
            except Exception as error:  # noqa: BLE001 - what a transaction raises is what is looked at
                return error

        return asyncio.run(run())

    def put(self, name: str) -> Coroutine[Any, Any, str]:
        def work(tx: Tx) -> str:
            tx.put_source(SourceRow(name))
            return name

        return self.store.transact("put", work)

    def names(self, *names: str) -> list[str]:
        """Which of `names` are committed, seen by a connection of its own."""
        with closing(sqlite3.connect(self.path)) as other:
            return [name for (name,) in other.execute("SELECT name FROM source ORDER BY name") if name in names]


@pytest.fixture
def grouped(tmp_path: Path) -> Iterator[Grouped]:
    with ThreadPoolExecutor(1) as writer:
        found = Grouped(tmp_path / "reconciler.db", writer)
        yield found
        asyncio.run(found.store.close())


def commits(store: SqlStore, statements: list[str]) -> None:
    """Write down every statement of the store's connection."""
    store._raw.set_trace_callback(statements.append)


def test_those_that_wait_share_one_commit(grouped: Grouped) -> None:
    statements: list[str] = []
    grouped.writer.submit(commits, grouped.store, statements).result()
    assert grouped.together(*(grouped.put(name) for name in "abc")) == ["a", "b", "c"]
    assert statements.count("COMMIT") == statements.count("BEGIN IMMEDIATE") == 1
    assert grouped.names(*"abc") == ["a", "b", "c"]
    assert grouped.together(grouped.put("d")) == ["d"]
    assert statements.count("COMMIT") == 2


def test_one_that_fails_fails_alone(grouped: Grouped) -> None:
    def fail(tx: Tx) -> None:
        tx.put_source(SourceRow("b"))
        raise ZeroDivisionError

    def refused(tx: Tx) -> None:
        tx.put_source(SourceRow("c"))
        tx.put_assignment(assignment(TARGETS[0], release()))  # of a release that is not there

    def sees(tx: Tx) -> list[bool]:
        return [tx.source(name) is not None for name in "abc"]

    store = grouped.store
    results = grouped.together(
        grouped.put("a"), store.transact("b", fail), store.transact("c", refused), store.transact("d", sees)
    )
    assert results[0] == "a"
    assert isinstance(results[1], ZeroDivisionError)
    assert isinstance(results[2], StoreError)
    assert results[3] == [True, False, False]
    assert grouped.names(*"abcd") == ["a"]


def test_nobody_is_told_before_the_commit(grouped: Grouped) -> None:
    """If the transaction cannot be kept, nobody in the group has succeeded."""

    def lose(tx: Tx) -> str:
        tx.put_source(SourceRow("b"))
        grouped.store._raw.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        return "b"

    results = grouped.together(grouped.put("a"), grouped.store.transact("b", lose), grouped.put("c"))
    assert [type(one) for one in results] == [StoreError] * 3
    assert grouped.names(*"abc") == []
    assert grouped.together(grouped.put("a"), grouped.put("c")) == ["a", "c"]
    assert grouped.names(*"abc") == ["a", "c"]


def test_a_lone_transaction_that_was_given_up_is_an_error(grouped: Grouped) -> None:
    def lose(tx: Tx) -> None:
        grouped.store._raw.execute("ROLLBACK")
        tx.put_source(SourceRow("outside"))

    (result,) = grouped.together(grouped.store.transact("lose", lose))
    assert isinstance(result, StoreError)
    assert "gave up" in str(result)


def test_a_fenced_group_writes_nothing(grouped: Grouped) -> None:
    other = open_store(grouped.path, new_id=lambda: "i", lock=False)
    results = grouped.together(grouped.put("a"), grouped.put("b"))
    assert [type(one) for one in results] == [FencedError] * 2
    assert grouped.names(*"ab") == []
    other.close_now()


def test_whoever_is_cancelled_while_waiting_is_left_out(grouped: Grouped) -> None:
    async def cancelled() -> str:
        task = asyncio.ensure_future(grouped.put("b"))
        await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "cancelled"

    assert grouped.together(grouped.put("a"), cancelled(), grouped.put("c")) == ["a", "cancelled", "c"]
    assert grouped.names(*"abc") == ["a", "c"]


def test_closing_finishes_what_is_queued(grouped: Grouped) -> None:
    async def run() -> list[str]:
        waiting = asyncio.gather(*(grouped.put(name) for name in "abcdef"))
        await asyncio.sleep(0)
        await grouped.store.close()
        return await waiting

    assert asyncio.run(run()) == list("abcdef")
    assert grouped.names(*"abcdef") == list("abcdef")
