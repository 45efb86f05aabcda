"""The first tables, as they were then: later changes are revisions of their own."""

from alembic import op
from ftgo_messaging.upkeep.migrations import FIRST_TABLES

revision = "0001"
down_revision = None

_TABLES = (
    """
    CREATE TABLE restaurants (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        address json NOT NULL,
        menu json NOT NULL,
        version integer NOT NULL
    )
    """,
    """
    CREATE TABLE tickets (
        id uuid PRIMARY KEY,
        restaurant_id uuid,
        state text NOT NULL,
        line_items json NOT NULL,
        before text,
        ready_by timestamptz,
        change text,
        closed json NOT NULL,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX tickets_of_restaurant ON tickets (restaurant_id, id)",
    """
    CREATE TABLE ticket_history (
        ticket_id uuid NOT NULL,
        version integer NOT NULL,
        state text NOT NULL,
        at timestamptz NOT NULL,
        PRIMARY KEY (ticket_id, version)
    )
    """,
)


def upgrade() -> None:
    for statement in (*FIRST_TABLES, *_TABLES):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE outbox, relay_lease, processed_messages, dead_letters, restaurants, tickets, ticket_history")
