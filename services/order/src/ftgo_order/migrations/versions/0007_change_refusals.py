"""An order and its history keep why the last change was refused."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN IF NOT EXISTS change_refusal json")
    op.execute("ALTER TABLE order_history ADD COLUMN IF NOT EXISTS change_refusal json")


def downgrade() -> None:
    """Nothing: a release that does not know the columns writes none."""
