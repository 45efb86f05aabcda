"""The first tables, as they were then: later changes are revisions of their own."""

from alembic import op
from ftgo_messaging.upkeep.migrations import FIRST_TABLES

revision = "0001"
down_revision = None

_TABLES = (
    """
    CREATE TABLE consumers (
        id uuid PRIMARY KEY,
        first_name text NOT NULL,
        last_name text NOT NULL,
        email text,
        status text NOT NULL,
        order_limit numeric(12, 2) NOT NULL,
        version integer NOT NULL
    )
    """,
    """
    CREATE TABLE outbound_mail (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        consumer_id uuid NOT NULL,
        order_id uuid NOT NULL,
        text text NOT NULL,
        at timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in (*FIRST_TABLES, *_TABLES):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE outbox, relay_lease, processed_messages, dead_letters, consumers, outbound_mail")
