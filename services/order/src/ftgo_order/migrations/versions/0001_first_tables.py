"""The first tables, as they were then: later changes are revisions of their own."""

from alembic import op
from ftgo_messaging.upkeep.migrations import FIRST_TABLES, SAGA_INSTANCES

revision = "0001"
down_revision = None

_TABLES = (
    """
    CREATE TABLE orders (
        id uuid PRIMARY KEY,
        consumer_id uuid NOT NULL,
        restaurant_id uuid NOT NULL,
        state text NOT NULL,
        line_items json NOT NULL,
        order_total numeric(12, 2) NOT NULL,
        delivery_time timestamptz NOT NULL,
        delivery_address json NOT NULL,
        fingerprint text NOT NULL,
        revision json,
        rejection json,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX orders_of_consumer ON orders (consumer_id, id)",
    """
    CREATE TABLE order_history (
        order_id uuid NOT NULL,
        version integer NOT NULL,
        state text NOT NULL,
        at timestamptz NOT NULL,
        rejection json,
        PRIMARY KEY (order_id, version)
    )
    """,
    """
    CREATE TABLE idempotency_keys (
        key text PRIMARY KEY,
        consumer_id uuid NOT NULL,
        fingerprint text NOT NULL,
        order_id uuid NOT NULL,
        order_total numeric(12, 2) NOT NULL,
        at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE consumer_replicas (
        id uuid PRIMARY KEY,
        first_name text NOT NULL,
        last_name text NOT NULL,
        status text NOT NULL,
        version integer NOT NULL
    )
    """,
    """
    CREATE TABLE restaurant_replicas (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        menu json NOT NULL,
        version integer NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in (*FIRST_TABLES, *SAGA_INSTANCES, *_TABLES):
        op.execute(statement)


def downgrade() -> None:
    op.execute(
        "DROP TABLE outbox, relay_lease, processed_messages, dead_letters, saga_instances, "
        "orders, order_history, idempotency_keys, consumer_replicas, restaurant_replicas"
    )
