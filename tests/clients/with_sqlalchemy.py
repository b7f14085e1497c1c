"""SQLAlchemy through the gateway: makes tables, looks at them, works with rows."""
import sys
import sqlalchemy as sa
from sqlalchemy import orm


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "alchemy_author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "alchemy_book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("alchemy_author.id"), index=True)
    title: orm.Mapped[str]
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


engine = sa.create_engine(sys.argv[1].replace("postgres://", "postgresql+psycopg://"))
Base.metadata.create_all(engine)
Base.metadata.create_all(engine)  # all there already
look = sa.inspect(engine)
assert {"alchemy_author", "alchemy_book"} <= set(look.get_table_names())
assert [column["name"] for column in look.get_columns("alchemy_book")] == ["id", "author_id", "title"]
assert look.get_foreign_keys("alchemy_book")[0]["referred_table"] == "alchemy_author"
assert look.get_indexes("alchemy_book")[0]["column_names"] == ["author_id"]
with orm.Session(engine) as session:
    session.add(Author(name="Ana", books=[Book(title=f"volume {n}") for n in range(30)]))
    session.commit()
    author = session.scalars(sa.select(Author).options(orm.selectinload(Author.books))).one()
    assert len(author.books) == 30
    author.books[0].title = "changed"
    session.delete(author.books[1])
    session.commit()
    session.add(Author(name="Ana"))
    try:
        session.flush()
    except sa.exc.IntegrityError:
        session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 29
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    connection.execute(sa.text("UPDATE alchemy_book SET title = 'auto' WHERE title = 'changed'"))
with engine.connect() as connection:  # a cursor in the server
    assert len(connection.execution_options(stream_results=True).execute(sa.text("SELECT * FROM alchemy_book")).all()) == 29
try:
    Base.metadata.drop_all(engine)
except sa.exc.DBAPIError as error:
    assert error.orig.sqlstate == "RPH01", error.orig.sqlstate
else:
    raise AssertionError("tables were dropped")
assert sa.inspect(engine).has_table("alchemy_book")
print("all of it works")
