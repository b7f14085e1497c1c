"""asyncpg through the gateway: the table asyncpg_items is there and empty."""
import asyncio
import datetime
import sys
import asyncpg


async def main(url):
    now = datetime.datetime(2026, 4, 25, tzinfo=datetime.timezone.utc)
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO asyncpg_items VALUES ($1, $2, $3)", 1, "one", now)
    await connection.executemany("INSERT INTO asyncpg_items VALUES ($1, $2, $3)", [(n, f"name {n}", now) for n in range(2, 12)])
    statement = await connection.prepare("SELECT name, at FROM asyncpg_items WHERE id = $1")
    for _ in range(3):
        assert tuple(await statement.fetchrow(1)) == ("one", now)
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM asyncpg_items WHERE id = 1")
            raise KeyError
    except KeyError:
        pass
    async with connection.transaction(isolation="serializable"):
        async with connection.transaction():
            await connection.execute("UPDATE asyncpg_items SET name = 'ONE' WHERE id = 1")
        ids = [row["id"] async for row in connection.cursor("SELECT id FROM asyncpg_items ORDER BY id", prefetch=4)]
        assert ids == list(range(1, 12))
    await connection.copy_records_to_table("asyncpg_items", records=[(n, f"copied {n}", now) for n in range(20, 30)])
    assert await connection.fetchval("SELECT count(*) FROM asyncpg_items") == 21
    assert await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM asyncpg_items WHERE id < 4") == [1, 2, 3]
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("asyncpg_words", lambda *words: heard.done() or heard.set_result(words[-1]))
    other = await asyncpg.connect(url)
    await other.execute("NOTIFY asyncpg_words, 'hello'")
    assert await asyncio.wait_for(heard, 30) == "hello"
    try:
        await other.execute("SELECT pg_sleep(600)", timeout=0.5)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("a timeout did not cancel")
    assert await other.fetchval("SELECT 1") == 1
    try:
        await other.execute("DROP TABLE asyncpg_items")
    except asyncpg.PostgresError as error:
        assert error.sqlstate == "RPH01", error.sqlstate
    else:
        raise AssertionError("a table was dropped")
    await other.close()
    await connection.close()
    async with asyncpg.create_pool(url, min_size=2, max_size=4) as pool:
        assert await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(20))) == list(range(20))
    print("all of it works")


asyncio.run(main(sys.argv[1]))
