"""The first tables. Later changes are revisions of their own; this one is never edited after a release."""

from alembic import op
from ftgo_consumer.adapters.tables import METADATA
from ftgo_messaging.outbox.table import OUTBOX_PUBLICATION, OUTBOX_STORAGE, PUBLICATION

revision = "0001"
down_revision = None


def upgrade() -> None:
    METADATA.create_all(op.get_bind())
    op.execute(OUTBOX_STORAGE)
    op.execute(OUTBOX_PUBLICATION)


def downgrade() -> None:
    op.execute(f"DROP PUBLICATION {PUBLICATION}")
    METADATA.drop_all(op.get_bind())
