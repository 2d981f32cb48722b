"""A generated corpus proves the comparison: no perpetual difference, and none missed; the API server is the judge.

Hypothesis draws objects over the real server's schemas, edits by others and later releases. The number of stories and
the choices are fixed (`derandomize`), so a failure repeats and is made as small as it can be. A soak plays as many
stories as `CORPUS_STORIES` says, one per seed from `CORPUS_SEED` on, and prints what it saw:

    CORPUS_STORIES=5000 CORPUS_SEED=7 pytest tests/corpus -k soak -s
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.schema import load_catalog
from tests.control_plane.server import ControlPlane
from tests.corpus.drawing import Draw, random_source
from tests.corpus.kinds import PLURALS
from tests.corpus.servers import Server
from tests.corpus.stories import Figures, Stories

STORIES = 250
SIMULATED_STORIES = 60
PHASES = (Phase.explicit, Phase.generate, *((Phase.shrink,) if os.environ.get("CORPUS_SHRINK") else ()))
SOAK_STORIES = int(os.environ.get("CORPUS_STORIES", "0"))
SOAK_SEED = int(os.environ.get("CORPUS_SEED", "1"))

#: The kinds of which the simulated server knows all that the real one does to a value: of built-in kinds it keeps what
#: is declared empty, where Go structs lose it.
SIMULATED = ("specimens", "flinkdeployments", "flinksessionjobs", "configmaps")
#: Of what is drawn the server must take most, or the corpus shows little.
TAKEN_SHARE_MIN = 0.7


def _with_namespace(server: Server) -> Server:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": server.namespace}}
    answer = server.send("POST", "/api/v1/namespaces", namespace)
    assert answer.status == 201, answer
    return server


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with closing(asyncio.new_event_loop()) as made:
        yield made


@pytest.fixture
def real(
    control_plane: ControlPlane, loop: asyncio.AbstractEventLoop, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """The real API server, with a namespace of this test's own."""
    transport = loop.run_until_complete(transport_from_kubeconfig(control_plane.kubeconfig))
    namespace = "corpus-" + request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    try:
        yield _with_namespace(Server("real", transport, loop, namespace))
    finally:
        loop.run_until_complete(transport.close())


@pytest.fixture
def simulated(loop: asyncio.AbstractEventLoop) -> Server:
    """The simulated API server, called directly."""
    return _with_namespace(
        Server("simulated", SimApiServer(catalog=load_catalog("specimen")).transport(), loop, "corpus")
    )


def play(servers: list[Server], count: int, plurals: tuple[str, ...] = PLURALS) -> Figures:
    """Play `count` stories that Hypothesis draws."""
    stories = Stories(servers, figures := Figures(), plurals)

    @settings(
        max_examples=count,
        derandomize=True,
        phases=PHASES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(random_source)
    def one(random: Random) -> None:
        stories.play(Draw(random))

    one()
    print(figures.text())
    return figures


@pytest.mark.controlplane
def test_nothing_differs_for_ever_and_nothing_is_missed(real: Server) -> None:
    figures = play([real], STORIES)
    assert figures.taken_share >= TAKEN_SHARE_MIN
    assert {said for said, _ in figures.answers} >= {"in-sync", "ask", "ownership", "differs"}


def test_the_simulated_server_says_so_too(simulated: Server) -> None:
    play([simulated], SIMULATED_STORIES, SIMULATED)


@pytest.mark.controlplane
def test_both_servers_tell_the_same(real: Server, simulated: Server) -> None:
    play([real, simulated], SIMULATED_STORIES, SIMULATED)


if SOAK_STORIES:

    @pytest.mark.controlplane
    @pytest.mark.timeout(0)
    def test_soak(real: Server) -> None:
        stories = Stories([real], figures := Figures())
        faults = []
        for seed in range(SOAK_SEED, SOAK_SEED + SOAK_STORIES):
            try:
                stories.play(Draw(Random(seed)))
            except AssertionError as fault:
                faults.append(f"---- seed {seed}\n{fault}")
        print(f"seeds {SOAK_SEED} to {SOAK_SEED + SOAK_STORIES - 1}: {figures.text()}", *faults, sep="\n")
        assert not faults
