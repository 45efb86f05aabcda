"""The tables of the library."""

from alembic import op
from ftgo_messaging.outbox.table import OUTBOX_PUBLICATION
from small_service.tables import METADATA

revision = "0001"
down_revision = None


def upgrade() -> None:
    METADATA.create_all(op.get_bind())
    op.execute(OUTBOX_PUBLICATION)
