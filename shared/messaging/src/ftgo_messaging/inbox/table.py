"""processed_messages and dead_letters, the two ends that a received message can come to."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, LargeBinary, MetaData, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSON


def processed_messages_table(metadata: MetaData) -> Table:
    """Key = (consumer, message id). The consumer's name is independent of the Kafka group id: a renamed group must
    not repeat effects."""
    return Table(
        "processed_messages",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", Uuid(as_uuid=False), primary_key=True),
        Column("processed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


def dead_letters_table(metadata: MetaData) -> Table:
    """Messages that could not be handled, whole: nothing that Kafka delivered is thrown away."""
    return Table(
        "dead_letters",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("message_id", Text, nullable=True),
        Column("channel", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("key", LargeBinary, nullable=True),
        Column("headers", JSON, nullable=False),
        Column("body", LargeBinary, nullable=True),
        Column("error", Text, nullable=False),
        Column("failed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )
