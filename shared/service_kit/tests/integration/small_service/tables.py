"""Its tables are those of the library alone."""

from ftgo_messaging.inbox.table import dead_letters_table, processed_messages_table
from ftgo_messaging.outbox.table import outbox_table, relay_lease_table, relay_position_table
from sqlalchemy import MetaData

METADATA = MetaData()
outbox_table(METADATA)
relay_lease_table(METADATA)
relay_position_table(METADATA)
processed_messages_table(METADATA)
dead_letters_table(METADATA)
