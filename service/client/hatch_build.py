"""Adds the generated stubs, which are kept beside the service, to the client's distributions."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface[Any]):
    """Copies gen/python/tickets of the repository; an sdist has its own copy already, in `tickets/`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the stubs, but for an editable install: that finds them by `dev-mode-dirs`."""
        stubs = Path(self.root).parents[1] / "gen/python/tickets"
        if version != "editable" and stubs.is_dir():
            build_data["force_include"][str(stubs)] = "tickets"
