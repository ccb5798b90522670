"""The dependencies of the ITSM API's operations."""

from dataclasses import dataclass

from service.itsm.delivery.queue import Deliveries
from service.outbound import Outbound
from service.watch import WatchDependencies


@dataclass(frozen=True, slots=True, kw_only=True)
class ItsmDependencies(WatchDependencies):
    """Those of a dialect with watches, and those that reach other services."""

    # To the accounts' providers.
    deliveries: Deliveries
    # Checks the addresses of webhooks, and connects to them.
    outbound: Outbound
