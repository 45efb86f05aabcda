"""The first tables. Later changes are revisions of their own; this one is never edited after a release."""

from alembic import op
from ftgo_consumer.adapters.tables import METADATA
from ftgo_messaging.outbox.table import OUTBOX_STORAGE

revision = "0001"
down_revision = None


def upgrade() -> None:
    METADATA.create_all(op.get_bind())
    op.execute(OUTBOX_STORAGE)


def downgrade() -> None:
    METADATA.drop_all(op.get_bind())
