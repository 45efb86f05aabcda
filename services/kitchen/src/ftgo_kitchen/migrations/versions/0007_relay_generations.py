"""By which configuration of brokers a shard of the outbox is published."""

from alembic import op
from ftgo_messaging.upkeep.migrations import RELAY_GENERATIONS

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for statement in RELAY_GENERATIONS:
        op.execute(statement)


def downgrade() -> None:
    """Nothing: a release that does not know the column does not mind."""
