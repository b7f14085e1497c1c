import sqlalchemy as sa
from alembic import op

revision, down_revision = "a2", "a1"


def upgrade():
    op.add_column("rentals", sa.Column("note", sa.Text, server_default="", nullable=False))
    op.add_column("customers", sa.Column("active", sa.Boolean, server_default=sa.true(), nullable=False))
    op.create_index("customers_name", "customers", ["name"])
    op.create_table("damages", sa.Column("id", sa.Integer, primary_key=True), sa.Column("rental", sa.Integer, sa.ForeignKey("rentals.id")),
                    sa.Column("text", sa.Text))


def downgrade():
    op.drop_table("damages")
    op.drop_index("customers_name", "customers")
    op.drop_column("customers", "active")
    op.drop_column("rentals", "note")
