"""What log tailing needs."""

from alembic import op
from ftgo_messaging.upkeep.migrations import LOG_TAILING

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in LOG_TAILING:
        op.execute(statement)


def downgrade() -> None:
    """Nothing: a release that knows nothing of it does not mind."""
