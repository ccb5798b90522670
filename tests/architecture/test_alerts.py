"""deploy/README.md, Metrics: the page has a paragraph for each alert."""

import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGE = (DEPLOY / "README.md").read_text()
GROUPS = yaml.safe_load((DEPLOY / "prometheus/tickets.rules.yaml").read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


def test_each_alert_has_a_paragraph_that_says_what_to_do() -> None:
    [section] = re.findall(r"^### Alerts\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert re.findall(r"\*\*(\w+)\*\*", section) == [alert["alert"] for alert in ALERTS]


def test_each_alert_says_what_it_saw_and_whom_it_wakes() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("page", "ticket"), alert
        assert alert["annotations"]["summary"], alert
