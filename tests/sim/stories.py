"""Stories: the whole shipped daemon on virtual time, and questions that are answered by clusters and store alone.

    async def story(stage: Stage) -> None:
        await stage.settle()                                # everything is installed
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story, clusters=3)

Every story is checked by the simulator's invariants, at every commit and every write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.core.model import Assignment, IntentState, Rollout, RolloutState, RolloutTarget, Target
from reconciler.shell.daemon import Daemon, DaemonSettings
from reconciler.shell.ports import AuditRow, SourceRow
from reconciler.sim.checkers import MANAGER, Checkers
from reconciler.sim.loop import run
from reconciler.sim.plan import FaultPlan
from reconciler.sim.scenarios import FLEET_FILE, FLINK, QUICK, application_file, cluster_file, policy_file
from reconciler.sim.store import WriteEntry
from reconciler.sim.world import RESTART_S, SOURCE, World, play

POLL_S = 30.0


@dataclass(slots=True)
class Stage:
    """One story's world while it is told. Clusters are c0 (the canary), c1, c2, ...; applications app0, app1, ..."""

    world: World
    checkers: Checkers
    files: dict[str, str] = field(default_factory=dict)

    # ---- what happens ------------------------------------------------------------------------------------------

    def commit(self, files: Mapping[str, str | bytes | None], subject: str = "change", **how: Any) -> str:
        """Commit `files` on top of what is there."""
        return self.world.repository.commit(files, subject, **how)

    def push(self, application: str, tag: str, objects: int = 1) -> str:
        """Commit another image of `application`, with `objects` ConfigMaps beside it."""
        return self.commit({path_of(application): application_file(application, tag, objects)}, f"{application} {tag}")

    async def restart(self) -> None:
        """Kill the daemon's process and wait until the next one has booted and looked around."""
        assert self.world.daemon is not None
        lived = len(self.world.deaths)
        self.world.kill()
        await self.world.until(lambda: len(self.world.deaths) > lived, 60, every_s=1)
        await self.world.sleep(RESTART_S + 40)

    async def looked(self) -> None:
        """Let the daemon poll once and decide."""
        await self.world.sleep(POLL_S * 1.2 + 5)

    async def settle(self, within_s: float = 3600) -> None:
        """Poll, then wait until no rollout is active and no write is pending."""
        await self.looked()
        await self.world.until(self.world.settled, within_s)

    async def reach(self, condition: Callable[[], bool], within_s: float = 1800) -> None:
        """Wait until `condition` holds, looking every second."""
        await self.world.until(condition, within_s, every_s=1)

    async def arrives(self, application: str, cluster: str, tag: str) -> None:
        """Wait until `tag` is live on `cluster`."""
        await self.reach(lambda: self.tag(application, cluster) == tag)

    # ---- what the store says -----------------------------------------------------------------------------------

    @property
    def daemon(self) -> Daemon:
        """The daemon that lives now."""
        assert self.world.daemon is not None
        return self.world.daemon

    def source(self) -> SourceRow:
        """The source's row."""
        found = self.world.ask(lambda tx: tx.source(SOURCE))
        assert isinstance(found, SourceRow)
        return found

    def problems(self) -> list[tuple[str, int, str]]:
        """File, line and code of each problem of the last commit."""
        return [(each["file"], each["line"], each["code"]) for each in json.loads(self.source().problems)]

    def rollouts(self, application: str) -> list[Rollout]:
        """All rollouts of `application`, oldest first."""
        found: list[Rollout] = self.world.ask(lambda tx: tx.rollouts(application=full(application)))
        return found[::-1]

    def last(self, application: str) -> Rollout:
        """The newest rollout of `application`."""
        return self.rollouts(application)[-1]

    def rows(self, rollout: Rollout) -> dict[str, RolloutTarget]:
        """A rollout's rows by cluster."""
        rows: list[RolloutTarget] = self.world.ask(lambda tx: tx.rollout_targets(rollout.id))
        return {row.target.cluster: row for row in rows}

    def states(self, application: str) -> dict[str, str]:
        """The state of each target in the newest rollout of `application`."""
        return {cluster: str(row.state) for cluster, row in self.rows(self.last(application)).items()}

    def assignment(self, application: str, cluster: str) -> Assignment:
        """What is assigned there."""
        found = self.world.ask(lambda tx: tx.assignment(Target(full(application), cluster)))
        assert isinstance(found, Assignment)
        return found

    def audit(self, code: str) -> list[AuditRow]:
        """The lines of the audit log with this code, oldest first."""
        rows: list[AuditRow] = self.world.ask(lambda tx: tx.audit_log(limit=10_000))
        return [row for row in reversed(rows) if row.code == code]

    def alerts(self) -> list[str]:
        """The codes of all alerts that were delivered to people."""
        return [str(body["code"]) for _, kind, body in self.world.notifier.sent if kind == "alert"]

    def heals(self, cluster: str) -> int:
        """How many repairs were decided on `cluster`."""
        return sum(row.cluster == cluster for row in self.audit("Healing"))

    # ---- what the daemon answers -------------------------------------------------------------------------------

    def waits(self, application: str) -> dict[str, str]:
        """Code by subject of what `application` waits for, its source's and its rollouts' waits together."""
        board = self.daemon.board.waits
        found = list(board.get(f"application:{full(application)}", ()))
        for rollout in self.rollouts(application):
            found += board.get(f"rollout:{rollout.id}", ())
        return {wait.subject: wait.reason.code for wait in found}

    def why(self, application: str) -> str:
        """All reasons of `application`, as people read them."""
        return "\n".join(
            str(wait.reason) for wait in self.daemon.board.waits.get(f"application:{full(application)}", ())
        )

    # ---- what the clusters say ---------------------------------------------------------------------------------

    def job(self, application: str, cluster: str) -> dict[str, Any] | None:
        """The live FlinkDeployment."""
        return self.world.clusters[cluster].read(FLINK, "FlinkDeployment", application, application)

    def tag(self, application: str, cluster: str) -> str:
        """The tag of the image that is live, "" if nothing is."""
        live = self.job(application, cluster)
        return "" if live is None else str(live["spec"]["image"]).rpartition(":")[2]

    def tags(self, application: str) -> set[str]:
        """The tags that are live anywhere."""
        return {self.tag(application, cluster) for cluster in self.world.clusters}

    def config(self, application: str, cluster: str, index: int = 0) -> dict[str, Any] | None:
        """A live ConfigMap of `application`."""
        return self.world.clusters[cluster].read("", "ConfigMap", application, f"{application}-{index}")

    def edit(self, application: str, cluster: str, patch: dict[str, Any]) -> None:
        """Somebody changes the FlinkDeployment by hand."""
        self.world.clusters[cluster].edit(FLINK, "FlinkDeployment", application, application, patch)

    def writes(self, cluster: str | None = None) -> list[WriteEntry]:
        """Our own effective writes, oldest first: refused ones and dry runs are none."""
        names = sorted(self.world.clusters) if cluster is None else [cluster]
        log = [entry for name in names for entry in self.world.clusters[name].server.log]
        ours = [entry for entry in log if entry.manager == MANAGER and not entry.dry_run and entry.code < 300]
        return sorted(ours, key=lambda entry: (entry.time, entry.sequence))

    def job_writes(self, cluster: str, application: str = "app0") -> int:
        """How often we wrote the FlinkDeployment of `application` there."""
        keys = [entry.key for entry in self.writes(cluster)]
        return sum((key.kind, key.name) == ("FlinkDeployment", application) for key in keys)

    def deletes(self) -> list[WriteEntry]:
        """Our own deletions."""
        return [entry for entry in self.writes() if entry.verb == "delete"]

    def pending(self) -> int:
        """How many intents are pending."""
        return len(self.world.ask(lambda tx: tx.intents(pending=True)))

    def intents(self, purpose: str) -> list[IntentState]:
        """States of all intents with this purpose."""
        return [intent.state for intent in self.world.ask(lambda tx: tx.intents()) if intent.purpose == purpose]


def full(application: str) -> str:
    """The full name of an application of the fleet."""
    return f"sim/{application}"


def path_of(application: str) -> str:
    """Where an application's document stands."""
    return f"apps/{application}/app.yaml"


def fleet_files(clusters: int, applications: int, on_failure: str = "rollback") -> dict[str, str]:
    """A fleet: c0 is the canary, then a wave of a quarter, then the rest."""
    files = {"fleet.yaml": FLEET_FILE, "policies/quick.yaml": policy_file(on_failure)}
    for number in range(clusters):
        ring = "rest" if number else "canary"
        files[f"clusters/c{number}.yaml"] = cluster_file(f"c{number}", "eu" if number % 2 else "us", ring)
    for number in range(applications):
        files[path_of(f"app{number}")] = application_file(f"app{number}", "1.0")
    return files


def tell(
    story: Callable[[Stage], Awaitable[None]],
    *,
    clusters: int = 3,
    applications: int = 1,
    on_failure: str = "rollback",
    settings: DaemonSettings | None = None,
    plan: FaultPlan | None = None,
    files: Mapping[str, str | None] | None = None,
) -> World:
    """Tell `story`, from the moment at which the first commit is there and the daemon boots. `files` are further ones
    by path, or others in their place (None leaves one out); everything goes well unless `plan` says otherwise."""
    logging.getLogger("reconciler").setLevel(logging.CRITICAL + 1)
    first = {**fleet_files(clusters, applications, on_failure), **(files or {})}
    kept = {path: text for path, text in first.items() if text is not None}
    world = World(seed=1, timings=QUICK, settings=settings or replace(DaemonSettings(), resync_interval_s=120.0))
    world.plan = plan or world.plan

    async def begin(world: World) -> None:
        for number in range(clusters):
            world.add_cluster(f"c{number}")
        stage = Stage(world, Checkers(world), kept)
        if kept:
            stage.commit(kept, "first")
        await world.start()
        await story(stage)

    return run(play(world, begin))


async def installed(stage: Stage) -> None:
    """Wait for the first rollouts to succeed everywhere."""
    await stage.settle()
    names = sorted({path.split("/")[1] for path in stage.files if path.startswith("apps/")})
    for name in names:
        assert stage.last(name).state is RolloutState.SUCCEEDED, (name, stage.waits(name))
