"""An authorization remembers why it was declined, and its revisions."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # Authorizations from before were all granted, and no revision of theirs is remembered. The default for those who
    # have the column already: there was a time when the first revision created whatever was declared that day.
    for name, type_, default in (("declined", "text", "''"), ("revisions", "json", "'[]'")):
        op.execute(f"ALTER TABLE authorizations ADD COLUMN IF NOT EXISTS {name} {type_} NOT NULL DEFAULT {default}")
        op.execute(f"ALTER TABLE authorizations ALTER COLUMN {name} SET DEFAULT {default}")


def downgrade() -> None:
    """Nothing: a release that does not know the columns writes beside them."""
