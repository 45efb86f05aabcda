"""Nothing that a record holds makes its dead letter impossible, and a message id counts together with its source."""

from alembic import op
from ftgo_messaging.upkeep.migrations import ANY_RECORD

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in ANY_RECORD:
        op.execute(statement)


def downgrade() -> None:
    """Nothing: the index and the column do no harm to a release that does not know them."""
