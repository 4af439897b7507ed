"""Packs: the artifacts of a bulk fit, many versions in two files."""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

row_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "packs",
        sa.Column("pack_id", row_number, primary_key=True, autoincrement=True),
        sa.Column("model_digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the file of models."),
        sa.Column("data_digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the file of training data."),
        sa.Column("versions", sa.Integer, nullable=False, comment="Versions in it that are not deleted."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        comment="One row for each batch of a bulk fit, whose artifacts share two files.",
    )
    for column in (
        sa.Column("pack_id", row_number, comment="NULL when its artifacts are files of their own."),
        sa.Column("model_offset", sa.Integer, comment="Of its model in the pack, bytes."),
        sa.Column("model_length", sa.Integer, comment="Bytes."),
        sa.Column("first_row", sa.Integer, comment="Of its training data in the pack."),
    ):
        op.add_column("versions", column)
    op.add_column("changes", sa.Column("others", sa.Text, comment="The other series that changed, a name a line."))
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps no comments
        op.alter_column("changes", "series_id", comment="Empty for a bulk fit, which leaves no file of one series.")
        op.create_table_comment(
            "changes",
            "One row for each transaction that changed what is the latest or behind an alias; followed by replicas.",
        )


def downgrade() -> None:
    op.drop_column("changes", "others")
    for name in ("first_row", "model_length", "model_offset", "pack_id"):
        op.drop_column("versions", name)
    op.drop_table("packs")
