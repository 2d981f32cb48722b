"""Deletions in a watch: asked about beside it, several at a time, and what comes after them does not wait."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.shell.follow import DELETIONS_AT_ONCE
from tests.sim.observe_harness import FLINK, observing, simulated
from tests.sim.observe_world import SmallApi, failure


@simulated
async def test_of_many_deletions_at_once_none_waits_for_all_the_others() -> None:
    api = SmallApi()
    for number in range(20):
        api.put(f"a{number:02}", {"k": number})
    async with observing(api, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        asked = api.count("GET")
        for number in range(20):
            api.drop(f"a{number:02}")
        last = api.put("last", {"k": 1})
        await asyncio.sleep(api.latency_s / 2)
        assert world.observer.busy
        await asyncio.sleep(3 * api.latency_s)
        assert [key.name for key in world.observer.cache.keys(FLINK.group_kind)] == ["last"]
        assert (api.count("GET") - asked, api.open_max) == (20, 1 + DELETIONS_AT_ONCE)
        assert world.observer.live(api.key("last")) == last
        api.cut_watches()
        await asyncio.sleep(5)
        assert api.watched_from[-1] == api.revision


@simulated
async def test_what_comes_after_an_unconfirmed_deletion_is_known_and_proves_nothing_newer() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        api.latency_s = 5.0
        before = world.observer.observed_at(FLINK.group_kind)
        api.drop("a")
        await asyncio.sleep(1)
        api.put("b", {"k": 2})
        await asyncio.sleep(1)
        assert (world.spec("a"), world.spec("b")) == ({"k": 1}, {"k": 2})
        assert world.observer.observed_at(FLINK.group_kind) == before
        await asyncio.sleep(4)
        assert (world.spec("a"), world.spec("b")) == (None, {"k": 2})
        assert world.observer.observed_at(FLINK.group_kind) == pytest.approx(2.0, abs=0.1), "when b came"


@simulated
async def test_one_deletion_that_cannot_be_confirmed_brings_back_what_came_after_it() -> None:
    api = SmallApi()
    for name in ("a", "b"):
        api.put(name, {"k": 1})
    async with observing(api, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        api.scripted.append(("GET flinkdeployments", failure(500, "InternalError", "no")))
        resumes_from = api.revision
        api.drop("a")
        api.drop("b")
        api.put("c", {"k": 3})
        await asyncio.sleep(0.1)
        assert (world.spec("a"), world.spec("b"), world.spec("c")) == ({"k": 1}, None, {"k": 3})
        problem = world.observer.problem(FLINK.group_kind)
        assert problem is not None
        assert problem.code == "InternalError"
        changed = list(world.changed)
        await asyncio.sleep(5)
        assert api.watched_from == [resumes_from, resumes_from]
        assert (world.spec("a"), world.spec("b"), world.spec("c")) == (None, None, {"k": 3})
        assert world.changed == [*changed, api.key("a")], "what was known already is no news"
        assert world.observer.problem(FLINK.group_kind) is None


@simulated
async def test_a_deletion_that_can_never_be_confirmed_is_asked_for_ever_more_seldom() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        api.refuse["GET flinkdeployments"] = failure(500, "InternalError", "no")
        api.drop("a")
        for number in range(300):  # events go on, and are known meanwhile
            api.put("b", {"k": number})
            await asyncio.sleep(1)
        assert 10 < len(api.watched_from) < 25
        assert world.spec("b")["k"] > 260
        del api.refuse["GET flinkdeployments"]
        await asyncio.sleep(31)
        assert world.spec("a") is None
        world.assert_true_to_the_cluster()
        # What is settled begins the pauses anew.
        watched = len(api.watched_from)
        api.cut_watches()
        await asyncio.sleep(1.5)
        assert len(api.watched_from) == watched + 1


@simulated
async def test_an_object_that_is_made_anew_while_its_deletion_is_confirmed_is_there() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        for number in range(6):
            api.drop("a")
            api.put("a", {"k": number})
            await asyncio.sleep(api.latency_s * number / 5)
        await asyncio.sleep(1)
        world.assert_true_to_the_cluster()
        api.drop("a")
        await asyncio.sleep(1)
        assert world.spec("a") is None
