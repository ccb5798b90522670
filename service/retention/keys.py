"""The idempotency keys of all APIs: those that have expired are deleted, so that their tables stay small."""

from typing import Final

from service.admin.keys import KEYS as OPERATORS
from service.background import Periodic
from service.handoff.keys import KEYS as HANDOFF
from service.helpdesk.keys import KEYS as HELPDESK
from service.helpdesk.keys import SLA_KEYS as SLA
from service.itsm.keys import KEYS as ITSM
from service.storage.database import Database


async def purge(database: Database) -> None:
    """Delete the expired ones, all there are."""
    for keys in (ITSM, HELPDESK, SLA, HANDOFF, OPERATORS):
        await keys.purge(database)


PERIODIC: Final = Periodic("idempotency_keys", 60.0, purge)
