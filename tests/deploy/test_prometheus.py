"""deploy/prometheus: Prometheus takes the rules; each alert is silent while all is well, and fires when it should."""

import subprocess
from pathlib import Path

import pytest
import yaml
from support.chart import tool

pytestmark = pytest.mark.deploy

RULES = Path(__file__).parents[2] / "deploy/prometheus/tickets.rules.yaml"
TESTS = Path(__file__).parent / "alerts.yaml"


def promtool(*arguments: str) -> None:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_each_alert_fires_for_what_it_is_about() -> None:
    promtool("test", "rules", str(TESTS))
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    assert silent == firing == {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
