//! A bench: databases of a throw-away server, in which something is done and taken back.

use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use reprieve_definitions::{Definitions, Options, Scope, Step, Tools, UndoScript, plan_undo, take};
use reprieve_testkit::{Postgres, PostgresOptions, WalLevel};

/// A server and what runs our futures.
pub(crate) struct Bench {
    pub(crate) server: Postgres,
    tools: Tools,
    runtime: tokio::runtime::Runtime,
    made: AtomicU32,
}

impl Bench {
    pub(crate) fn new() -> Result<Bench> {
        let options = PostgresOptions { wal_level: WalLevel::Logical, ..PostgresOptions::default() };
        let server = Postgres::start_with(&options)?;
        for role in ["ann", "bob"] {
            server.create_role(role, "pw", "")?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Bench { server, tools: Tools::find(15)?, runtime, made: AtomicU32::new(0) })
    }

    /// A new database with this in it.
    pub(crate) fn database(&self, sql: &str) -> Result<String> {
        let name = format!("d{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.server.create_database(&name, "postgres")?;
        self.server.psql(&name, sql)?;
        Ok(name)
    }

    pub(crate) fn drop(&self, database: &str) -> Result<()> {
        self.server.psql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"))?;
        Ok(())
    }

    pub(crate) fn take(&self, database: &str) -> Result<Definitions> {
        Ok(self.runtime.block_on(take(&self.tools, &self.server.superuser_url(database), &Scope::default()))?)
    }

    /// What `pg_dump -s` prints, without the lines that differ by themselves.
    pub(crate) fn dump(&self, database: &str) -> Result<String> {
        let output = Command::new(self.server.binaries().program("pg_dump"))
            .args(["-s", &self.server.superuser_url(database)])
            .output()
            .context("cannot run `pg_dump`")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .map(|line| format!("{line}\n"))
            .collect())
    }

    /// Runs a plan in one transaction.
    pub(crate) fn run(&self, database: &str, script: &UndoScript) -> Result<()> {
        let step = |step: &Step| match &step.or_else {
            None => format!("{};\n", step.sql),
            Some(otherwise) => format!(
                "\\set ON_ERROR_STOP off\nSAVEPOINT step;\n{};\n\\if :ERROR\nROLLBACK TO step;\n\\set ON_ERROR_STOP on\n{otherwise};\n\\endif\n\\set ON_ERROR_STOP on\n",
                step.sql
            ),
        };
        let text: String = script.statements.iter().map(step).collect();
        self.server.psql(database, &format!("BEGIN;\n{text}COMMIT;\n"))?;
        Ok(())
    }

    /// A copy of a database.
    pub(crate) fn copy(&self, of: &str) -> Result<String> {
        let name = format!("d{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {of}"))?;
        Ok(name)
    }

    /// A database to be copied, and what it is.
    pub(crate) fn start(&self, sql: &str) -> Result<Start> {
        let database = self.database(sql)?;
        Ok(Start { before: self.take(&database)?, text: self.dump(&database)?, database })
    }

    /// In a copy of `start`: does `change`, takes it back, and compares with what was before. Returns the plan.
    pub(crate) fn undoes(&self, start: &Start, change: &str) -> Result<UndoScript> {
        let database = self.copy(&start.database)?;
        let result = self.undoes_in(&database, start, change);
        self.drop(&database)?;
        result.with_context(|| format!("undoing: {change}"))
    }

    fn undoes_in(&self, database: &str, start: &Start, change: &str) -> Result<UndoScript> {
        let Start { before, text, .. } = start;
        self.server.psql(database, change).context("the change itself")?;
        let after = self.take(database)?;
        let script = plan_undo(before, &after, &after, Options::default());
        ensure!(script.refusals.is_empty(), "refused: {:?}", script.refusals);
        ensure!(script.conflicts.is_empty(), "conflicts: {:?}", script.conflicts);
        if script.statements.is_empty() && script.needs_data.is_empty() {
            ensure!(self.dump(database)? == *text, "the change was not seen");
            return Ok(script);
        }
        self.run(database, &script).with_context(|| script.to_sql())?;
        let now = self.take(database)?;
        let ordered = script.reordered.is_empty();
        let differences = before.differences(&now, ordered);
        ensure!(differences.is_empty(), "differs:\n{}\nafter:\n{}", differences.join("\n"), script.to_sql());
        let same = self.dump(database)?;
        if ordered && same != *text {
            bail!("the dumps differ:\n{}\nafter:\n{}", first_difference(text, &same), script.to_sql());
        }
        Ok(script)
    }
}

/// A database to be copied; copies keep its objects' oids.
pub(crate) struct Start {
    pub(crate) database: String,
    pub(crate) before: Definitions,
    pub(crate) text: String,
}

/// Does something to each item, a few at a time: most of a case is waiting for programs.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(item));
        }
        done
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

fn first_difference(one: &str, other: &str) -> String {
    let at = one
        .lines()
        .zip(other.lines())
        .position(|(one, other)| one != other)
        .unwrap_or_else(|| one.lines().count().min(other.lines().count()));
    let around = |text: &str| text.lines().skip(at.saturating_sub(6)).take(14).collect::<Vec<_>>().join("\n");
    format!("--- was\n{}\n--- is\n{}", around(one), around(other))
}
