"""Its tables are those of the library alone."""

from ftgo_messaging.upkeep.tables import messaging_tables
from sqlalchemy import MetaData

METADATA = MetaData()
messaging_tables(METADATA)
