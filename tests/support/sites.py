"""Pages of other origins than the gateway's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """One server that browsers know by two names, and so as two origins: one that the gateway names, and one not."""

    named: str
    stranger: str
