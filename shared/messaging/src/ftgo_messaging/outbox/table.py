"""The outbox table. Rows are deleted after Kafka acknowledged them, so it stays small.

``position`` orders the rows of one key, because writers of a key hold its aggregate's lock when they take it. It is
*not* a cursor: a lower position may become visible later than a higher one of another key.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSON

SHARDS = 64
"""Keys are hashed to this many shards; each shard has one relay at a time."""


def outbox_table(metadata: MetaData) -> Table:
    return Table(
        "outbox",
        metadata,
        Column("position", BigInteger, Identity(always=True), primary_key=True),
        Column("message_id", Uuid(as_uuid=False), nullable=False),
        Column("channel", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("shard", SmallInteger, nullable=False),
        Column("headers", JSON, nullable=False),
        Column("body", LargeBinary, nullable=False),
    )


# The table lives on inserts and deletes: vacuum by a fixed number of dead rows, never by a share of the table.
OUTBOX_STORAGE = (
    "ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,"
    " autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_cost_delay = 0)"
)


def relay_lease_table(metadata: MetaData) -> Table:
    """Who may publish a group of shards, and since which epoch. The epoch grows with every change of owner."""
    return Table(
        "relay_lease",
        metadata,
        Column("name", Text, primary_key=True),
        Column("owner", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )
