"""API keys, and which of them made a version."""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
COMMENT = "Rows are never removed and change once, when a key is revoked: their counts tell whether anything is new."
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(12), primary_key=True, comment="Public: the beginning of the key's text."),
        sa.Column("name", NAME, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the key's text."),
        sa.Column("scopes", sa.String(100), nullable=False, comment="With commas between them."),
        sa.Column(
            "series", sa.Text, nullable=False, comment="Globs of the series that it is for, with commas between them."
        ),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("points_per_minute", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        comment=COMMENT,
    )
    comment = "Name of the API key that made it; NULL when none was asked for."
    op.add_column("versions", sa.Column("created_by", NAME, comment=comment))


def downgrade() -> None:
    op.drop_column("versions", "created_by")
    op.drop_table("api_keys")
