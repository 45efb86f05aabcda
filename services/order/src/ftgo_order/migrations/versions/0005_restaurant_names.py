"""An order keeps the restaurant's name of its time. Older orders have none."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN IF NOT EXISTS restaurant_name text")


def downgrade() -> None:
    """Nothing: a release that does not know the column writes none."""
