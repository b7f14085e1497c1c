//! What one database knows: its relations, and whatever of its users' making a plain SELECT could run unawares.
//!
//! A catalogue is a snapshot, taken by [`CATALOG_QUERY`]. Its proofs hold as long as no definition has changed since; the
//! session that takes it has to notice (the counters on the system catalogs do) and take another.
//!
//! Left out of it: functions, operators and base types in C that are not volatile. Only a superuser makes those, and
//! extensions bring so many (an `=` for every type) that nothing could be proven beside them.

use std::collections::{BTreeMap, HashMap, HashSet};

use reprieve_operation::{Effect, ObjectName};

use crate::{
    builtins,
    statement::{Class, HOLDABLE, Statement},
};

/// One statement for PostgreSQL 15 and later, whose rows [`Catalog::from_rows`] reads: `kind`, `schema`, `name`, `extra`.
pub const CATALOG_QUERY: &str = include_str!("catalog/query.sql");

/// The first object identifier that is not PostgreSQL's own (`FirstNormalObjectId`).
const FIRST_USER_OID: u32 = 16_384;

/// A snapshot of one database's catalogue.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    relations: HashMap<String, Vec<Relation>>,
    names: BTreeMap<u32, ObjectName>,
    user_tables: Vec<(u32, String, f32)>,
    catalogs: Vec<(u32, String)>,
    functions: HashSet<String>,
    /// Functions of the users' that somebody with the right to do so put into `pg_catalog`.
    planted_functions: HashSet<String>,
    operators: HashSet<String>,
    types: HashSet<String>,
    enums: HashSet<String>,
    references: HashMap<u32, Vec<(u32, DeleteAction)>>,
    readers: HashMap<u32, Vec<u32>>,
    parts: HashMap<u32, Vec<u32>>,
    runs_implicitly: bool,
    has_deferrable_triggers: bool,
    max_relation_oid: u32,
    unreadable_rows: usize,
}

/// A relation found by name.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogTable {
    /// Its object identifier.
    pub oid: u32,
    /// Its full name.
    pub name: ObjectName,
    /// Its kind as `pg_class.relkind` spells it: `r`, `p`, `v`, `m`, `S` or `f`.
    pub kind: char,
    /// The planner's estimate of its rows; negative if it was never analysed.
    pub rows_estimate: f32,
    /// Tables whose rows refer to this one's.
    pub dependents: Vec<Reference>,
    /// Views that read it.
    pub readers: Vec<ObjectName>,
    /// Its partitions.
    pub parts: Vec<ObjectName>,
}

/// A foreign key from another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The table that refers.
    pub table: ObjectName,
    /// What happens to its rows when the row they refer to goes.
    pub on_delete: DeleteAction,
}

/// `ON DELETE` of a foreign key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeleteAction {
    /// The delete fails.
    Restrict,
    /// Their rows go too.
    Cascade,
    /// Their columns become null.
    SetNull,
    /// Their columns take their defaults.
    SetDefault,
}

#[derive(Debug, Clone)]
struct Relation {
    oid: u32,
    schema: String,
    kind: char,
    rows_estimate: f32,
    is_quiet: bool,
}

impl Catalog {
    /// Reads the rows of [`CATALOG_QUERY`]. A row that cannot be read keeps every proof from succeeding.
    #[must_use]
    pub fn from_rows(rows: impl Iterator<Item = [Option<String>; 4]>) -> Self {
        let mut catalog = Self::default();
        for row in rows {
            if catalog.add(&row).is_none() {
                catalog.unreadable_rows += 1;
            }
        }
        catalog.user_tables.sort_by_key(|(oid, ..)| *oid);
        catalog.catalogs.sort();
        catalog
    }

    fn add(&mut self, [kind, schema, name, extra]: &[Option<String>; 4]) -> Option<()> {
        let name = name.as_deref();
        match kind.as_deref()? {
            "relation" => self.add_relation(schema.as_deref()?, name?, extra.as_deref()?)?,
            "function" => {
                if schema.as_deref() == Some("pg_catalog") {
                    self.planted_functions.insert(name?.to_owned());
                }
                self.functions.insert(name?.to_owned());
            }
            "operator" => drop(self.operators.insert(name?.to_owned())),
            "type" => drop(self.types.insert(name?.to_owned())),
            "enum" => drop(self.enums.insert(name?.to_owned())),
            "implicit" => self.runs_implicitly = true,
            "deferrable" => self.has_deferrable_triggers = true,
            "reference" => {
                let (from, action) = extra.as_deref()?.split_once(' ')?;
                let action = match action {
                    "a" | "r" => DeleteAction::Restrict,
                    "c" => DeleteAction::Cascade,
                    "n" => DeleteAction::SetNull,
                    "d" => DeleteAction::SetDefault,
                    _ => return None,
                };
                self.references.entry(name?.parse().ok()?).or_default().push((from.parse().ok()?, action));
            }
            "reader" => self.readers.entry(name?.parse().ok()?).or_default().push(extra.as_deref()?.parse().ok()?),
            "part" => self.parts.entry(name?.parse().ok()?).or_default().push(extra.as_deref()?.parse().ok()?),
            "limit" => self.max_relation_oid = name?.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    fn add_relation(&mut self, schema: &str, name: &str, extra: &str) -> Option<()> {
        let mut fields = extra.split(' ');
        let oid: u32 = fields.next()?.parse().ok()?;
        let kind = fields.next()?.chars().next()?;
        let _persistence = fields.next()?;
        let rows_estimate: f32 = fields.next()?.parse().ok()?;
        let mut flag = || match fields.next()? {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        };
        let (row_security, rules, reaches_out) = (flag()?, flag()?, flag()?);
        let is_builtin = oid < FIRST_USER_OID && matches!(schema, "pg_catalog" | "information_schema");
        let is_quiet = match kind {
            'r' | 'p' => !row_security && !rules && !reaches_out,
            'm' | 'S' => true,
            'v' => is_builtin,
            _ => false,
        };
        if matches!(kind, 'r' | 'p') && oid >= FIRST_USER_OID {
            self.user_tables.push((oid, format!("{schema}.{name}"), rows_estimate));
        }
        if kind == 'r' && is_builtin && schema == "pg_catalog" {
            self.catalogs.push((oid, name.to_owned()));
        }
        self.names.insert(oid, ObjectName::qualified(schema, name));
        let relation = Relation { oid, schema: schema.to_owned(), kind, rows_estimate, is_quiet };
        self.relations.entry(name.to_owned()).or_default().push(relation);
        Some(())
    }

    /// Whether `statement` can do nothing but read, whatever the search path: every relation it names is one that runs
    /// nothing when read, and nothing of the users' making has the name of anything it calls, compares or casts with.
    #[must_use]
    pub fn proves_read(&self, statement: &Statement) -> bool {
        statement.class == Class::Read
            && !statement.in_session
            && self.unreadable_rows == 0
            && !self.relations.is_empty()
            && !self.runs_implicitly
            && statement.effects.iter().all(|effect| matches!(effect, Effect::Read { relation } if self.is_quiet(relation)))
            && statement.functions.iter().all(|function| self.is_harmless(function))
            && statement.operators.iter().all(|operator| is_or_is_in_pg_catalog(operator, &self.operators))
            && statement.casts.iter().all(|cast| self.is_known_type(cast))
            && statement.attributes.iter().all(|name| !self.functions.contains(name) && !self.types.contains(name))
    }

    /// Whether `statement` declares a cursor WITH HOLD over a query that can do nothing but read: then it doesn't matter that the query runs
    /// inside COMMIT.
    #[must_use]
    pub fn proves_cursor(&self, statement: &Statement) -> bool {
        let is_hold = |effect: &Effect| matches!(effect, Effect::Escape { what } if what == HOLDABLE);
        let effects = statement.effects.iter().filter(|effect| !is_hold(effect)).cloned().collect();
        statement.holdable && self.proves_read(&Statement { effects, in_session: false, ..statement.clone() })
    }

    /// Whether `statement` adds rows to one table and can do nothing else by its text: it calls nothing, reads nothing, and names only
    /// types that run nothing of the users' making. What the table's own rules and triggers do is not looked at.
    #[must_use]
    pub fn proves_insert(&self, statement: &Statement) -> bool {
        statement.class == Class::Dml
            && !statement.in_session
            && statement.copy.is_none()
            && self.unreadable_rows == 0
            && !self.runs_implicitly
            && matches!(statement.effects.as_slice(), [Effect::Insert { .. }])
            && statement.functions.is_empty()
            && statement.operators.iter().all(|operator| is_or_is_in_pg_catalog(operator, &self.operators))
            && statement.casts.iter().all(|cast| self.is_known_type(cast))
            && statement.attributes.iter().all(|name| !self.functions.contains(name) && !self.types.contains(name))
    }

    fn is_quiet(&self, name: &ObjectName) -> bool {
        let mut found = self.matching(name).peekable();
        found.peek().is_some() && found.all(|relation| relation.is_quiet)
    }

    fn is_harmless(&self, function: &ObjectName) -> bool {
        builtins::is_harmless(&function.name)
            && match function.schema.as_deref() {
                Some("pg_catalog") => !self.planted_functions.contains(&function.name),
                // A function that bears a type's name is a cast.
                None => !self.functions.contains(&function.name) && !self.types.contains(&function.name),
                Some(_) => false,
            }
    }

    /// Built-in types and enumerations run nothing of the users'; domains check, and the others may.
    fn is_known_type(&self, name: &ObjectName) -> bool {
        match name.schema.as_deref() {
            Some("pg_catalog") => true,
            None => !self.types.contains(&name.name),
            Some(_) => self.enums.contains(&name.name) && !self.types.contains(&name.name),
        }
    }

    fn matching<'a>(&'a self, name: &'a ObjectName) -> impl Iterator<Item = &'a Relation> {
        let of_that_name = self.relations.get(&name.name).into_iter().flatten();
        of_that_name.filter(move |relation| name.schema.as_ref().is_none_or(|schema| *schema == relation.schema))
    }

    /// How many relations there are.
    #[must_use]
    pub fn relation_count(&self) -> usize {
        self.names.len()
    }

    /// The users' tables by object identifier: `schema.name`, and the planner's estimate of the rows (negative: never analysed).
    #[must_use]
    pub fn user_tables(&self) -> &[(u32, String, f32)] {
        &self.user_tables
    }

    /// Whether anything may run inside COMMIT: a constraint or trigger that can be deferred.
    #[must_use]
    pub fn has_deferrable_triggers(&self) -> bool {
        self.has_deferrable_triggers
    }

    /// The largest object identifier of any relation, indexes included, when the snapshot was taken.
    #[must_use]
    pub fn max_relation_oid(&self) -> u32 {
        self.max_relation_oid
    }

    /// The system catalogs that are tables, by object identifier.
    #[must_use]
    pub fn catalogs(&self) -> &[(u32, String)] {
        &self.catalogs
    }

    /// Every relation that `name` may mean: in its schema, or in any if it has none.
    #[must_use]
    pub fn find_tables(&self, name: &ObjectName) -> Vec<CatalogTable> {
        self.matching(name)
            .map(|relation| CatalogTable {
                oid: relation.oid,
                name: ObjectName::qualified(&relation.schema, &name.name),
                kind: relation.kind,
                rows_estimate: relation.rows_estimate,
                dependents: self.dependents(relation.oid),
                readers: self.names(self.readers.get(&relation.oid)),
                parts: self.names(self.parts.get(&relation.oid)),
            })
            .collect()
    }

    fn names(&self, oids: Option<&Vec<u32>>) -> Vec<ObjectName> {
        oids.into_iter().flatten().filter_map(|oid| self.names.get(oid).cloned()).collect()
    }

    fn dependents(&self, oid: u32) -> Vec<Reference> {
        let references = self.references.get(&oid).into_iter().flatten();
        references.filter_map(|(from, on_delete)| Some(Reference { table: self.names.get(from)?.clone(), on_delete: *on_delete })).collect()
    }
}

fn is_or_is_in_pg_catalog(operator: &ObjectName, users: &HashSet<String>) -> bool {
    match operator.schema.as_deref() {
        Some("pg_catalog") => true,
        None => !users.contains(&operator.name),
        Some(_) => false,
    }
}
