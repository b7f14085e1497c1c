import sqlalchemy as sa
from alembic import op

revision, down_revision = "a1", None


def upgrade():
    op.create_table("customers", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(80), nullable=False),
                    sa.Column("phone", sa.String(30)), sa.Column("born", sa.Date))
    op.create_table("rentals", sa.Column("id", sa.Integer, primary_key=True),
                    sa.Column("customer", sa.Integer, sa.ForeignKey("customers.id"), nullable=False),
                    sa.Column("state", sa.Enum("open", "closed", name="rental_state"), nullable=False),
                    sa.Column("price", sa.Numeric(8, 2)), sa.CheckConstraint("price >= 0", name="not_negative"))
    op.create_index("rentals_customer", "rentals", ["customer"])


def downgrade():
    op.drop_table("rentals")
    op.drop_table("customers")
    sa.Enum(name="rental_state").drop(op.get_bind())
