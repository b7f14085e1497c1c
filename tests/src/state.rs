//! A database's state: every definition and every row, to be compared before a change and after its undo.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{Site, tools::said};

/// What the database `shop` is, in an order of its own.
#[derive(Debug)]
pub struct State {
    /// Every line of a schema dump, sorted: a column that comes back comes back as the last one of its table.
    pub definitions: Vec<String>,
    /// Of each table how many rows there are, and a digest of all of them by the names of their columns.
    pub rows: Vec<String>,
    /// How far each sequence has counted.
    pub sequences: BTreeMap<String, i64>,
}

impl State {
    /// The state now, but for what is Reprieve's own.
    pub fn of(site: &Site) -> Result<State> {
        let url = site.server.superuser_url("shop");
        let dump = Command::new(site.server.binaries().program("pg_dump"))
            .args(["-s", "--exclude-schema=reprieve", &url])
            .output()
            .context("cannot run `pg_dump`")?;
        ensure!(dump.status.success(), "{}", said(&dump));
        let text = String::from_utf8(dump.stdout)?;
        let tells =
            |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\') && !line.contains("reprieve_keeps");
        let mut definitions: Vec<String> = text.lines().filter(tells).map(|line| line.trim_end_matches([',', ';']).to_owned()).collect();
        definitions.sort_unstable();
        let each = "SELECT pg_catalog.format('SELECT %L, count(*), md5(string_agg(to_jsonb(t)::text, '','' ORDER BY to_jsonb(t)::text)) FROM ONLY %s t', c.oid::regclass, c.oid::regclass) \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE c.relkind = ANY ('{r,m}') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'reprieve') ORDER BY 1\\gexec\n";
        let rows = site.server.psql_at(&url, each)?.lines().map(str::to_owned).collect();
        let positions =
            "SELECT schemaname || '.' || sequencename, COALESCE(last_value, 0) FROM pg_sequences WHERE schemaname <> 'reprieve'";
        let sequences = site
            .server
            .psql_at(&url, positions)?
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(name, at)| Ok((name.to_owned(), at.parse()?)))
            .collect::<Result<_>>()?;
        Ok(State { definitions, rows, sequences })
    }

    /// Whether definitions and rows are the same.
    pub fn is_same(&self, other: &State) -> bool {
        self.definitions == other.definitions && self.rows == other.rows
    }

    /// An error that tells what is not as it was `before`. Sequences may have counted on: that is no part of a transaction.
    pub fn is_as_before(&self, before: &State) -> Result<()> {
        let only = |one: &[String], other: &[String]| {
            one.iter().filter(|line| !other.contains(line)).take(12).cloned().collect::<Vec<String>>().join("\n  ")
        };
        for (kind, was, is) in [("definitions", &before.definitions, &self.definitions), ("rows", &before.rows, &self.rows)] {
            ensure!(was == is, "{kind} differ after the undo\nmissing:\n  {}\nadded:\n  {}", only(was, is), only(is, was));
        }
        for (sequence, at) in &before.sequences {
            let is = self.sequences.get(sequence).with_context(|| format!("`{sequence}` is gone"))?;
            ensure!(is >= at, "`{sequence}` stands at {is} and not at {at}");
        }
        Ok(())
    }
}
