"""Old idempotency keys are found by their time."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE INDEX IF NOT EXISTS idempotency_keys_at ON idempotency_keys (at)")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS idempotency_keys_at")
