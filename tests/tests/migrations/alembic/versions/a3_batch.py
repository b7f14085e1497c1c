import sqlalchemy as sa
from alembic import op

revision, down_revision = "a3", "a2"


def upgrade():
    # As it is done where a table can't be altered: a copy is filled, and takes the place of the table.
    with op.batch_alter_table("damages", recreate="always") as batch:
        batch.alter_column("text", type_=sa.String(200))
    with op.batch_alter_table("rentals") as batch:
        batch.alter_column("price", type_=sa.Integer)
        batch.drop_constraint("not_negative")
        batch.drop_column("note")


def downgrade():
    pass
