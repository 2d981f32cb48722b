"""The observer against a small API server: what it asks and how often, and clusters that do not answer."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.shell.live import NOT_SEEN
from reconciler.shell.observe import WATCHES_MAX
from reconciler.shell.transport import Response
from tests.sim.observe_harness import ALL, CONFIG, FLINK, observing, simulated
from tests.sim.observe_world import SmallApi

# ---- how much is asked -------------------------------------------------------------------------------------------


@simulated
async def test_a_quiet_watch_costs_one_list_of_metadata_per_check_interval() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api) as world:
        await asyncio.sleep(1)
        before = len(api.requests)
        await asyncio.sleep(600)
        asked = api.requests[before:]
        assert set(asked) == {"META flinkdeployments"}
        assert 45 <= len(asked) <= 60
        assert world.observer.observed_at(FLINK.group_kind) == pytest.approx(world.clock.now().monotonic, abs=10.5)
        assert world.changed == [api.key("a")]


@simulated
async def test_with_a_long_check_interval_bookmarks_alone_keep_a_kind_fresh() -> None:
    api = SmallApi()
    async with observing(api, check_interval_s=90) as world:
        await asyncio.sleep(1)
        before = len(api.requests)
        await asyncio.sleep(1000)
        assert api.requests[before:] == []
        assert world.observer.heard_at == pytest.approx(world.clock.now().monotonic, abs=61)
        world.observer.set_intervals(check_s=10, resync_s=300)
        await asyncio.sleep(20)
        assert api.requests[before:] != []


@simulated
async def test_at_most_three_watches_and_the_rest_by_lists() -> None:
    api = SmallApi()
    async with observing(api, ALL, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        assert [kind.kind for kind in world.observer.watched()] == ["FlinkDeployment", "FlinkSessionJob", "Deployment"]
        assert len(world.observer.watched()) == WATCHES_MAX
        api.put("c", {"k": 1}, kind="ConfigMap")
        await asyncio.sleep(200)
        assert world.spec("c", "ConfigMap") is None
        await asyncio.sleep(101)
        assert world.spec("c", "ConfigMap") == {"k": 1}
        api.put("c", {"k": 2}, kind="ConfigMap")
        await world.observer.refresh([api.key("c", "ConfigMap")])
        assert world.spec("c", "ConfigMap") == {"k": 2}
        api.drop("c", kind="ConfigMap")
        await world.observer.resync([CONFIG.group_kind])
        assert world.spec("c", "ConfigMap") is None
        assert api.open_max <= 12


@simulated
async def test_a_kind_without_a_watch_is_listed_every_check_interval_while_it_is_waited_for() -> None:
    api = SmallApi()
    async with observing(api, ALL) as world:
        await asyncio.sleep(1)
        lists = "META configmaps"
        before = api.requests.count(lists)
        world.observer.set_intervals(check_s=10, resync_s=300, waited_for=[CONFIG.group_kind])
        await asyncio.sleep(100)
        assert 9 <= api.requests.count(lists) - before <= 11
        assert world.observer.observed_at(CONFIG.group_kind) == pytest.approx(world.clock.now().monotonic, abs=10.5)
        world.observer.set_intervals(check_s=10, resync_s=300)
        before = api.requests.count(lists)
        await asyncio.sleep(290)
        assert api.requests.count(lists) == before


@simulated
async def test_sockets_stay_below_twelve_whatever_the_lane_asks_at_once() -> None:
    api = SmallApi()
    api.latency_s = 1.0
    async with observing(api, ALL) as world:
        await asyncio.sleep(20)
        keys = [api.key(f"a{number}") for number in range(100)]
        await asyncio.gather(*(world.observer.read(FLINK.api_version, key) for key in keys))
        assert api.open_max <= 12


@simulated
async def test_kinds_come_and_go() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    api.put("c", {"k": 1}, kind="ConfigMap")
    async with observing(api, [CONFIG]) as world:
        await asyncio.sleep(1)
        assert [kind.kind for kind in world.observer.watched()] == ["ConfigMap"]
        world.observer.set_kinds([FLINK])
        assert world.spec("c", "ConfigMap") is NOT_SEEN
        await asyncio.sleep(1)
        assert (world.spec("a"), world.spec("c", "ConfigMap")) == ({"k": 1}, NOT_SEEN)
        assert api.open_now == 1
        world.observer.set_kinds([FLINK, CONFIG])
        await asyncio.sleep(1)
        assert (world.spec("a"), world.spec("c", "ConfigMap")) == ({"k": 1}, {"k": 1})
        assert api.count("LIST flinkdeployments") == 1, "what stays is not disturbed"
        world.observer.set_kinds(ALL)
        await asyncio.sleep(1)
        assert api.open_now == WATCHES_MAX
        assert world.spec("c", "ConfigMap") == {"k": 1}, "a kind that loses its watch keeps what is known"


# ---- a cluster that does not answer ------------------------------------------------------------------------------


@simulated
async def test_an_unreachable_cluster_is_asked_seldom_and_found_again() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.reachable = False
        api.cut_watches()
        await asyncio.sleep(3600)
        heard_at, now = world.observer.heard_at, world.clock.now().monotonic
        assert heard_at is not None
        assert now - heard_at > 3590
        assert world.observer.reason is not None
        assert world.spec("a") == {"k": 1}, "what is known stays known, and is stale by its observed_at"
        assert api.count("") < 600
        api.put("a", {"k": 2})
        api.reachable = True
        await asyncio.sleep(31)
        assert world.spec("a") == {"k": 2}
        assert world.observer.reason is None


@simulated
async def test_a_silent_watch_is_given_up_after_its_idle_deadline() -> None:
    api = SmallApi()
    async with observing(api, check_interval_s=10_000) as world:
        await asyncio.sleep(1)
        api.mute_open_watches()
        api.put("a", {"k": 1})
        await asyncio.sleep(100)
        assert world.spec("a") is None
        await asyncio.sleep(40)
        assert world.spec("a") == {"k": 1}


@simulated
async def test_a_server_that_ends_every_watch_is_not_asked_in_a_tight_loop() -> None:
    api = SmallApi()
    api.refuse["WATCH flinkdeployments"] = Response(200)
    async with observing(api, check_interval_s=10_000):
        await asyncio.sleep(600)
        assert 10 < api.count("WATCH") < 60


@simulated
async def test_a_kind_that_is_not_served_yet_is_found_when_it_comes() -> None:
    api = SmallApi()
    api.served.discard("flinkdeployments")
    async with observing(api) as world:
        await asyncio.sleep(10)
        problem = world.observer.problem(FLINK.group_kind)
        assert problem is not None
        assert problem.code == "KindMissing"
        assert world.spec("a") is NOT_SEEN
        api.served.add("flinkdeployments")
        api.put("a", {"k": 1})
        await asyncio.sleep(90)
        assert world.spec("a") == {"k": 1}
