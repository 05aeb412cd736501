"""The dashboard, the alerts and the table of metrics against the metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Metrics
from tests.documentation import ROOT, section

DASHBOARD = ROOT / "deploy" / "grafana" / "neural-image-restore.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
_METRIC = re.compile(r"\brestore_\w+")
_MADE_BY_PROMETHEUS = {"le", "instance", "job"}


def used() -> Metrics:
    """Metrics of which each was told something, so that its labels show."""
    metrics = Metrics()
    metrics.attempt_ended("completed")
    metrics.observe_stage("decode", 1.0)
    metrics.add_result(1000, 1000)
    metrics.follow_queue(lambda: 1.0, lambda: 1.0)
    metrics.follow_workers(lambda: 1.0)
    metrics.follow_provider(lambda: False)
    metrics.observe_request("GET", "/x", 200, 0.1)
    metrics.thread_restarted("t")
    metrics.webhook_tried("delivered")
    metrics.count_caller_request("kay", 200)
    metrics.count_caller_photos("kay", 1)
    metrics.janitor_removed("jobs", 1)
    return metrics


def families() -> dict[str, tuple[str, set[str]]]:
    """Each metric by its documented name: kind and labels. All must have been told something above."""
    found = {}
    for family in text_string_to_metric_families(used().render().decode()):
        samples = [one for one in family.samples if not one.name.endswith("_created")]
        if not samples and family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert samples, f"{name} is told nothing in `used`"
        labels = {label for one in samples for label in one.labels} - {"le"}
        if not name.endswith("_created"):
            found[name] = (family.type, labels)
    return found


def sample_names() -> set[str]:
    return {one.name for family in text_string_to_metric_families(used().render().decode()) for one in family.samples}


def wrong_words(expression: str) -> set[str]:
    """Metrics of an expression that do not exist, and labels that its metrics do not have."""
    known = families()
    names = set(_METRIC.findall(expression))
    bases = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
    labels = {label for base in bases if base in known for label in known[base][1]} | _MADE_BY_PROMETHEUS
    asked = set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!)", expression))
    asked |= {word for group in re.findall(r"\bby \(([^)]*)\)", expression) for word in re.split(r",\s*", group)}
    return (names - sample_names()) | (asked - labels)


def test_the_check_of_expressions_sees_what_is_wrong() -> None:
    assert not wrong_words('sum by (le, stage) (rate(restore_stage_seconds_bucket{job="x",stage!="y"}[5m]))')
    assert wrong_words("restore_stage_seconds_total") == {"restore_stage_seconds_total"}
    assert wrong_words('restore_stage_seconds_count{status="x"}') == {"status"}
    assert wrong_words("sum by (thread) (restore_stage_seconds_sum)") == {"thread"}


def test_the_table_of_the_documentation_is_that_of_the_code() -> None:
    table = section("observability.md", "Metrics")
    rows = re.findall(r"^\| `(restore_\w+)` \| (\w+) \| ([^|]+) \|([^|]*)\|", table, re.M)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, _, labels in rows}
    assert told == families()
    for name, _, unit, _ in rows:
        if "seconds" in name or "megapixels" in name:
            assert unit in name, (name, unit)


def test_the_dashboard_asks_only_for_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 12
    assert not {expression: wrong for expression in expressions if (wrong := wrong_words(expression))}
    shown = {name for expression in expressions for name in _METRIC.findall(expression)}
    bases = {re.sub(r"_bucket$", "", name) for name in shown}
    assert bases == set(families())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_ask_only_for_metrics_that_exist() -> None:
    text = re.sub(r"^\s*#.*$", "", ALERTS.read_text(encoding="utf-8"), flags=re.M)
    rules = re.split(r"- alert: ", text)[1:]
    assert len(rules) >= 9
    for rule in rules:
        expression = rule.split("expr:", 1)[1].split("labels:", 1)[0].split("for:", 1)[0]
        assert not wrong_words(expression), rule.split("\n", 1)[0]
        assert "description:" in rule


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    return subprocess.run([found, *words], capture_output=True, text=True, timeout=60)


def test_prometheus_accepts_the_alerts() -> None:
    done = promtool("check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_ring_when_they_should_and_only_then(tmp_path: Path) -> None:
    """Photos wait for half an hour while none ends, or nobody tells of an end; beside it a service that works."""
    ended_total = 'restore_attempts_ended_total{{job="neural-image-restore",status="completed"}}'
    series = f"      - {{{{series: '{ended_total}', values: '{{}}'}}}}\n"
    head = f"rule_files: [{ALERTS}]\nevaluation_interval: 1m\ntests:\n"

    def case(ended: str | None, rings: bool) -> str:
        alerts = "[{exp_labels: {severity: critical}, exp_annotations: {summary: Photos wait and none ends, "
        alerts += "description: GET /health/ready of the API servers and `run.py status` give the reasons.}}]"
        return (
            "  - interval: 1m\n    input_series:\n"
            "      - {series: 'restore_queued_attempts{job=\"neural-image-restore\"}', values: '5x40'}\n"
            f"{'' if ended is None else series.format(ended)}"
            "    alert_rule_test:\n      - {eval_time: 30m, alertname: RestoreQueueStands, "
            f"exp_alerts: {alerts if rings else '[]'}}}\n"
        )

    plan = tmp_path / "plan.yml"
    plan.write_text(head + case("7x40", True) + case("0+1x40", False) + case(None, True), encoding="utf-8")
    done = promtool("test", "rules", str(plan))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_of_log_fields_is_that_of_the_code() -> None:
    first_cells = re.findall(r"^\| (`[^|]*) \|", section("observability.md", "Logs"), re.M)
    told = set(re.findall(r"`(\w+)`", "".join(first_cells)))
    bound = set()
    for path in (ROOT / "app").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for call in re.findall(r"logs\.(?:bind|add)\((.*)\)", source):
            bound |= set(re.findall(r"(\w+)=", call))
            if "**facts" in call:
                bound |= set(re.findall(r'"(\w+)":', source.split("facts = {", 1)[1].split("}", 1)[0]))
    assert told == bound
