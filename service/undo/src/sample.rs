//! Samples from the journal: a few rows of what the open transaction changed, for the people who decide on it.
//!
//! The function is called in the agent's session. It shows rows only of tables that the session's own login may read whole, so that it
//! tells an agent nothing new; and what it answers is believed only where that login can't have replaced it.

use reprieve_gate::Sampling;

use crate::journal::Step;

const HEAD: &str = "reprieve.sample(relation pg_catalog.oid, share pg_catalog.float8, most pg_catalog.int4)";

const BODY: &str = "
-- Installed by `reprieve protect --apply`; `--remove` takes it away.
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) sample.relation AND NOT c.relrowsecurity
   AND pg_catalog.has_schema_privilege(session_user, c.relnamespace, 'USAGE') AND pg_catalog.has_table_privilege(session_user, c.oid, 'SELECT')) THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT j.old, j.new FROM reprieve.journal j
   WHERE j.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND j.relation OPERATOR(pg_catalog.=) sample.relation
    AND j.statement OPERATOR(pg_catalog.>) 0::pg_catalog.int8 AND j.old IS NOT NULL AND pg_catalog.length(j.old) OPERATOR(pg_catalog.<) 65536
    AND pg_catalog.random() OPERATOR(pg_catalog.<) sample.share
   LIMIT LEAST(sample.most, 1000);
END;
";

/// What installs it, where it is missing or of another version.
pub(crate) fn step(installed: Option<&str>) -> Option<Step> {
    (installed != Some(BODY)).then(|| Step {
        purpose: "show people a few rows of what they decide on".to_owned(),
        sql: format!(
            "CREATE OR REPLACE FUNCTION {HEAD} RETURNS TABLE (old pg_catalog.text, new pg_catalog.text) LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $keep${BODY}$keep$"
        ),
    })
}

/// How a session asks for up to `most` rows of a relation, of which it takes a share.
pub(crate) fn sampling(relation: u32, share: f64, most: u32) -> Sampling {
    Sampling {
        ready: format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace \
             WHERE n.nspname OPERATOR(pg_catalog.=) 'reprieve' AND f.proname OPERATOR(pg_catalog.=) 'sample' AND f.prosecdef \
             AND f.proargtypes OPERATOR(pg_catalog.=) '26 701 23'::pg_catalog.oidvector AND pg_catalog.md5(f.prosrc) OPERATOR(pg_catalog.=) pg_catalog.md5($sample${BODY}$sample$) \
             AND NOT pg_catalog.pg_has_role(session_user, f.proowner, 'MEMBER'))"
        ),
        rows: format!(
            "SELECT old, new FROM reprieve.sample({relation}::pg_catalog.oid, {share}::pg_catalog.float8, {most}::pg_catalog.int4)"
        ),
    }
}
