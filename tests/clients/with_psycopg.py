"""psycopg 3 through the gateway: the table psycopg_items is there and empty."""
import sys
import psycopg

url = sys.argv[1]
with psycopg.connect(url) as connection:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO psycopg_items VALUES (%s, %s)", (1, "one"))
        cursor.executemany("INSERT INTO psycopg_items VALUES (%s, %s)", [(n, f"name {n}") for n in range(2, 12)])
    connection.commit()
    assert connection.execute("SELECT count(*) FROM psycopg_items").fetchone() == (11,)
    for _ in range(10):  # prepared after five
        assert connection.execute("SELECT name FROM psycopg_items WHERE id = %s", (1,), prepare=True).fetchone() == ("one",)
    try:
        with connection.transaction():
            connection.execute("DELETE FROM psycopg_items WHERE id = 1")
            raise KeyError
    except KeyError:
        pass
    with connection.transaction():
        try:
            with connection.transaction():  # a savepoint
                connection.execute("INSERT INTO psycopg_items VALUES (1, 'again')")
        except psycopg.errors.UniqueViolation as error:
            assert error.diag.constraint_name == "psycopg_items_pkey"
        connection.execute("UPDATE psycopg_items SET name = 'ONE' WHERE id = 1")
    assert connection.execute("SELECT name FROM psycopg_items WHERE id = 1").fetchone() == ("ONE",)
    connection.commit()
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(20)]
        connection.execute("UPDATE psycopg_items SET name = 'piped' WHERE id = 2")
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(20))
    connection.commit()
    with connection.cursor().copy("COPY psycopg_items FROM STDIN") as copy:
        for n in range(20, 30):
            copy.write_row((n, f"copied {n}"))
    connection.commit()
    with connection.cursor().copy("COPY (SELECT id FROM psycopg_items ORDER BY id) TO STDOUT") as copy:
        assert len(list(copy.rows())) == 21
    connection.commit()
    with connection.transaction(), connection.cursor(name="server_side") as cursor:
        cursor.itersize = 5
        cursor.execute("SELECT id FROM psycopg_items ORDER BY id")
        assert len(list(cursor)) == 21
with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url, autocommit=True) as speaker:
    listener.execute("LISTEN psycopg_words")
    speaker.execute("SELECT pg_notify('psycopg_words', 'hello')")
    assert next(iter(listener.notifies(timeout=30, stop_after=1))).payload == "hello"
    cursor = speaker.execute("SELECT 1 AS a", binary=True)
    assert cursor.fetchone() == (1,)
    assert listener.info.server_version >= 150000
    try:
        speaker.execute("DROP TABLE psycopg_items")
    except psycopg.Error as error:
        assert error.sqlstate == "RPH01", error.sqlstate
        assert "Silence is not consent" in error.diag.message_hint
    else:
        raise AssertionError("a table was dropped")
    assert speaker.execute("SELECT count(*) FROM psycopg_items").fetchone() == (21,)
print("all of it works")
