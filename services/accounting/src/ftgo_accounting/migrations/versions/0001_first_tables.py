"""The first tables, as they were then: later changes are revisions of their own."""

from alembic import op
from ftgo_messaging.upkeep.migrations import FIRST_TABLES

revision = "0001"
down_revision = None

_TABLES = (
    """
    CREATE TABLE account_entries (
        consumer_id uuid NOT NULL,
        version integer NOT NULL,
        type text NOT NULL,
        amount numeric(12, 2) NOT NULL,
        change numeric(12, 2) NOT NULL,
        order_id uuid,
        at timestamptz NOT NULL,
        PRIMARY KEY (consumer_id, version)
    )
    """,
    """
    CREATE TABLE accounts (
        consumer_id uuid PRIMARY KEY,
        credit_limit numeric(12, 2) NOT NULL,
        authorized numeric(12, 2) NOT NULL,
        state text NOT NULL,
        version integer NOT NULL
    )
    """,
    """
    CREATE TABLE authorizations (
        order_id uuid PRIMARY KEY,
        id uuid NOT NULL,
        consumer_id uuid NOT NULL,
        amount numeric(12, 2) NOT NULL,
        state text NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in (*FIRST_TABLES, *_TABLES):
        op.execute(statement)


def downgrade() -> None:
    op.execute(
        "DROP TABLE outbox, relay_lease, processed_messages, dead_letters, account_entries, accounts, authorizations"
    )
