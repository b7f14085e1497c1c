//! Migration tools do their work through the gateway: what adds passes in silence; what destroys is held, succeeds once people agreed,
//! and comes back with every row and definition.
//!
//! Their projects are in `migrations/`; the tools themselves are installed on first use (`tests/src/tools.rs`).

#[path = "migrations/bench.rs"]
mod bench;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use bench::{Yard, program};
use reprieve_tests::tools;

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrations").join(name)
}

/// A tool's command for a site, by its program and its arguments.
type Tool = Box<dyn Fn(&Yard, &str, &[&str]) -> Command>;

/// A program of the Python environment, with a project's folder and the agent's URL.
fn python(name: &str) -> Result<Option<Tool>> {
    let Some(python) = tools::python(Path::new(env!("CARGO_TARGET_TMPDIR")))? else { return Ok(None) };
    let folder = project(name);
    Ok(Some(Box::new(move |yard: &Yard, tool: &str, arguments: &[&str]| {
        let mut command = program(&python.with_file_name(tool));
        command.args(arguments).env("DATABASE_URL", yard.url()).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&folder);
        command
    })))
}

/// A Node program of the installed packages, with a project's folder and the agent's URL.
fn node(name: &str) -> Result<Option<Tool>> {
    let Some(packages) = tools::node(Path::new(env!("CARGO_TARGET_TMPDIR")))? else { return Ok(None) };
    let folder = project(name);
    Ok(Some(Box::new(move |yard: &Yard, tool: &str, arguments: &[&str]| {
        let mut command = program(Path::new("node"));
        let tool = if tool.ends_with(".js") && !tool.contains('/') { folder.join(tool) } else { packages.join("node_modules").join(tool) };
        command.arg(tool).args(arguments).current_dir(&folder);
        // Projects find their packages where these are installed.
        command.env("DATABASE_URL", yard.url()).env("NODE_PATH", packages.join("node_modules"));
        command
    })))
}

const FLEET: &str = "
INSERT INTO fleet_customer (name, email, phone) SELECT 'c' || n, n || '@example.org', '+49 ' || n FROM generate_series(1, 400) n;
INSERT INTO fleet_feature (name) SELECT 'f' || n FROM generate_series(1, 20) n;
INSERT INTO fleet_car (plate, price, notes) SELECT 'P' || n, n + 0.55, '' FROM generate_series(1, 300) n;
INSERT INTO fleet_car_features (car_id, feature_id) SELECT n, 1 + n % 20 FROM generate_series(1, 300) n;
INSERT INTO fleet_rental (car_id, customer_id, begins, note, extra) SELECT 1 + n % 300, 1 + n % 400, '2026-01-01'::timestamptz + n * interval '1 hour', 'note ' || n, '{}' FROM generate_series(1, 3000) n;
INSERT INTO fleet_damage (car_id, text) SELECT 1 + n % 300, 'dent ' || n FROM generate_series(1, 50) n";

#[test]
fn django_adds_in_silence() -> Result<()> {
    let Some(python) = python("django")? else { return Ok(()) };
    let yard = Yard::open("django")?;
    let manage = |arguments: &[&str]| python(&yard, "python", &[&["manage.py"], arguments].concat());
    yard.passes("a fresh database", manage(&["migrate", "fleet", "0001"]))?;
    yard.passes("more columns and tables", manage(&["migrate", "fleet", "0002"]))?;
    yard.passes("nothing to do", manage(&["migrate", "fleet", "0002"]))?;
    yard.fill(FLEET)?;
    yard.passes("what is planned", manage(&["migrate", "--plan"]))?;
    yard.passes("what would be emptied", manage(&["sqlflush"]))?;
    yard.passes("a day's work", manage(&["everyday"]))?;
    yard.silence()
}

/// Each run notes another time in the database, in the transaction that is held at its COMMIT.
#[test]
fn django_loses_rows_by_code() -> Result<()> {
    let Some(python) = python("django")? else { return Ok(()) };
    let yard = Yard::open("django")?;
    let manage = |arguments: &'static [&'static str]| {
        let (python, yard) = (&python, &yard);
        move || python(yard, "python", &[&["manage.py"], arguments].concat())
    };
    yard.passes("what was there", manage(&["migrate", "fleet", "0002"])())?;
    yard.fill(FLEET)?;
    let agreed = yard.is_held_and_comes_back("rows lost by code", manage(&["migrate", "fleet", "0003"]))?;
    ensure!(agreed.runs == 2 && agreed.approved.len() == 1, "one approval is enough: {agreed:?}");
    ensure!(agreed.approved[0].contains("INSERT INTO \"django_migrations\""), "{agreed:?}");
    Ok(())
}

#[test]
#[ignore = "minutes: many runs of Django's, each approved on its own"]
fn django_drops_what_there_was() -> Result<()> {
    let Some(python) = python("django")? else { return Ok(()) };
    let yard = Yard::open("django")?;
    let manage = |arguments: &'static [&'static str]| {
        let (python, yard) = (&python, &yard);
        move || python(yard, "python", &[&["manage.py"], arguments].concat())
    };
    yard.passes("what was there", manage(&["migrate", "fleet", "0002"])())?;
    yard.fill(FLEET)?;
    yard.agree("rows lost by code", manage(&["migrate", "fleet", "0003"]))?;
    for (what, version) in [("two dropped fields", "0004"), ("another type", "0005"), ("dropped models", "0006"), ("other names", "0007")] {
        let migrate = || python(&yard, "python", &["manage.py", "migrate", "fleet", version]);
        yard.is_held_and_comes_back(what, migrate)?;
        yard.agree(what, migrate)?;
    }
    yard.is_held_and_comes_back("back to nothing", manage(&["migrate", "fleet", "zero"]))?;
    Ok(())
}

#[test]
fn alembic() -> Result<()> {
    let Some(python) = python("alembic")? else { return Ok(()) };
    let yard = Yard::open("alembic")?;
    let alembic = |arguments: &'static [&'static str]| {
        let (python, yard) = (&python, &yard);
        move || python(yard, "alembic", arguments)
    };
    yard.passes("the first version", alembic(&["upgrade", "a1"])())?;
    yard.passes("more columns and tables", alembic(&["upgrade", "a2"])())?;
    yard.passes("where it stands", alembic(&["current"])())?;
    yard.fill(
        "INSERT INTO customers (name, phone) SELECT 'c' || n, n::text FROM generate_series(1, 300) n;
         INSERT INTO rentals (customer, state, price, note) SELECT 1 + n % 300, 'open', n + 0.55, 'n' || n FROM generate_series(1, 2000) n;
         INSERT INTO damages (rental, text) SELECT n, 'dent' FROM generate_series(1, 200) n",
    )?;
    yard.silence()?;
    yard.is_held_and_comes_back("a batch of changes", alembic(&["upgrade", "a3"]))?;
    Ok(())
}

#[test]
fn knex() -> Result<()> {
    let Some(node) = node("knex")? else { return Ok(()) };
    let yard = Yard::open("knex")?;
    let knex = |arguments: &'static [&'static str]| {
        let (node, yard) = (&node, &yard);
        move || node(yard, "knex/bin/cli.js", arguments)
    };
    yard.passes("the migrations", knex(&["migrate:latest"])())?;
    yard.passes("what was done", knex(&["migrate:list"])())?;
    yard.fill(
        "INSERT INTO cars (plate, price, colour) SELECT 'P' || n, n, 'red' FROM generate_series(1, 200) n;
         INSERT INTO rentals (car) SELECT 1 + n % 200 FROM generate_series(1, 1000) n; INSERT INTO services (car) VALUES (7)",
    )?;
    yard.passes("nothing to do", knex(&["migrate:latest"])())?;
    yard.silence()
}

#[test]
fn node_pg_migrate() -> Result<()> {
    let Some(node) = node("node-pg-migrate")? else { return Ok(()) };
    let yard = Yard::open("node-pg-migrate")?;
    let migrate = |arguments: &'static [&'static str]| {
        let (node, yard) = (&node, &yard);
        move || node(yard, "node-pg-migrate/bin/node-pg-migrate.js", arguments)
    };
    yard.passes("the migrations", migrate(&["up"])())?;
    yard.fill(
        "INSERT INTO cars (plate, colour) SELECT 'P' || n, 'red' FROM generate_series(1, 200) n;
         INSERT INTO rentals (car) SELECT 1 + n % 200 FROM generate_series(1, 1000) n; INSERT INTO services (car) VALUES (7)",
    )?;
    yard.passes("nothing to do", migrate(&["up"])())?;
    yard.silence()?;
    yard.is_held_and_comes_back("all of it", migrate(&["down", "2"]))?;
    Ok(())
}

#[test]
fn typeorm() -> Result<()> {
    let Some(node) = node("typeorm")? else { return Ok(()) };
    let yard = Yard::open("typeorm")?;
    let typeorm = |arguments: &'static [&'static str]| {
        let (node, yard) = (&node, &yard);
        move || node(yard, "typeorm/cli.js", &[arguments, &["-d", "data-source.js"]].concat())
    };
    yard.passes("the migrations", typeorm(&["migration:run"])())?;
    yard.fill(
        "INSERT INTO car (plate, colour) SELECT 'P' || n, 'red' FROM generate_series(1, 200) n;
         INSERT INTO rental (\"carId\") SELECT 1 + n % 200 FROM generate_series(1, 1000) n",
    )?;
    yard.passes("nothing to do", typeorm(&["migration:run"])())?;
    yard.silence()
}

#[test]
fn sequelize() -> Result<()> {
    let Some(node) = node("sequelize")? else { return Ok(()) };
    let yard = Yard::open("sequelize")?;
    let sync = |arguments: &'static [&'static str]| {
        let (node, yard) = (&node, &yard);
        move || node(yard, "run.js", arguments)
    };
    yard.passes("the tables", sync(&[])())?;
    yard.fill(
        "INSERT INTO cars (plate, state, \"createdAt\", \"updatedAt\") SELECT 'P' || n, 'free', now(), now() FROM generate_series(1, 200) n;
         INSERT INTO rentals (\"carId\", \"createdAt\", \"updatedAt\") SELECT 1 + n % 200, now(), now() FROM generate_series(1, 1000) n",
    )?;
    yard.passes("nothing to do", sync(&[])())?;
    yard.silence()
}

#[test]
fn drizzle() -> Result<()> {
    let Some(node) = node("drizzle")? else { return Ok(()) };
    let yard = Yard::open("drizzle")?;
    let push = |schema: &'static str| {
        let (node, yard) = (&node, &yard);
        move || {
            let mut command = node(yard, "drizzle-kit/bin.cjs", &["push", "--force"]);
            command.env("SCHEMA", schema);
            command
        }
    };
    yard.passes("the first schema", push("first.js")())?;
    yard.fill(
        "INSERT INTO cars (plate, price, sold) SELECT 'P' || n, n, true FROM generate_series(1, 200) n;
         INSERT INTO rentals (car) SELECT 1 + n % 200 FROM generate_series(1, 1000) n",
    )?;
    yard.passes("more columns and tables", push("second.js")())?;
    yard.passes("nothing to do", push("second.js")())?;
    yard.silence()?;
    yard.is_held_and_comes_back("less columns and tables, by force", push("third.js"))?;
    Ok(())
}

#[test]
fn sqlx() -> Result<()> {
    let yard = Yard::open("sqlx")?;
    let folder = tempfile::tempdir()?;
    let add = |part: &str| -> Result<()> {
        for file in std::fs::read_dir(project("sqlx").join(part))? {
            let file = file?;
            std::fs::copy(file.path(), folder.path().join(file.file_name()))?;
        }
        Ok(())
    };
    let migrate = || {
        let mut command = program(Path::new(env!("CARGO_BIN_EXE_sqlx-migrate")));
        command.arg(folder.path()).env("DATABASE_URL", yard.url());
        command
    };
    add("add")?;
    yard.passes("the migrations", migrate())?;
    yard.fill(
        "INSERT INTO cars (plate, price) SELECT 'P' || n, n + 0.5 FROM generate_series(1, 200) n;
         INSERT INTO rentals (car) SELECT 1 + n % 200 FROM generate_series(1, 1000) n; INSERT INTO services (car) VALUES (7)",
    )?;
    yard.passes("nothing to do", migrate())?;
    yard.silence()?;
    add("drop")?;
    yard.is_held_and_comes_back("a reset", migrate)?;
    Ok(())
}
