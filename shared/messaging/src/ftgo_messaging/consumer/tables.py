"""processed_messages and dead_letters, the two ends that a received message can come to, and who reads which lanes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON


def processed_messages_table(metadata: MetaData) -> Table:
    """Key = (consumer, message id). The consumer's name is independent of every name at the broker: a renamed
    group must not repeat effects.

    ``sources`` are those whose message of this id was handled, separated by blanks; more than one is rare. Empty means
    all of them: so does the release write that knows no sources (docs/adr/0009)."""
    return Table(
        "processed_messages",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", Uuid(as_uuid=False), primary_key=True),
        Column("processed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("sources", Text, nullable=False, server_default=""),
    )


def dead_letters_table(metadata: MetaData) -> Table:
    """Messages that could not be handled, whole: nothing that a broker delivered is thrown away.

    ``id`` is the order in which they came. ``state`` is one of ``consumer.letter.State``; ``resolved_at`` is null as
    long as something is to be done. With ``parks_key`` later messages of the key wait here as well. ``origin`` is where
    the record stands at the broker; letters of the previous release have ``partition`` and ``position`` instead, which
    go with the next one."""
    table = Table(
        "dead_letters",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("message_id", Text, nullable=True),
        Column("channel", Text, nullable=False),
        Column("origin", Text, nullable=True),
        Column("partition", Integer, nullable=True),
        Column("position", BigInteger, nullable=True),
        Column("key", LargeBinary, nullable=True),
        Column("headers", JSON, nullable=False),
        Column("body", LargeBinary, nullable=True),
        Column("error", Text, nullable=False),
        Column("failed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("state", Text, nullable=False, server_default="DEAD"),
        Column("attempts", Integer, nullable=False, server_default="1"),
        Column("parks_key", Boolean, nullable=False, server_default=false()),
        Column("resolved_at", DateTime(timezone=True), nullable=True),
    )
    c = table.c
    # The parked keys of a consumer: empty as a rule, and then a look at it costs nothing.
    parked = text("parks_key AND resolved_at IS NULL")
    # By the hash of the key: an entry of an index has 2.7 kB at most, a key may have a megabyte.
    Index("dead_letters_parked", c.consumer, c.channel, func.sha256(c.key), c.id, postgresql_where=parked)
    Index("dead_letters_unresolved", c.consumer, c.state, postgresql_where=c.resolved_at.is_(None))
    Index("dead_letters_to_redrive", c.consumer, c.id, postgresql_where=text("state = 'REDRIVE'"))
    Index("dead_letters_resolved", c.resolved_at, postgresql_where=c.resolved_at.is_not(None))
    Index("dead_letters_by_origin", c.origin)
    Index("dead_letters_origin", c.channel, c.partition, c.position)
    return table


def lane_lease_table(metadata: MetaData) -> Table:
    """Which member of a consumer reads a lane (``CHANNEL/LANE``), and since which epoch; the owner is empty when it was
    given up. It counts as long as the owner's row stands in ``lane_member`` (``consumer.lanes``)."""
    return Table(
        "lane_lease",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("lane", Text, primary_key=True),
        Column("owner", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
    )


def lane_member_table(metadata: MetaData) -> Table:
    """The members of a consumer, and the lanes that each wants to read. A row that ``expires_at`` has passed may be
    deleted by any other member."""
    return Table(
        "lane_member",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("member", Text, primary_key=True),
        Column("wants", ARRAY(Text), nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
    )
