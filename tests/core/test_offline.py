"""The commands without a daemon: validate, render, waves, init."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import resources
from reconciler.cli import offline
from reconciler.core.problems import Severity
from tests.core.fleets import application, cluster, config_map, fleet_files, flink, manifests

SAMPLE = resources.sample_directory()


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_sample_validates_clean() -> None:
    found = offline.validate(SAMPLE)
    assert found.problems == []
    assert min(found.checked.values()) > 0
    assert offline.problems_text(found).startswith("no problems in ")


def test_validate_a_fleet(tmp_path: Path) -> None:
    broken = application("two", flink("two", more="      imgae: x\n"))
    found = offline.validate(write(tmp_path, fleet_files(**{"apps/two/app.yaml": broken})))
    [problem] = found.problems
    assert problem.as_json() == {
        "file": "apps/two/app.yaml",
        "line": 12,
        "column": 7,
        "severity": "error",
        "code": "unknown-field",
        "message": "no field 'imgae' here",
        "hint": "did you mean 'image'?",
    }
    assert offline.problems_text(found).endswith("1 error, 0 warnings in 2 applications, 2 clusters and 1 policy\n")
    assert json.dumps(offline.problems_json(found))


def test_validate_one_file_and_a_directory_without_a_fleet(tmp_path: Path) -> None:
    trait = "    - {type: upgrade-strategy, properties: {mode: savepoint}}\n"
    write(tmp_path, {"a/app.yaml": application("x", flink("x", traits=trait)), "a/c.yaml": cluster("c")})
    assert [p.code for p in offline.validate(tmp_path / "a" / "app.yaml").problems] == ["missing-prerequisite"]
    assert [p.code for p in offline.validate(tmp_path / "a").problems] == ["missing-prerequisite", "no-fleet"]
    assert offline.validate(tmp_path / "a" / "c.yaml").problems == []
    assert [p.code for p in offline.validate(write(tmp_path / "empty", {"x.txt": ""})).problems] == ["no-fleet"]
    with pytest.raises(offline.UsageError):
        offline.validate(tmp_path / "absent")


def test_every_sample_application_validates_alone() -> None:
    for path in sorted(SAMPLE.glob("apps/*/app.yaml")):
        assert offline.validate(path).problems == [], path


def test_links_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, fleet_files())
    (tmp_path / "outside.yaml").write_text(config_map("x"))
    (tmp_path / "apps/link").symlink_to(tmp_path)
    (tmp_path / "apps/one/link.yaml").symlink_to(tmp_path / "outside.yaml")
    assert [(p.file, p.code) for p in offline.validate(tmp_path).problems] == [
        ("apps/link", "bad-path"),
        ("apps/one/link.yaml", "bad-path"),
    ]


def test_render(tmp_path: Path) -> None:
    one = offline.render(SAMPLE, "orders", "us-east-1a")
    assert [(r.application, r.cluster) for r in one.rendered] == [("sample/orders", "us-east-1a")]
    assert one.manifests[-1]["spec"]["job"]["parallelism"] == 8
    assert "reconciler.dev/owner" not in one.text()
    assert len(offline.render(SAMPLE, "sample/orders").rendered) == 8
    on_one_cluster = offline.render(SAMPLE, cluster="ap-south-1b")
    assert {r.application for r in on_one_cluster.rendered} == {
        "sample/orders", "sample/delivery-eta", "sample/device-telemetry",
    }  # fmt: skip
    assert json.dumps(on_one_cluster.as_json())
    assert len(offline.render(SAMPLE).rendered) == offline.compile_path(SAMPLE).target_count
    broken = write(
        tmp_path, fleet_files(**{"apps/two/app.yaml": application("two", "  - {name: x, type: helm-chart}\n")})
    )
    assert [p.code for p in offline.render(broken).problems] == ["unsupported"]
    assert [p.code for p in offline.render(broken, "two").problems] == ["unsupported"]
    assert offline.render(broken, "one").problems == []
    assert len(offline.render(broken, "one").manifests) == 1
    (tmp_path / "fleet.yaml").write_text("a: [")
    assert offline.render(broken, "one").problems[0].code == "invalid-yaml"


@pytest.mark.parametrize(
    ("name", "cluster_name", "says"),
    [
        ("ordrs", None, "did you mean 'orders'?"),
        (None, "eu-west-1", "did you mean 'eu-west-1"),
        ("customer-360", "us-east-1a", "it goes to eu-west-1a"),
    ],
)
def test_render_of_what_does_not_exist(name: str | None, cluster_name: str | None, says: str) -> None:
    with pytest.raises(offline.UsageError) as error:
        offline.render(SAMPLE, name, cluster_name)
    assert says in error.value.hint


def test_waves(tmp_path: Path) -> None:
    result = offline.waves(SAMPLE / "policies/rollout.yaml", SAMPLE / "clusters")
    assert [(w["name"], w["targets"], w["max_concurrent"], w["minimum_s"]) for w in result.as_json()["waves"]] == [
        ("canary", 2, 2, 1800.0),
        ("early", 3, 2, 1200.0),
        ("rest", 3, 2, 600.0),
    ]
    assert "canary: eu-west-1a, us-east-1a" in result.text()
    broken = write(tmp_path, {"p.yaml": (SAMPLE / "policies/rollout.yaml").read_text().replace("30m", "30")})
    found = offline.waves(broken / "p.yaml", SAMPLE / "clusters")
    assert [p.code for p in found.problems] == ["invalid-value"]
    assert found.as_json() == {"waves": []}
    with pytest.raises(offline.UsageError):
        offline.waves(SAMPLE / "fleet.yaml", SAMPLE / "clusters")
    with pytest.raises(offline.UsageError):
        offline.waves(SAMPLE / "policies/rollout.yaml", SAMPLE / "policies")


def test_the_sample_policy_takes_an_hour_at_most() -> None:
    waves = offline.waves(SAMPLE / "policies/rollout.yaml", SAMPLE / "clusters").as_json()["waves"]
    assert sum(wave["minimum_s"] for wave in waves) <= 3600


def test_init(tmp_path: Path) -> None:
    target = tmp_path / "new"
    written = offline.init(target)
    assert sorted(written) == sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())
    assert offline.validate(target).problems == []
    assert offline.compile_path(target).target_count == 1
    with pytest.raises(offline.UsageError, match="not empty"):
        offline.init(target)
    with pytest.raises(offline.UsageError):
        offline.init(target / "fleet.yaml")
    (tmp_path / "git/.git").mkdir(parents=True)
    assert offline.init(tmp_path / "git")


def test_not_yet_enforced_is_a_warning(tmp_path: Path) -> None:
    files = fleet_files()
    files["policies/two.yaml"] += "  windows: [workdays]\n"
    [problem] = offline.validate(write(tmp_path, files)).problems
    assert (problem.severity, problem.code) == (Severity.WARNING, "not-yet-enforced")
    files["apps/one/app.yaml"] = application("one", manifests("one"))
    assert offline.render(tmp_path).problems == []


def test_nothing_heavy_is_imported() -> None:
    heavy = "kubernetes sqlalchemy aiohttp git apscheduler"
    code = f"import sys, reconciler.cli.offline; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
