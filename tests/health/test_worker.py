"""The worker process: what ends it, what it cannot do, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.bootstrap import evaluator
from reconciler.core.model import Reason
from reconciler.shell.worker import Worker, WorkerLimits, Workers

FUNCTION = "tests.health.evaluators:misbehave"
ROOT = Path(__file__).parents[2]
#: Three nested comprehensions over a long list: hours of work that holds Python's lock.
HOSTILE = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c > -1)))"


def cel(when: str, found: object) -> bytes:
    """An item that has `when` evaluated on an object."""
    return b"cel:" + json.dumps({"rules": [[when, ""]], "object": found}).encode()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(FUNCTION, time.monotonic, WorkerLimits(cpu_s=0.5))
    try:
        yield made
    finally:
        made.kill()


def codes(answers: list[bytes | Reason]) -> list[str]:
    return [answer.code if isinstance(answer, Reason) else answer.decode() for answer in answers]


def gone(pid: int) -> bool:
    """True once the process has ended; it is waited for as long as the test may run."""
    while Path(f"/proc/{pid}/stat").exists():
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return True


def test_items_are_answered_in_their_order_by_one_process(worker: Worker) -> None:
    assert worker.run([]) == []
    assert worker.run([b"a", b"b", b""]) == [b"a", b"b", b""]
    [first] = worker.run([b"pid"])
    assert worker.run([b"pid", b"pid"]) == [first, first]
    assert first != str(os.getpid()).encode()


def test_a_hostile_expression_is_ended_and_the_others_go_on(worker: Worker) -> None:
    hostile = cel(HOSTILE, {"l": list(range(3000))})
    kind = cel("object.phase == 'Failed'", {"phase": "Failed"})
    before, found, after = worker.run([kind, hostile, kind])
    assert before == after == b'{"rule":0,"message":"","error":""}'
    assert isinstance(found, Reason)
    assert found.code == "EvaluationTimedOut"
    assert "0.5 s of processor time" in found.message


def test_a_child_that_waits_has_a_deadline_too() -> None:
    worker = Worker(FUNCTION, time.monotonic, WorkerLimits(deadline_s=0.5))
    try:
        assert codes(worker.run([b"sleep:3600", b"next"])) == ["EvaluationTimedOut", "next"]
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (b"exit:7", "EvaluationCrashed"),
        (b"memory:4000000000", "EvaluationFailed"),
        (b"output:1000000", "EvaluationTooLarge"),
        (b"x" * 3_000_000, "EvaluationTooLarge"),
        (b"spin", "EvaluationTimedOut"),
        (b"raise", "EvaluationFailed"),
        (b"write:/tmp/x", "EvaluationFailed"),
        (cel("'x'.matches('(x{1000}){1000}')", {}), "EvaluationFailed"),
    ],
    ids=["crash", "memory", "output", "input", "spin", "raise", "write", "pattern"],
)
def test_what_goes_wrong_is_said_and_the_next_is_answered(
    worker: Worker, item: bytes, code: str, tmp_path: Path
) -> None:
    if item.startswith(b"write"):
        item = f"write:{tmp_path / 'x'}".encode()
    found, after = worker.run([item, b"next"])
    assert after == b"next"
    if isinstance(found, Reason):
        assert found.code == code
        assert found.message
    else:
        assert json.loads(found)["error"]


def test_a_bomb_of_strings_in_an_expression_takes_no_memory_of_ours(worker: Worker) -> None:
    doubled = "object.s" + ".map(x, x + x + x + x + x + x + x + x)" * 20
    found, after = worker.run([cel(f"size({doubled}[0]) > 0", {"s": ["x" * 1000]}), b"next"])
    assert after == b"next"
    assert isinstance(found, Reason) or json.loads(found)["error"]


def test_a_child_that_somebody_else_ends_is_started_again(worker: Worker) -> None:
    [pid] = worker.run([b"pid"])
    assert isinstance(pid, bytes)
    os.kill(int(pid), signal.SIGKILL)
    assert gone(int(pid))
    [other] = worker.run([b"pid"])
    assert other != pid


def test_it_has_nothing_of_our_environment(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_TOKEN", "secret")
    assert worker.run([b"environment"]) == [b"LC_ALL,PYTHONPATH"]


def test_what_it_prints_is_no_answer(worker: Worker) -> None:
    assert worker.run([b"print", b"next"]) == [b"print", b"next"]


def test_a_function_that_cannot_be_loaded_is_said() -> None:
    worker = Worker("tests.health.evaluators:absent", time.monotonic)
    assert codes(worker.run([b"a", b"b"])) == ["EvaluatorUnavailable", "EvaluatorUnavailable"]
    worker.kill()


def test_children_work_beside_each_other_and_end_with_the_daemon() -> None:
    async def play() -> tuple[list[list[bytes | Reason]], list[bytes | Reason]]:
        executors = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
        workers = Workers(FUNCTION, executors, monotonic=time.monotonic)
        pids = await asyncio.gather(*(workers.evaluate([b"pid"]) for _ in range(2)))
        waiting = asyncio.ensure_future(workers.evaluate([b"sleep:3600"]))
        await asyncio.sleep(0)
        await workers.close()
        left = await waiting
        for executor in executors:
            executor.shutdown()
        return list(pids), left

    pids, left = asyncio.run(play())
    found = [int(answer) for [answer] in pids if isinstance(answer, bytes)]
    assert len(set(found)) == 2
    assert all(gone(pid) for pid in found)
    assert codes(left) == ["EvaluatorUnavailable"]


def test_production_evaluates_rules_in_processes() -> None:
    async def play() -> list[bytes | Reason]:
        executors = [ThreadPoolExecutor(1)]
        workers = evaluator(executors)
        try:
            return await workers.evaluate([b'{"rules":[["object.a == 1",""]],"object":{"a":1}}', b""])
        finally:
            await workers.close()
            executors[0].shutdown()

    applies, nothing = asyncio.run(play())
    assert applies == b'{"rule":0,"message":"","error":""}'
    assert isinstance(nothing, bytes)
    assert json.loads(nothing)["error"]


PARENT = """
import sys, threading, time
from reconciler.shell.worker import Worker, WorkerLimits
worker = Worker("tests.health.evaluators:misbehave", time.monotonic, WorkerLimits(cpu_s=1.0))
print(worker.run([b"pid"])[0].decode(), flush=True)
if sys.argv[1] != "idle":
    threading.Thread(target=worker.run, args=([f"touch:{sys.argv[1]}".encode()],), daemon=True).start()
time.sleep(3600)
"""


@pytest.mark.parametrize("doing", ["idle", "working"])
def test_a_parent_that_is_killed_leaves_no_child(doing: str, tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    argument = "idle" if doing == "idle" else str(mark)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, argument], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        while doing == "working" and not mark.exists():
            time.sleep(0.01)
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    assert gone(pid)
