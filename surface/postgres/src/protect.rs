//! Setting a database up for Reprieve, and taking all of that away again: a plan to be read, then one transaction.
//!
//! An administrator's login does it, never an agent's: what is installed here must be out of the agents' reach. What the guard that is
//! installed does is in `guard_function.rs`; what a database allows is looked at in `check.rs`.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    connect::{ConnectError, connect},
    duplex::{Duplex, Stream},
    guard::{CATALOGS, LOUD, RELATIONS, Snapshot, TRIGGERS},
    guard_function::{GUARD_FUNCTION, SCHEMA, SIGNATURE, definition},
    target::Target,
    wire::{Captured, Gone, Wire},
};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// Install what is missing or old.
    Apply,
    /// Take away everything that was installed.
    Remove,
}

/// What would be done in one transaction, statement by statement. None: nothing is left to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it is for, in words.
    pub purpose: String,
    /// The statement.
    pub sql: String,
}

/// Why a database can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    /// A login failed.
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    /// The connection was lost; what was not committed is rolled back.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server refused a step; nothing was changed.
    #[error("the server refused to {purpose}: {reason}")]
    Refused {
        /// What the step was for.
        purpose: String,
        /// The server's words.
        reason: String,
    },
    /// The two logins don't lead to the same database.
    #[error("`admin` leads to another database than `url`")]
    OtherDatabase,
    /// The agents' role could change what is installed.
    #[error("agents log in as `{agents}`, which can change what `{admin}` installs: {because}; set `admin` to a login out of their reach")]
    WithinReach {
        /// The agents' role.
        agents: String,
        /// The administrator's role.
        admin: String,
        /// How.
        because: String,
    },
    /// A schema of our name belongs to somebody else.
    #[error("the schema `reprieve` exists and belongs to `{owner}`; rename or drop it first")]
    Foreign {
        /// Whose it is.
        owner: String,
    },
    /// The answer was not as expected.
    #[error("the server's answer about {0} was not understood")]
    Answer(&'static str),
}

impl From<Gone> for ProtectError {
    fn from(gone: Gone) -> Self {
        Self::Lost(gone.to_string())
    }
}

/// What the administrator's login finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Present {
    /// The owner of our schema, where there is one, and whether that is this very login: somebody else's
    /// may be an agent's, even if a superuser may act for it.
    schema: Option<(String, bool)>,
    /// Whether everybody may look names up in it.
    everybody_looks: bool,
    /// Who has any other right on it, as SQL spells them.
    others: Vec<String>,
    /// The function's source, and whether everything else about it is right and its owner this login.
    function: Option<(String, bool)>,
    tables: BTreeSet<u32>,
    catalogs: Vec<u32>,
}

/// Who the two logins are. The administrator's questions about the agents' role go by its name.
const IDENTITY: &str = "SELECT current_user, pg_catalog.concat_ws(' ', d.oid, d.datname, pg_catalog.pg_postmaster_start_time()) \
 FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

/// Rights on our schema that anybody needs: to look names up in it, and nothing else.
const SCHEMA_STATE: &str = "SELECT pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.pg_get_userbyid(n.nspowner) OPERATOR(pg_catalog.=) current_user, \
 EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND a.privilege_type OPERATOR(pg_catalog.=) 'USAGE'), \
 (SELECT pg_catalog.string_agg(DISTINCT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' \
   ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text) END, E'\\n') \
  FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee OPERATOR(pg_catalog.<>) n.nspowner \
   AND NOT (a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND a.privilege_type OPERATOR(pg_catalog.=) 'USAGE')) \
 FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'reprieve'";

/// Looks at a database through both logins and says what would be done.
pub async fn plan(agents: &Target, admin: &Target, aim: Aim) -> Result<Plan, ProtectError> {
    let (mut wire, role) = enter(admin).await?;
    match aim {
        Aim::Apply => {
            let (mut other, agents_role) = enter(agents).await?;
            if identity(&mut other).await? != identity(&mut wire).await? {
                return Err(ProtectError::OtherDatabase);
            }
            out_of_reach(&mut wire, &role, &agents_role).await?;
            planned(&present(&mut wire).await?, aim)
        }
        Aim::Remove => planned(&present(&mut wire).await?, aim),
    }
}

/// Carries a plan out, in one transaction: all of it, or nothing.
pub async fn carry_out(admin: &Target, plan: &Plan) -> Result<(), ProtectError> {
    let (mut wire, _) = enter(admin).await?;
    let frame = |text: &str| Step { purpose: "change anything in one transaction".to_owned(), sql: text.to_owned() };
    let (begin, commit) = (frame("BEGIN"), frame("COMMIT"));
    for step in std::iter::once(&begin).chain(&plan.steps).chain(std::iter::once(&commit)) {
        let answer = wire.ask(&step.sql).await?;
        if let Some(error) = answer.error {
            // The connection is closed with us, and so is its transaction.
            let reason = error.message().unwrap_or("no reason given").to_owned();
            return Err(ProtectError::Refused { purpose: step.purpose.clone(), reason });
        }
    }
    Ok(())
}

/// The steps from what is there to what is wanted.
fn planned(present: &Present, aim: Aim) -> Result<Plan, ProtectError> {
    let mut steps = Vec::new();
    let mut step = |purpose: &str, sql: String| steps.push(Step { purpose: purpose.to_owned(), sql });
    if let Some((owner, false)) = &present.schema {
        return Err(ProtectError::Foreign { owner: owner.clone() });
    }
    match aim {
        Aim::Apply => {
            if present.schema.is_none() {
                step("make a schema of our own", format!("CREATE SCHEMA {SCHEMA}"));
            }
            for other in &present.others {
                step("let nobody else make anything in it", format!("REVOKE ALL ON SCHEMA {SCHEMA} FROM {other} CASCADE"));
            }
            if !present.everybody_looks || present.others.iter().any(|other| other == "PUBLIC") {
                step("let everybody call what is in it", format!("GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC"));
            }
            let wanted = definition(&present.tables, &present.catalogs);
            let is_wanted = |(source, right): &(String, bool)| *right && wanted.ends_with(&format!("$guard${source}$guard$"));
            if !present.function.as_ref().is_some_and(is_wanted) {
                if matches!(present.function, Some((_, false))) {
                    step("take away a guard of another form", drop_guard());
                }
                let purpose = format!("install the guard over {} tables and {} catalogs", present.tables.len(), present.catalogs.len());
                step(&purpose, wanted);
                step("let everybody be measured by it", format!("GRANT EXECUTE ON FUNCTION {SIGNATURE} TO PUBLIC"));
            }
        }
        Aim::Remove => {
            if present.function.is_some() {
                step("take the guard away", drop_guard());
            }
            if present.schema.is_some() {
                // Without CASCADE: what somebody else keeps in there is not ours to drop.
                step("take our schema away", format!("DROP SCHEMA {SCHEMA}"));
            }
        }
    }
    Ok(Plan { steps })
}

/// By its name alone: whatever form it has.
fn drop_guard() -> String {
    format!("DROP ROUTINE {SCHEMA}.guard")
}

async fn enter(target: &Target) -> Result<(Wire, String), ProtectError> {
    let parameters = vec![("application_name".to_owned(), "reprieve: protect".to_owned())];
    let connected = connect(target, &parameters, crate::nonce()).await?;
    let mut wire = Wire::new(Duplex::new(Stream::Nobody), connected.stream, reprieve_pgwire::Limits::default());
    let role = text(&wire.ask(IDENTITY).await?, 0).ok_or(ProtectError::Answer("the login's role"))?;
    Ok((wire, role))
}

async fn identity(wire: &mut Wire) -> Result<String, ProtectError> {
    text(&wire.ask(IDENTITY).await?, 1).ok_or(ProtectError::Answer("the database"))
}

/// The agents' role must not be able to become the administrator's, or to make itself able to.
async fn out_of_reach(wire: &mut Wire, admin: &str, agents: &str) -> Result<(), ProtectError> {
    let name = agents.replace('\'', "''");
    let within =
        |because: &str| ProtectError::WithinReach { agents: agents.to_owned(), admin: admin.to_owned(), because: because.to_owned() };
    for (because, question) in [
        ("it is a member of that role, or a superuser", format!("pg_catalog.pg_has_role('{name}', current_user, 'MEMBER')")),
        (
            "it may give itself roles",
            format!(
                "EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE (r.rolsuper OR r.rolcreaterole) AND pg_catalog.pg_has_role('{name}', r.oid, 'MEMBER'))"
            ),
        ),
    ] {
        match text(&wire.ask(&format!("SELECT {question}")).await?, 0).as_deref() {
            Some("f") => {}
            Some("t") => return Err(within(because)),
            _ => return Err(ProtectError::Answer("the agents' role")),
        }
    }
    Ok(())
}

async fn present(wire: &mut Wire) -> Result<Present, ProtectError> {
    let schema = wire.ask(SCHEMA_STATE).await?;
    let (relations, catalogs) = (wire.ask(RELATIONS).await?, wire.ask(CATALOGS).await?);
    let (triggers, loud) = (wire.ask(TRIGGERS).await?, wire.ask(LOUD).await?);
    let function = wire.ask(GUARD_FUNCTION).await?;
    let snapshot = Snapshot::read([&relations, &catalogs, &triggers, &loud, &function]).ok_or(ProtectError::Answer("the catalogue"))?;
    if schema.error.is_some() {
        return Err(ProtectError::Answer("our schema"));
    }
    Ok(Present {
        schema: text(&schema, 0).map(|owner| (owner, text(&schema, 1).as_deref() == Some("t"))),
        everybody_looks: text(&schema, 2).as_deref() == Some("t"),
        others: text(&schema, 3).map(|names| names.lines().map(str::to_owned).collect()).unwrap_or_default(),
        function: text(&function, 1).map(|source| {
            let holds = |index| text(&function, index).as_deref() == Some("t");
            (source, holds(2) && holds(4))
        }),
        // Above what is listed the gateway measures the long way, and never calls it.
        tables: snapshot.counted().cloned().unwrap_or_default(),
        catalogs: snapshot.catalog_oids(),
    })
}

fn text(captured: &Captured, index: usize) -> Option<String> {
    captured.rows.first()?.get(index)?.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purposes(present: &Present, aim: Aim) -> Vec<String> {
        planned(present, aim).expect("a plan").steps.into_iter().map(|step| step.purpose).collect()
    }

    fn installed(present: &Present) -> Present {
        let definition = definition(&present.tables, &present.catalogs);
        let source = definition.split("$guard$").nth(1).expect("a body").to_owned();
        Present { schema: Some(("dba".to_owned(), true)), everybody_looks: true, function: Some((source, true)), ..present.clone() }
    }

    #[test]
    fn a_plan_ends_where_nothing_is_left_to_do() {
        let fresh = Present { tables: BTreeSet::from([16_400]), catalogs: vec![1259], ..Present::default() };
        assert_eq!(purposes(&fresh, Aim::Apply).len(), 4);
        assert!(purposes(&fresh, Aim::Remove).is_empty());
        let done = installed(&fresh);
        assert!(purposes(&done, Aim::Apply).is_empty());
        assert_eq!(purposes(&done, Aim::Remove), ["take the guard away", "take our schema away"]);
        let newer = Present { tables: BTreeSet::from([16_400, 16_500]), ..done.clone() };
        assert_eq!(purposes(&newer, Aim::Apply), ["install the guard over 2 tables and 1 catalogs", "let everybody be measured by it"]);
        let granted = Present { others: vec!["mallory".to_owned()], ..done.clone() };
        assert_eq!(purposes(&granted, Aim::Apply), ["let nobody else make anything in it"]);
        let other_form = Present { function: done.function.clone().map(|(source, _)| (source, false)), ..done };
        assert_eq!(purposes(&other_form, Aim::Apply).first().map(String::as_str), Some("take away a guard of another form"));
    }

    #[test]
    fn a_schema_of_somebody_else_is_left_alone() {
        let present = Present { schema: Some(("mallory".to_owned(), false)), ..Present::default() };
        for aim in [Aim::Apply, Aim::Remove] {
            assert!(matches!(planned(&present, aim), Err(ProtectError::Foreign { owner }) if owner == "mallory"));
        }
    }

    /// What is installed is reviewed as a text: `UPDATE_GOLDEN=1` writes it anew.
    #[test]
    fn the_plan_of_a_small_database_is_the_golden_one() {
        let present = Present { tables: BTreeSet::from([16_400, 16_410]), catalogs: vec![1247, 1259], ..Present::default() };
        let plan = planned(&present, Aim::Apply).expect("a plan");
        let text: String = plan.steps.iter().map(|step| format!("-- {}\n{};\n\n", step.purpose, step.sql)).collect();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/protect.sql");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).expect("writable");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text);
    }
}
