//! Effects: what one operation touches, one touch each.
//!
//! A surface derives them from the request's text before it runs; they are the first opinion. What a change really did
//! is its [`Reach`](crate::Reach).

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

/// The kinds of effect that a token's scope and the policy tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Looks at data and changes nothing.
    Read,
    /// Adds or changes rows, or adds objects.
    Write,
    /// Takes rows, objects or columns away.
    Destroy,
    /// Changes who may do what.
    Grant,
    /// Reaches outside the transaction, or cannot be taken back.
    Escape,
    /// Could not be understood.
    Unknown,
}

impl Kind {
    /// Every kind, mildest first.
    pub const ALL: [Self; 6] = [Self::Read, Self::Write, Self::Destroy, Self::Grant, Self::Escape, Self::Unknown];

    /// The kind in one word, as scopes and policies spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destroy => "destroy",
            Self::Grant => "grant",
            Self::Escape => "escape",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name as the text spelled it, folded as PostgreSQL folds it; the schema only where it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The schema, if the text named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The object.
    pub name: String,
}

impl ObjectName {
    /// A name without a schema.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Self { schema: None, name: name.to_owned() }
    }

    /// A name with its schema.
    #[must_use]
    pub fn qualified(schema: &str, name: &str) -> Self {
        Self { schema: Some(schema.to_owned()), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// What sort of object a definition names: `table`, `view`, `index`, `function`, … in PostgreSQL's own words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectKind(pub String);

impl ObjectKind {
    /// Whether statements of others run or obey it without naming it, or take it for what they knew.
    #[must_use]
    pub fn is_code(&self) -> bool {
        const CODE: [&str; 16] = [
            "function",
            "procedure",
            "routine",
            "aggregate",
            "trigger",
            "event trigger",
            "rule",
            "view",
            "domain",
            "cast",
            "transform",
            "conversion",
            "operator",
            "operator class",
            "operator family",
            "language",
        ];
        CODE.contains(&self.0.as_str())
    }
}

/// How a relation's contents are replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// `TRUNCATE`.
    Truncate,
    /// A column is dropped.
    DropColumn,
    /// A column changes its type.
    ChangeType,
    /// Any other definition change that may lose data or a rule that protects it.
    Alter,
}

/// What makes a call to a service more than its kind says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hazard {
    /// The service keeps nothing that would bring it back.
    Lasting,
    /// The answer hands out a credential.
    Secret,
    /// It runs whatever code the request carries or names.
    Code,
    /// It takes a protection away: against deletion, of backups, versions or logs.
    Unprotects,
    /// It touches all there is of something rather than what it names.
    Every,
    /// It makes another protocol of the connection, and nobody looks into what is said there.
    Channel,
}

impl Hazard {
    /// Every hazard.
    pub const ALL: [Self; 6] = [Self::Lasting, Self::Secret, Self::Code, Self::Unprotects, Self::Every, Self::Channel];

    /// The hazard in one word, as the catalog spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lasting => "lasting",
            Self::Secret => "secret",
            Self::Code => "code",
            Self::Unprotects => "unprotects",
            Self::Every => "every",
            Self::Channel => "channel",
        }
    }
}

/// One touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Rows are looked at.
    Read {
        /// Which relation.
        relation: ObjectName,
    },
    /// Rows are added.
    Insert {
        /// Into which table.
        table: ObjectName,
    },
    /// Rows are changed.
    Update {
        /// In which table.
        table: ObjectName,
        /// Whether a condition restricts the rows.
        bounded: bool,
    },
    /// Rows are removed.
    Delete {
        /// From which table.
        table: ObjectName,
        /// Whether a condition restricts the rows.
        bounded: bool,
    },
    /// An object is made, or changed without losing anything.
    Define {
        /// What sort of object.
        object: ObjectKind,
        /// Its name, empty where it has none.
        name: ObjectName,
    },
    /// An object is taken away.
    Drop {
        /// What sort of object.
        object: ObjectKind,
        /// Its name.
        name: ObjectName,
        /// Whether everything that depends on it goes too.
        cascade: bool,
    },
    /// A relation's contents are replaced as a whole.
    Rewrite {
        /// Which table.
        table: ObjectName,
        /// How.
        how: Rewrite,
        /// Whether tables that refer to it are emptied too.
        cascade: bool,
    },
    /// Privileges, roles, ownership or row security change.
    Grant {
        /// What changes, in words.
        what: String,
    },
    /// A function is called that may do anything.
    Call {
        /// Its name.
        function: ObjectName,
    },
    /// A setting of the session changes.
    Session {
        /// What changes, in words.
        what: String,
    },
    /// Something that a transaction cannot take back, or that reaches outside it.
    Escape {
        /// What, in words.
        what: String,
    },
    /// An operation of a service is called.
    Invoke {
        /// The operation as the catalog names it: `railway:volumeDelete`.
        operation: String,
        /// What it does to what it names.
        kind: Kind,
        /// What it names, `type/id`; none where it concerns the system as a whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        /// What makes it more than its kind.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        hazards: BTreeSet<Hazard>,
    },
    /// The text could not be understood.
    Unknown {
        /// Why not.
        because: String,
    },
}

impl Effect {
    /// The kind that scopes and policies see. A called function is `Read` until it is measured: what it did decides. Defining
    /// code that others' statements run into is `Grant`: it changes what they do. So is a call that hands out a credential or runs
    /// code of its caller's: whoever gets one may do what this gateway does not see. Taking a protection away is `Destroy`, and what is
    /// done in a channel is `Unknown`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Define { object, .. } if object.is_code() => Kind::Grant,
            Self::Read { .. } | Self::Session { .. } | Self::Call { .. } => Kind::Read,
            Self::Insert { .. } | Self::Update { .. } | Self::Define { .. } => Kind::Write,
            Self::Delete { .. } | Self::Drop { .. } | Self::Rewrite { .. } => Kind::Destroy,
            Self::Grant { .. } => Kind::Grant,
            Self::Escape { .. } => Kind::Escape,
            Self::Unknown { .. } => Kind::Unknown,
            Self::Invoke { hazards, .. } if hazards.contains(&Hazard::Channel) => Kind::Unknown,
            Self::Invoke { kind, hazards, .. } => match kind {
                Kind::Grant | Kind::Escape | Kind::Unknown => *kind,
                Kind::Read | Kind::Write | Kind::Destroy if hazards.contains(&Hazard::Secret) || hazards.contains(&Hazard::Code) => {
                    Kind::Grant
                }
                Kind::Read | Kind::Write if hazards.contains(&Hazard::Unprotects) => Kind::Destroy,
                Kind::Read | Kind::Write | Kind::Destroy => *kind,
            },
        }
    }

    /// Whether every row of a table may be touched because nothing restricts it.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        match self {
            Self::Update { bounded, .. } | Self::Delete { bounded, .. } => !bounded,
            Self::Rewrite { .. } | Self::Drop { .. } => true,
            Self::Invoke { hazards, .. } => hazards.contains(&Hazard::Every),
            Self::Read { .. }
            | Self::Insert { .. }
            | Self::Define { .. }
            | Self::Grant { .. }
            | Self::Call { .. }
            | Self::Session { .. }
            | Self::Escape { .. }
            | Self::Unknown { .. } => false,
        }
    }

    /// Whether it makes a channel of the connection.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        matches!(self, Self::Invoke { hazards, .. } if hazards.contains(&Hazard::Channel))
    }

    /// The relation that is touched, where there is one.
    #[must_use]
    pub fn relation(&self) -> Option<&ObjectName> {
        match self {
            Self::Read { relation: name }
            | Self::Insert { table: name }
            | Self::Update { table: name, .. }
            | Self::Delete { table: name, .. }
            | Self::Drop { name, .. }
            | Self::Rewrite { table: name, .. }
            | Self::Define { name, .. } => Some(name),
            Self::Grant { .. }
            | Self::Call { .. }
            | Self::Session { .. }
            | Self::Escape { .. }
            | Self::Invoke { .. }
            | Self::Unknown { .. } => None,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = |bounded: &bool| if *bounded { "rows" } else { "every row" };
        match self {
            Self::Read { relation } => write!(f, "reads `{relation}`"),
            Self::Insert { table } => write!(f, "adds rows to `{table}`"),
            Self::Update { table, bounded } => write!(f, "changes {} of `{table}`", every(bounded)),
            Self::Delete { table, bounded } => write!(f, "deletes {} of `{table}`", every(bounded)),
            Self::Define { object, name } => write!(f, "defines {} `{name}`", object.0),
            Self::Drop { object, name, cascade } => {
                write!(f, "drops {} `{name}`{}", object.0, if *cascade { " and what depends on it" } else { "" })
            }
            Self::Rewrite { table, how, .. } => match how {
                Rewrite::Truncate => write!(f, "empties `{table}`"),
                Rewrite::DropColumn => write!(f, "drops a column of `{table}`"),
                Rewrite::ChangeType => write!(f, "changes a column's type in `{table}`"),
                Rewrite::Alter => write!(f, "alters `{table}`"),
            },
            Self::Grant { what } => write!(f, "changes privileges: {what}"),
            Self::Call { function } => write!(f, "calls `{function}`, which may do anything"),
            Self::Session { what } => write!(f, "changes the session: {what}"),
            Self::Escape { what } => write!(f, "escapes the transaction: {what}"),
            Self::Invoke { operation, kind, resource, hazards } => {
                write!(f, "calls `{operation}` ({kind}")?;
                for hazard in hazards {
                    write!(f, ", {}", hazard.as_str())?;
                }
                f.write_str(")")?;
                resource.as_ref().map_or(Ok(()), |resource| write!(f, " on `{resource}`"))
            }
            Self::Unknown { because } => write!(f, "not understood: {because}"),
        }
    }
}
