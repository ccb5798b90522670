"""The chart, rendered."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/tickets"
VALUES = ROOT / "tests/deploy/values"
TOOLS = ROOT / ".venv-deploy/bin"
KUBERNETES = "1.34"

Resource = Mapping[str, Any]


def tool(name: str) -> str:
    """A tool that `make test-deploy` installs, or one on the PATH. Without it the test is skipped; in CI it fails."""
    found = shutil.which(name, path=os.pathsep.join((str(TOOLS), os.environ["PATH"])))
    if found is None:
        if "CI" not in os.environ:
            pytest.skip(f"{name} is not installed")
        pytest.fail(f"{name} is not installed: `make test-deploy` installs it, with Go")
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, timeout=300, check=False)


def template(values: str, *options: str, kubernetes: str = KUBERNETES) -> subprocess.CompletedProcess[str]:
    """`helm template` of a release `shop`, with a file of tests/deploy/values."""
    file = str(VALUES / f"{values}.yaml")
    return helm("template", "shop", str(CHART), "-n", "apps", "-f", file, "--kube-version", kubernetes, *options)


@functools.cache
def rendered(values: str, *options: str) -> Sequence[Resource]:
    """The resources."""
    done = template(values, *options)
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def of_kind(resources: Sequence[Resource], kind: str) -> dict[str, Any]:
    """Those of one kind, by name."""
    return {found["metadata"]["name"]: found for found in resources if found["kind"] == kind}


def pods(resources: Sequence[Resource]) -> dict[str, Any]:
    """What each Deployment and each Job makes pods of, by its name."""
    kinds = {**of_kind(resources, "Deployment"), **of_kind(resources, "Job")}
    return {name: found["spec"]["template"] for name, found in kinds.items()}


def containers(resources: Sequence[Resource]) -> Iterator[tuple[str, Any]]:
    """Every container with the name of what it belongs to, those that run first included."""
    for name, pod in pods(resources).items():
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield name, container


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """Its variables: a text, or where the text comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", ())}
