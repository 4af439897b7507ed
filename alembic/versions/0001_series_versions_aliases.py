"""Series, their versions and aliases, and the feed of changes."""

import sqlalchemy as sa

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

name = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "series",
        sa.Column("series_id", name, primary_key=True),
        sa.Column("last_version", sa.Integer, nullable=False, comment="Highest number ever given; never given again."),
        sa.Column("latest_version", sa.Integer, comment="Highest version that is not deleted; NULL when all are."),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
    )
    op.create_index(
        "ix_series_trained",
        "series",
        ["series_id"],
        postgresql_where=sa.text("latest_version IS NOT NULL"),
        sqlite_where=sa.text("latest_version IS NOT NULL"),
    )
    op.create_table(
        "versions",
        sa.Column("series_id", name, sa.ForeignKey("series.series_id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("detector", sa.String(50), nullable=False),
        sa.Column("params", sa.Text, nullable=False, comment="JSON object."),
        sa.Column("points", sa.Integer, nullable=False),
        sa.Column("first_timestamp_s", sa.Double, nullable=False),
        sa.Column("last_timestamp_s", sa.Double, nullable=False),
        sa.Column("model_digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the model artifact."),
        sa.Column("data_digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the training data artifact."),
        sa.Column("libraries", sa.Text, nullable=False, comment="JSON object: name to version."),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("deleted_at", moment),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("request_digest", sa.LargeBinary(32), comment="SHA-256 of what came with the idempotency key."),
    )
    op.create_index(
        "uq_versions_idempotency_key",
        "versions",
        ["series_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "aliases",
        sa.Column("series_id", name, primary_key=True),
        sa.Column("name", name, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("revision", sa.String(32), nullable=False, comment="New at each move; the entity tag."),
        sa.Column("updated_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["series_id", "version"], ["versions.series_id", "versions.version"]),
    )
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("series_id", name, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False, comment="1 when versions were deleted, 0 otherwise."),
        sa.Column("changed_at", moment, nullable=False),
        comment="One row for each change of what is the latest or behind an alias, or deleted; followed by replicas.",
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("changes")
    op.drop_table("aliases")
    op.drop_table("versions")
    op.drop_table("series")
