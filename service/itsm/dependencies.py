"""What the operations of the ITSM API are run with."""

from dataclasses import dataclass

from service.itsm.delivery.queue import Deliveries
from service.outbound import Outbound
from service.watch import WatchDependencies


@dataclass(frozen=True, slots=True, kw_only=True)
class ItsmDependencies(WatchDependencies):
    """What every dialect has whose tickets are watched, and what asks others."""

    # To the accounts' providers.
    deliveries: Deliveries
    # Says which addresses webhooks may have, and connects to them.
    outbound: Outbound
