"""The tables of the library."""

from alembic import op
from ftgo_messaging.upkeep.migrations import ANY_RECORD, DEAD_LETTER_STATES, FIRST_TABLES, LOG_TAILING

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in (*FIRST_TABLES, *DEAD_LETTER_STATES, *LOG_TAILING, *ANY_RECORD):
        op.execute(statement)
