"""How a serving process makes its database: traced, and with a standby, where the settings say so."""

from contextlib import AsyncExitStack

from sqlalchemy import MetaData

from service import tracing
from service.settings import Settings
from service.storage.database import Database
from service.storage.standby import Standby
from service.storage.traced import TracedDatabase


def open_database(settings: Settings, metadata: MetaData, stack: AsyncExitStack) -> Database:
    """The database of a serving process, which the caller opens; also starts tracing, which the stack ends.

    Raises SettingError.
    """
    tracing.start(settings, stack)
    database = Database(settings, metadata) if tracing.active is None else TracedDatabase(settings, metadata)
    if settings.database_read_url:
        database.standby = Standby(settings, database)
    return database
