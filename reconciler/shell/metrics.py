"""Metrics of one daemon, in a registry of its own: two daemons in one process, as tests have them, share nothing.

Callers name a metric by its row; a misspelt name or a missing label is an error at once, not a metric nobody finds.

    metrics = Metrics(version="0.1.0")
    metrics.add("polls", source="fleet", result="unchanged")
    metrics.set("outbox_backlog", 3)
    metrics.observe("poll_duration_seconds", 0.008)
    metrics.render()                                         # bytes for /metrics
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from reconciler.shell.logs import clean_text
from reconciler.shell.metrics_table import METRICS, PREFIX

#: The Content-Type of what `render` returns.
CONTENT_TYPE = CONTENT_TYPE_LATEST
_LABEL_LENGTH_MAX = 100
#: A label that takes more values than this is not what labels are for; what comes later is counted as "other".
_SERIES_MAX = 5000


class Metrics:
    """Counters, gauges and histograms by the names of METRICS, without prefix. Used from one thread."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._labels = {row.name: row.labels for row in METRICS}
        self._series: dict[str, set[tuple[str, ...]]] = {row.name: set() for row in METRICS}
        for row in METRICS:
            name = PREFIX + row.name
            if row.kind == "counter":
                self._counters[row.name] = Counter(name, row.help, row.labels, registry=self.registry)
            elif row.kind == "gauge":
                self._gauges[row.name] = Gauge(name, row.help, row.labels, registry=self.registry)
            else:
                self._histograms[row.name] = Histogram(
                    name, row.help, row.labels, buckets=row.buckets, registry=self.registry
                )
        self.set("build_info", 1, version=version)

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Raise counter `name` by `amount`."""
        values = self._values(name, labels)
        counter = self._counters[name]
        (counter.labels(*values) if values else counter).inc(amount)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set gauge `name`."""
        values = self._values(name, labels)
        gauge = self._gauges[name]
        (gauge.labels(*values) if values else gauge).set(value)

    def set_all(self, name: str, values: Mapping[str, float]) -> None:
        """Set gauge `name`, which has one label, to `values` by that label; what is not among them goes away."""
        (label,) = self._labels[name]
        self._gauges[name].clear()
        self._series[name].clear()
        for key in sorted(values):
            self.set(name, values[key], **{label: key})

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Count `value` (seconds, for durations) in histogram `name`."""
        values = self._values(name, labels)
        histogram = self._histograms[name]
        (histogram.labels(*values) if values else histogram).observe(value)

    def value(self, name: str, /, **labels: str) -> float:
        """What counter or gauge `name` stands at: 0 if it was never touched."""
        suffix = "_total" if name in self._counters else ""
        return self.registry.get_sample_value(f"{PREFIX}{name}{suffix}", labels) or 0.0

    def render(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _values(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        expected = self._labels[name]
        if set(labels) != set(expected):
            raise ValueError(f"metric {name!r} has the labels {expected}, not {tuple(sorted(labels))}")
        values = tuple(clean_text(labels[label], _LABEL_LENGTH_MAX) for label in expected)
        series = self._series[name]
        if values not in series:
            if len(series) >= _SERIES_MAX:
                return tuple("other" for _ in expected)
            series.add(values)
        return values
