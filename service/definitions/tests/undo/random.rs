//! Random schemas and random changes to them, from few names so that they meet often. A statement that fails is no harm.

/// A small generator of numbers: the same seed gives the same schema and changes.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let place = usize::try_from(self.below(list.len() as u64)).unwrap_or(0);
        list.get(place).copied().unwrap_or_default()
    }

    fn schema(&mut self) -> &'static str {
        self.of(&["a", "a", "a", "\"B c\""])
    }

    fn table(&mut self) -> String {
        let schema = self.schema();
        format!("{schema}.{}", self.of(&["t0", "t1", "t2", "\"T 3\""]))
    }

    fn column(&mut self) -> &'static str {
        self.of(&["id", "c1", "c2", "\"c 3\"", "c4", "\"user\""])
    }

    fn kind(&mut self) -> &'static str {
        self.of(&[
            "int",
            "text",
            "numeric(8,2)",
            "timestamptz",
            "a.e0",
            "a.d0",
            "int[]",
            "varchar(20)",
            "text COLLATE \"C\"",
            "bool",
            "jsonb",
            "a.e0[]",
        ])
    }

    fn role(&mut self) -> &'static str {
        self.of(&["ann", "bob", "PUBLIC"])
    }

    fn cascade(&mut self) -> &'static str {
        self.of(&["", "", " CASCADE"])
    }

    fn value(&mut self) -> &'static str {
        self.of(&["NULL", "1", "'x;--'", "now()", "a.f0(1)", "'{}'"])
    }

    /// What a database starts with.
    pub(crate) fn start(&mut self) -> String {
        let mut sql = String::from(
            "\\set ON_ERROR_STOP off\nCREATE SCHEMA a; CREATE SCHEMA \"B c\"; CREATE TYPE a.e0 AS ENUM ('x', 'y'); CREATE DOMAIN a.d0 AS int CHECK (VALUE < 1000);\n\
             CREATE FUNCTION a.f0(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1';\n\
             CREATE FUNCTION a.g0() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';\n",
        );
        for name in ["a.t0", "a.t1", "a.t2", "a.\"T 3\"", "\"B c\".t0"] {
            sql.push_str(&format!("{};\n", self.create_table(name)));
        }
        for _ in 0..4 + self.below(16) {
            sql.push_str(&format!("{};\n", self.create()));
        }
        for _ in 0..self.below(10) {
            sql.push_str(&format!("{};\n", self.change()));
        }
        sql
    }

    /// One to six changes.
    pub(crate) fn changes(&mut self) -> String {
        let mut sql = String::from("\\set ON_ERROR_STOP off\n");
        for _ in 0..=self.below(6) {
            sql.push_str(&format!("{};\n", self.change()));
        }
        sql
    }

    fn create_table(&mut self, table: &str) -> String {
        let id = self.of(&[
            "int PRIMARY KEY",
            "serial PRIMARY KEY",
            "int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            "bigint NOT NULL",
            "int UNIQUE",
        ]);
        let mut columns = vec![format!("id {id}")];
        for column in ["c1", "c2", "\"c 3\"", "c4", "\"user\""] {
            if self.below(5) > 0 {
                let kind = self.kind();
                let rest = match self.below(8) {
                    0 => " NOT NULL".to_owned(),
                    1 => format!(" DEFAULT {}", self.value()),
                    2 => " UNIQUE".to_owned(),
                    3 => format!(" CHECK ({column} IS NOT NULL)"),
                    _ => String::new(),
                };
                columns.push(format!("{column} {kind}{rest}"));
            }
        }
        if self.below(4) == 0 {
            columns.push("g int GENERATED ALWAYS AS (id * 2) STORED".to_owned());
        }
        let end = match self.below(8) {
            0 => " WITH (fillfactor = 80)".to_owned(),
            1 => format!(" INHERITS ({})", self.table()),
            2 => " PARTITION BY RANGE (id)".to_owned(),
            _ => String::new(),
        };
        format!("CREATE TABLE {table} ({}){end}", columns.join(", "))
    }

    fn create(&mut self) -> String {
        let (table, other, column, second) = (self.table(), self.table(), self.column(), self.column());
        let (schema, number, role) = (self.schema(), self.below(3), self.role());
        match self.below(22) {
            0 | 1 => self.create_table(&table),
            2 => format!("CREATE INDEX i{number} ON {table} ({column}, {second})"),
            3 => format!("CREATE UNIQUE INDEX i{number} ON {table} ({column}) WHERE id > 3"),
            4 => format!("CREATE VIEW {schema}.v{number} AS SELECT * FROM {table}"),
            5 => format!("CREATE VIEW {schema}.v{number} AS SELECT {column} AS x, count(*) AS n FROM {table} GROUP BY {column}"),
            6 => format!(
                "CREATE VIEW {schema}.v{number} AS SELECT t.id, t.{column}, t.{second} FROM {table} t JOIN {other} o ON o.id = t.id GROUP BY t.id"
            ),
            7 => format!(
                "CREATE MATERIALIZED VIEW {schema}.m{number} AS SELECT id, {column} FROM {table}; CREATE INDEX ON {schema}.m{number} (id)"
            ),
            8 => format!("ALTER TABLE {table} ADD CONSTRAINT k{number} FOREIGN KEY ({column}) REFERENCES {other}"),
            9 => format!("ALTER TABLE {table} ADD CONSTRAINT k{number} CHECK ({column} IS NOT NULL OR id > 0)"),
            10 => format!("CREATE TRIGGER r{number} BEFORE UPDATE OF {column} ON {table} FOR EACH ROW EXECUTE FUNCTION a.g0()"),
            11 => format!("CREATE POLICY p{number} ON {table} TO {role} USING ({column} IS NOT NULL)"),
            12 => format!("CREATE RULE u{number} AS ON DELETE TO {table} DO INSTEAD NOTHING"),
            13 => format!("CREATE SEQUENCE {schema}.q{number} OWNED BY {table}.{column}"),
            14 => format!("COMMENT ON COLUMN {table}.{column} IS 'says: \"{number}\"; -- no'"),
            15 => format!("GRANT SELECT, UPDATE ON {table} TO {role}; GRANT SELECT ({column}) ON {table} TO {role}"),
            16 => format!("CREATE TABLE {schema}.part{number} PARTITION OF {table} FOR VALUES FROM ({number}0) TO ({number}9)"),
            17 => format!("CREATE STATISTICS {schema}.s{number} ON {column}, {second} FROM {table}"),
            18 => format!("CREATE FUNCTION {schema}.h{number}(x {table}) RETURNS int LANGUAGE sql AS 'SELECT 1'"),
            19 => format!("CREATE TYPE {schema}.y{number} AS (a {}, b {})", self.kind(), self.kind()),
            20 => format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT {} ON TABLES TO {role}", self.of(&["SELECT", "ALL"])),
            _ => format!("CREATE PUBLICATION pub{number} FOR TABLE {table}"),
        }
    }

    fn change(&mut self) -> String {
        let (table, other, column, second) = (self.table(), self.table(), self.column(), self.column());
        let (schema, number, role, cascade) = (self.schema(), self.below(3), self.role(), self.cascade());
        let name = table.rsplit_once('.').map_or("t0", |(_, name)| name).to_owned();
        let new = self.of(&["t0", "t1", "t2", "\"T 3\"", "n0", "\"select\""]);
        let (kind, value) = (self.kind(), self.value());
        match self.below(64) {
            0..=9 => self.create(),
            10 | 11 => format!("DROP TABLE {table}{cascade}"),
            12 | 13 => format!("ALTER TABLE {table} RENAME TO {new}"),
            14 => format!("ALTER TABLE {table} SET SCHEMA {schema}"),
            15 | 16 => format!("ALTER TABLE {table} RENAME COLUMN {column} TO {second}"),
            17 => format!("ALTER TABLE {table} RENAME COLUMN {column} TO n1"),
            18..=20 => format!("ALTER TABLE {table} ADD COLUMN {column} {kind} DEFAULT {value}"),
            21..=23 => format!("ALTER TABLE {table} DROP COLUMN {column}{cascade}"),
            24 | 25 => format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind} USING NULL"),
            26 => format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint"),
            27 => format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"),
            28 => format!("ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL"),
            29 => format!("ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {value}"),
            30 => format!("ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT"),
            31 => format!("ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS {number}1"),
            32 => format!("ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE {}", self.of(&["EXTERNAL", "MAIN", "PLAIN"])),
            33 => format!("ALTER TABLE {table} SET (fillfactor = {number}5)"),
            34 => format!("ALTER TABLE {table} OWNER TO {role}"),
            35 => format!("ALTER TABLE {table} DROP CONSTRAINT k{number}"),
            36 => format!("ALTER TABLE {table} DROP CONSTRAINT {}{cascade}", format!("{name}_pkey").replace("\"_pkey", "_pkey\"")),
            37 => format!("ALTER TABLE {table} RENAME CONSTRAINT k{number} TO k9"),
            38 => format!("ALTER TABLE {table} RENAME CONSTRAINT {} TO k8", format!("{name}_pkey").replace("\"_pkey", "_pkey\"")),
            39 => format!("DROP INDEX {schema}.i{number}"),
            40 => format!("ALTER INDEX {schema}.i{number} RENAME TO i9"),
            41 => format!("DROP VIEW {schema}.v{number}{cascade}"),
            42 => format!("CREATE OR REPLACE VIEW {schema}.v{number} AS SELECT *, 1 AS one FROM {table}"),
            43 => format!("ALTER VIEW {schema}.v{number} RENAME TO v9"),
            44 => format!("DROP MATERIALIZED VIEW {schema}.m{number}{cascade}"),
            45 => format!("CREATE OR REPLACE FUNCTION a.f0(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + {number}'"),
            46 => format!("DROP FUNCTION a.{}{cascade}", self.of(&["f0", "g0", "h0", "h1", "h2"])),
            47 => format!("DROP TRIGGER r{number} ON {table}"),
            48 => format!("ALTER TABLE {table} DISABLE TRIGGER r{number}"),
            49 => format!("DROP POLICY p{number} ON {table}"),
            50 => format!("ALTER TABLE {table} {} ROW LEVEL SECURITY", self.of(&["ENABLE", "DISABLE", "FORCE", "NO FORCE"])),
            51 => format!("DROP RULE u{number} ON {table}"),
            52 => format!("ALTER SEQUENCE {schema}.q{number} INCREMENT {number}3 CYCLE"),
            53 => format!("DROP SEQUENCE {schema}.q{number}{cascade}"),
            54 => format!("REVOKE {} ON {table} FROM {role}", self.of(&["ALL", "SELECT", "UPDATE"])),
            55 => format!("COMMENT ON TABLE {table} IS 'now'"),
            56 => format!(
                "ALTER TYPE a.e0 {}",
                self.of(&["ADD VALUE 'z'", "ADD VALUE 'w' BEFORE 'x'", "RENAME VALUE 'x' TO 'xx'", "RENAME TO e1"])
            ),
            57 => format!(
                "ALTER DOMAIN a.d0 {}",
                self.of(&[
                    "SET DEFAULT 3",
                    "SET NOT NULL",
                    "ADD CONSTRAINT more CHECK (VALUE > 0)",
                    "DROP CONSTRAINT d0_check",
                    "RENAME TO d1"
                ])
            ),
            58 => format!("DROP TYPE a.{}{cascade}", self.of(&["e0", "d0", "y0", "y1", "y2"])),
            59 => format!("ALTER TABLE {table} {} {other}", self.of(&["INHERIT", "INHERIT", "DETACH PARTITION"])),
            60 => format!("DROP SCHEMA {schema}{cascade}"),
            61 => format!("ALTER SCHEMA {schema} RENAME TO z"),
            62 => format!("DROP TABLE {schema}.part{number}"),
            _ => format!("ALTER TABLE {table} DETACH PARTITION {schema}.part{number}"),
        }
    }
}
