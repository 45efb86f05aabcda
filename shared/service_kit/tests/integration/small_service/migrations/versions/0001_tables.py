"""The tables of the library."""

from alembic import op
from ftgo_messaging.upkeep.migrations import (
    ANY_RECORD,
    DEAD_LETTER_STATES,
    FIRST_TABLES,
    LANE_LEASES,
    LOG_TAILING,
    ORIGINS,
    RELAY_GENERATIONS,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    changes = (FIRST_TABLES, DEAD_LETTER_STATES, LOG_TAILING, ANY_RECORD, ORIGINS, LANE_LEASES, RELAY_GENERATIONS)
    for statement in (statement for change in changes for statement in change):
        op.execute(statement)
