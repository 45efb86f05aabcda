"""Its tables are those of the library alone."""

from ftgo_messaging import messaging_tables
from sqlalchemy import MetaData

METADATA = MetaData()
messaging_tables(METADATA)
