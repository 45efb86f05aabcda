"""A dead letter names where its record stands in one word that every broker can give."""

from alembic import op
from ftgo_messaging.upkeep.migrations import ORIGINS

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in ORIGINS:
        op.execute(statement)


def downgrade() -> None:
    """Nothing: letters of this release have no partition and no position, and a release that does not know origins
    shows them without a place."""
