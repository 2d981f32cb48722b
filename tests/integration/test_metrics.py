"""Metrics: what is counted is shown, two daemons share nothing, and the guide's table is the code's."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.shell import metrics as metrics_module
from reconciler.shell.metrics import Metrics
from reconciler.shell.metrics_table import METRICS, PREFIX, MetricRow

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "metrics.md"


def test_what_is_counted_is_rendered() -> None:
    metrics = Metrics("1.2.3")
    metrics.add("polls", source="fleet", result="unchanged")
    metrics.add("polls", 2, source="fleet", result="unchanged")
    metrics.set("outbox_backlog", 4)
    metrics.observe("poll_duration_seconds", 0.2)
    text = metrics.render().decode()
    assert 'reconciler_build_info{version="1.2.3"} 1.0' in text
    assert 'reconciler_polls_total{result="unchanged",source="fleet"} 3.0' in text
    assert "reconciler_outbox_backlog 4.0" in text
    assert 'reconciler_poll_duration_seconds_bucket{le="0.25"} 1.0' in text
    assert metrics.value("polls", source="fleet", result="unchanged") == 3
    assert metrics.value("polls", source="other", result="failed") == 0


def test_two_daemons_share_nothing() -> None:
    one, other = Metrics("1"), Metrics("1")
    one.add("blobs_read", 5)
    assert (one.value("blobs_read"), other.value("blobs_read")) == (5, 0)


def test_set_all_forgets_what_is_gone() -> None:
    metrics = Metrics("1")
    metrics.set_all("waits", {"WindowClosed": 2, "Baking": 1})
    metrics.set_all("waits", {"Baking": 3})
    assert metrics.value("waits", reason="Baking") == 3
    assert "WindowClosed" not in metrics.render().decode()


@pytest.mark.parametrize("labels", [{}, {"source": "x"}, {"source": "x", "result": "y", "more": "z"}])
def test_wrong_labels_are_an_error(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="has the labels"):
        Metrics("1").add("polls", **labels)


def test_an_unknown_metric_is_an_error() -> None:
    with pytest.raises(KeyError):
        Metrics("1").add("pols", source="x", result="y")


def test_labels_are_bounded_and_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "_SERIES_MAX", 3)
    metrics = Metrics("1")
    for index in range(10):
        metrics.set("cluster_reachable", 1, cluster=f"c{index}")
    metrics.add("alerts", level="a\nb" + "x" * 1000)
    text = metrics.render().decode()
    assert text.count("reconciler_cluster_reachable{") == 4
    assert 'cluster="other"' in text
    assert max(map(len, text.splitlines())) < 300
    assert "\\n" not in text


def test_names_follow_the_rules() -> None:
    for row in METRICS:
        assert row.kind in ("counter", "gauge", "histogram")
        assert bool(row.buckets) == (row.kind == "histogram")
        assert not row.name.endswith(("_total", "_ms", "_millis"))
        assert len(row.labels) <= 2
        assert not {"application", "target", "message", "rollout"} & set(row.labels)


def _written(row: MetricRow) -> str:
    name = PREFIX + row.name + ("_total" if row.kind == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in row.labels)
    return f"| `{name}` | {row.kind} | {labels}{' ' if labels else ''}| {row.help} |"


def test_the_guide_has_every_metric_as_it_is() -> None:
    table = [line for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    assert table == [_written(row) for row in METRICS]


def test_the_registry_has_every_metric_of_the_table() -> None:
    families = {family.name for family in text_string_to_metric_families(Metrics("1").render().decode())}
    assert families >= {PREFIX + row.name for row in METRICS}
