-- PocketRentals: who is who. Once per server, as superuser. Passwords are set by the caller.

-- Owns every table; nobody logs in as it.
CREATE ROLE appowner NOLOGIN;

-- Runs migrations. As a member of the owner it may drop and truncate: only Reprieve stands in between.
CREATE ROLE agent_migrations LOGIN IN ROLE appowner;

-- Fixes bugs in staging. It has no business in production, and no right to connect there.
CREATE ROLE agent_cursor_staging LOGIN;

-- Copies the whole cluster, and reads all of it to count. It changes nothing.
CREATE ROLE copies LOGIN REPLICATION IN ROLE pg_read_all_data;
