"""Why the detector of a version was taken."""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COMMENT = "JSON object: why its detector was taken; NULL when the user named it."


def upgrade() -> None:
    op.add_column("versions", sa.Column("choice", sa.Text, comment=COMMENT))


def downgrade() -> None:
    op.drop_column("versions", "choice")
