"""Who reads which lanes, for brokers that do not decide it themselves."""

from alembic import op
from ftgo_messaging.upkeep.migrations import LANE_LEASES

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in LANE_LEASES:
        op.execute(statement)


def downgrade() -> None:
    """Nothing: a release that does not know the tables does not mind."""
