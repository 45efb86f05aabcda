"""The outbox table. Rows are deleted when the broker has confirmed them, so it stays small.

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
    text,
)
from sqlalchemy.dialects.postgresql import JSON

SHARDS = 64
"""Keys are hashed to this many shards; each shard has one relay at a time, by a lease."""


def shards_of(index: int, of: int) -> list[int]:
    """The shards of relay ``index`` when ``of`` relays share an outbox: ``index, index + of, index + 2 * of, ...``"""
    if not 0 <= index < of <= SHARDS:
        raise ValueError(f"relay {index} of {of}: the index counts from 0, and there are at most {SHARDS} relays")
    return list(range(index, SHARDS, of))


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
        # It lives on inserts and deletes: vacuum by a fixed number of dead rows, never by a share of the table.
        postgresql_with={
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 2000,
            "autovacuum_vacuum_insert_scale_factor": 0,
            "autovacuum_vacuum_cost_delay": 0,
        },
    )


def relay_lease_table(metadata: MetaData) -> Table:
    """Who may publish a shard, and since which epoch. The epoch grows with every change of owner. ``generation`` says
    by which configuration of brokers it is published (``lease.Lease``).

    A row per shard, not one per group of shards: however a rollout mixes relays of one, two or four groups, a key
    never has two owners."""
    return Table(
        "relay_lease",
        metadata,
        Column("shard", SmallInteger, primary_key=True, autoincrement=False),
        Column("owner", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("generation", BigInteger, nullable=False, server_default=text("0")),
    )


PUBLICATION = "outbox_inserts"
"""What log tailing subscribes to: inserts into the outbox and nothing else, so no table needs a replica identity."""

OUTBOX_PUBLICATION = f"CREATE PUBLICATION {PUBLICATION} FOR TABLE outbox WITH (publish = 'insert')"
"""Once, after the table: a slot must not be older than its publication."""


def relay_position_table(metadata: MetaData) -> Table:
    """Up to which LSN a tailing relay has published the log, kept outside of its slot, and of which server (its system
    identifier): a slot that was lost or made again does not tell."""
    return Table(
        "relay_position",
        metadata,
        Column("slot", Text, primary_key=True),
        Column("server", Text, nullable=False),
        Column("lsn", BigInteger, nullable=False),
    )
