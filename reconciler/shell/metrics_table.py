"""Every metric as a row. `metrics.py` makes them, `docs/guides/metrics.md` is tested against them.

Labels have few values: a state, a verb, a reason code, a source; never an application, a target or a message. What is
per cluster is bounded by the clusters there are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric. `kind` is counter, gauge or histogram; a counter's name gets `_total` from the library."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

METRICS: tuple[MetricRow, ...] = (
    MetricRow("build_info", "gauge", ("version",), "1, with the version of this daemon"),
    MetricRow("polls", "counter", ("source", "result"), "polls of a repository: unchanged, changed, failed"),
    MetricRow("poll_duration_seconds", "histogram", (), "time to ask a repository for its ref", _LONG),
    MetricRow("revisions", "counter", ("source", "result"), "new revisions: accepted, refused"),
    MetricRow("compile_duration_seconds", "histogram", (), "time to read and compile a revision", _LONG),
    MetricRow("blobs_read", "counter", (), "files read from Git"),
    MetricRow("documents_parsed", "counter", (), "YAML documents parsed"),
    MetricRow("applications_compiled", "counter", (), "applications compiled"),
    MetricRow("problems", "gauge", ("source", "severity"), "problems in the last attempted revision"),
    MetricRow("decisions", "counter", ("unit",), "decisions made by sources and rollouts"),
    MetricRow("waits", "gauge", ("reason",), "what waits now, by reason code"),
    MetricRow("rollouts", "gauge", ("state",), "active rollouts by state"),
    MetricRow("rollouts_ended", "counter", ("state",), "rollouts that ended, by how"),
    MetricRow("targets", "gauge", ("state",), "targets of active rollouts by state"),
    MetricRow("targets_health", "gauge", ("health",), "assigned targets by health; what cannot be seen now is Unknown"),
    MetricRow(
        "targets_sync",
        "gauge",
        ("sync",),
        "assigned targets by whether live equals assigned; what cannot be seen now is unknown",
    ),
    MetricRow("intents", "counter", ("verb", "outcome"), "writes decided, by what became of them"),
    MetricRow("kube_requests", "counter", ("verb", "code"), "API server requests by method and class of answer"),
    MetricRow("kube_write_duration_seconds", "histogram", (), "time of a write to an API server", _LONG),
    MetricRow("watch_events", "counter", (), "watch events received"),
    MetricRow("watch_relists", "counter", ("reason",), "lists made because a watch could not go on"),
    MetricRow("cluster_reachable", "gauge", ("cluster",), "1 if the cluster was heard from within its limit, else 0"),
    MetricRow("drift_found", "counter", (), "targets found to differ from their assigned release"),
    MetricRow("drift_healed", "counter", (), "targets in sync again after a heal"),
    MetricRow("alerts", "counter", ("level",), "alerts by level: event, risk, alert, anomaly, fault"),
    MetricRow("store_commit_duration_seconds", "histogram", (), "time of a committed transaction", _SHORT),
    MetricRow("store_conflicts", "counter", (), "transactions given up because a row was newer"),
    MetricRow("loop_lag_seconds", "gauge", (), "how late the event loop ran its last timer"),
    MetricRow("outbox_backlog", "gauge", (), "messages not delivered yet"),
)

PREFIX = "reconciler_"
