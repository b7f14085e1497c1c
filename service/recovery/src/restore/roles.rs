//! Roles that a logical copy names and has not in it: `pg_dump` copies one database, and roles belong to the whole server.
//!
//! Owners and rights are left to whoever restores; but a policy, or a login at a foreign server, can't be made for a role that is not there.

use std::{collections::BTreeSet, time::Duration};

use crate::{Contents, RecoveryError, Source, Tools};

/// A question's longest.
const ASK: Duration = Duration::from_secs(60);

/// The roles that are named, and not there.
pub(crate) fn missing(tools: &Tools, target: &Source, contents: &Contents) -> Result<Vec<String>, RecoveryError> {
    let there: BTreeSet<String> = target.json(tools, "SELECT pg_catalog.json_agg(rolname) FROM pg_catalog.pg_roles", ASK)?;
    let named: BTreeSet<&String> = contents.before.values().chain(contents.after.values()).flat_map(|database| &database.roles).collect();
    Ok(named.into_iter().filter(|role| !there.contains(*role)).cloned().collect())
}

/// Makes them: nobody logs in as one, and they may do nothing but what the copy lets them.
pub(crate) fn create(tools: &Tools, target: &Source, roles: &[String]) -> Result<(), RecoveryError> {
    let sql: String = roles.iter().map(|role| format!("CREATE ROLE \"{}\" NOLOGIN;\n", role.replace('"', "\"\""))).collect();
    if sql.is_empty() { Ok(()) } else { target.sql(tools, &sql, ASK).map(drop) }
}
