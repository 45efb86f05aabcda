"""Dead letters get a state, a number of attempts, and may keep the later messages of their key waiting."""

from alembic import op
from ftgo_messaging.upkeep.migrations import DEAD_LETTER_STATES

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in DEAD_LETTER_STATES:
        op.execute(statement)


def downgrade() -> None:
    """Nothing: the columns do no harm to a release that does not know them, and they hold what is to be done."""
