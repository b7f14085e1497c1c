//! The guard as a function in the database: the same questions as the SELECT in `guard.rs`, for a tenth of its cost.
//!
//! An administrator's login installs it (`protect.rs`), and agents' sessions call it by its oid. It is only called while it is, to
//! the letter, what this version would install, and while the agents' role can't change it; whoever reads the catalogue checks that.
//! Its expressions are simple ones of PL/pgSQL, which run without a plan's start: that is where the speed comes from.

use std::collections::BTreeSet;

use crate::wire::Captured;

/// The schema of what is ours in a protected database.
pub(crate) const SCHEMA: &str = "reprieve";

/// The function's name and the types of its arguments.
pub(crate) const SIGNATURE: &str = "reprieve.guard(pg_catalog.int8, pg_catalog.oid, pg_catalog.oid[])";

/// Tables whose counters are summed in one expression; only where the sum is not zero is it asked which of them it was.
const TABLES_A_SUM: usize = 16;

/// Reads the function, whether its surroundings are as they have to be, whether the role that asks can't change it,
/// and whether that role owns it.
pub(crate) const GUARD_FUNCTION: &str = "
SELECT p.oid, p.prosrc, l.lanname OPERATOR(pg_catalog.=) 'plpgsql' AND p.prokind OPERATOR(pg_catalog.=) 'f' AND NOT p.prosecdef AND NOT p.proisstrict AND NOT p.proretset
  AND p.proconfig IS NULL AND p.proallargtypes IS NULL AND p.protrftypes IS NULL AND p.pronargdefaults OPERATOR(pg_catalog.=) 0
  AND p.proargtypes::pg_catalog.text OPERATOR(pg_catalog.=) '20 26 1028' AND p.proargnames OPERATOR(pg_catalog.=) '{ceiling,newest,more}'::pg_catalog.text[]
  AND p.prorettype OPERATOR(pg_catalog.=) 25::pg_catalog.oid AND p.prosupport::pg_catalog.oid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
  AND p.provolatile OPERATOR(pg_catalog.=) 'v',
 NOT (pg_catalog.pg_has_role(p.proowner, 'MEMBER') OR pg_catalog.pg_has_role(n.nspowner, 'MEMBER') OR pg_catalog.pg_has_role(l.lanowner, 'MEMBER')
  OR pg_catalog.has_schema_privilege(n.oid, 'CREATE')
  OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE (r.rolsuper OR r.rolcreaterole) AND pg_catalog.pg_has_role(r.oid, 'MEMBER')))
 AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'),
 pg_catalog.pg_get_userbyid(p.proowner) OPERATOR(pg_catalog.=) current_user
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
 JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE n.nspname OPERATOR(pg_catalog.=) 'reprieve' AND p.proname OPERATOR(pg_catalog.=) 'guard'";

/// What is in the database under the function's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Something that isn't our function, or one that the agents' role could change: it counts as anybody's code.
    Other,
    /// Our function, under this oid.
    Ours(u32),
}

/// The function as it stands in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuardFunction {
    oid: u32,
    /// Tables that it doesn't count by itself, as an array's literal.
    more: String,
}

impl GuardFunction {
    /// Looks at the answer to [`GUARD_FUNCTION`]. `tables` and `catalogs` have to be counted.
    pub(crate) fn read(captured: &Captured, tables: &BTreeSet<u32>, catalogs: &[u32]) -> (Found, Option<Self>) {
        let [row] = captured.rows.as_slice() else {
            return (if captured.rows.is_empty() { Found::Nothing } else { Found::Other }, None);
        };
        let field = |index: usize| row.get(index).and_then(Option::as_deref).unwrap_or_default();
        let (Ok(oid), source, "t", "t") = (field(0).parse(), field(1), field(2), field(3)) else { return (Found::Other, None) };
        match counted_by(source).filter(|counted| body(counted, catalogs) == source) {
            Some(counted) => {
                let more: Vec<String> = tables.iter().filter(|oid| counted.binary_search(oid).is_err()).map(u32::to_string).collect();
                (Found::Ours(oid), Some(Self { oid, more: format!("{{{}}}", more.join(",")) }))
            }
            None => (Found::Other, None),
        }
    }

    /// A call of it.
    pub(crate) fn call(&self, ceiling: u64, newest: Option<u32>) -> GuardCall {
        let ceiling = i64::try_from(ceiling).unwrap_or(i64::MAX);
        GuardCall { oid: self.oid, ceiling: ceiling.to_string(), newest: newest.map(|oid| oid.to_string()), more: self.more.clone() }
    }
}

/// One call of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuardCall {
    pub(crate) oid: u32,
    ceiling: String,
    newest: Option<String>,
    more: String,
}

impl GuardCall {
    /// Its arguments as texts, in order.
    pub(crate) fn arguments(&self) -> [Option<&[u8]>; 3] {
        [Some(self.ceiling.as_bytes()), self.newest.as_deref().map(str::as_bytes), Some(self.more.as_bytes())]
    }

    /// The same as a statement, where a function call would end the client's exchange too early.
    pub(crate) fn statement(&self) -> String {
        let newest = self.newest.as_deref().unwrap_or("NULL");
        format!("SELECT {SCHEMA}.guard({}::pg_catalog.int8, {newest}::pg_catalog.oid, '{}'::pg_catalog.oid[])", self.ceiling, self.more)
    }
}

/// The xid and the counters of what the function answers. `None`: that isn't what it answers.
pub(crate) fn read_answer(answer: &str) -> Option<(Option<u64>, &str)> {
    let (xid, counters) = answer.split_once('|')?;
    match xid {
        "" => Some((None, counters)),
        xid => Some((Some(xid.parse().ok()?), counters)),
    }
}

/// The function's definition, for a database with these tables and system catalogs.
pub(crate) fn definition(tables: &BTreeSet<u32>, catalogs: &[u32]) -> String {
    let tables: Vec<u32> = tables.iter().copied().collect();
    format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.guard(ceiling pg_catalog.int8, newest pg_catalog.oid, more pg_catalog.oid[]) RETURNS pg_catalog.text\n\
         LANGUAGE plpgsql VOLATILE AS $guard${}$guard$",
        body(&tables, catalogs)
    )
}

/// The tables that a body of ours says it counts.
fn counted_by(source: &str) -> Option<Vec<u32>> {
    let line = source.lines().nth(1)?.strip_prefix("-- tables:")?;
    let oids: Vec<u32> = line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    oids.is_sorted().then_some(oids)
}

/// The function's body. Every name in it is qualified, operators too: no search path of an agent's gets between.
///
/// What else is to make it raise (tables whose changes can't be undone, say) becomes one more argument and one more sum here.
fn body(tables: &[u32], catalogs: &[u32]) -> String {
    let listed = tables.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let sums: String = tables.chunks(TABLES_A_SUM).map(table_sum).collect();
    let catalog_sum = sum(&catalogs.iter().flat_map(|oid| counters(&format!("{oid}::pg_catalog.oid"))).collect::<Vec<_>>());
    let catalog_list = catalogs.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let [inserted, updated, deleted] = counters("one");
    let one = format!("{inserted} OPERATOR(pg_catalog.+) {updated} OPERATOR(pg_catalog.+) {deleted}");
    let add_one = format!("counted := pg_catalog.concat(counted, one, ':', {inserted}, ',', {updated}, ',', {deleted}, ' ');");
    format!(
        "
-- tables: {listed}
-- Installed by `reprieve protect --apply`; `--remove` takes it away. Raises when this transaction did more than it may.
DECLARE
  flushed pg_catalog.text;
  part pg_catalog.int8;
  total pg_catalog.int8 := 0;
  beyond pg_catalog.bool := false;
  counted pg_catalog.text := '';
  one pg_catalog.oid;
BEGIN
  flushed := pg_catalog.pg_stat_force_next_flush()::pg_catalog.text;
{sums}  FOREACH one IN ARRAY more LOOP
    part := {one};
    IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
      total := total OPERATOR(pg_catalog.+) part;
      {add_one}
    END IF;
  END LOOP;
  part := {catalog_sum};
  IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
    beyond := true;
    FOREACH one IN ARRAY '{{{catalog_list}}}'::pg_catalog.oid[] LOOP
      part := {one};
      IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
        {add_one}
      END IF;
    END LOOP;
  END IF;
  IF (total OPERATOR(pg_catalog.<=) ceiling) IS NOT TRUE THEN
    beyond := true;
  END IF;
  IF newest IS NOT NULL THEN
    IF (SELECT pg_catalog.max(p.oid) FROM pg_catalog.pg_class p) OPERATOR(pg_catalog.<>) newest THEN
      beyond := true;
    END IF;
  END IF;
  PERFORM FROM pg_catalog.pg_cursor() h WHERE h.is_holdable;
  IF beyond OR FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '22P02', MESSAGE = pg_catalog.concat('reprieve:', counted);
  END IF;
  RETURN pg_catalog.concat(pg_catalog.pg_current_xact_id_if_assigned(), '|', counted);
END
"
    )
}

/// The lines that count some tables.
fn table_sum(tables: &[u32]) -> String {
    let all: Vec<[String; 3]> = tables.iter().map(|oid| counters(&format!("{oid}::pg_catalog.oid"))).collect();
    let each: String = tables
        .iter()
        .zip(&all)
        .map(|(oid, [inserted, updated, deleted])| {
            format!(
                ",\n      CASE WHEN {inserted} OPERATOR(pg_catalog.+) {updated} OPERATOR(pg_catalog.+) {deleted} OPERATOR(pg_catalog.>) 0::pg_catalog.int8\n       \
                 THEN pg_catalog.concat('{oid}:', {inserted}, ',', {updated}, ',', {deleted}, ' ') END"
            )
        })
        .collect();
    let total = sum(&all.concat());
    format!(
        "  part := {total};
  IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
    total := total OPERATOR(pg_catalog.+) part;
    counted := pg_catalog.concat(counted{each});
  END IF;\n"
    )
}

/// The three counters of one table.
fn counters(oid: &str) -> [String; 3] {
    ["inserted", "updated", "deleted"].map(|what| format!("pg_catalog.pg_stat_get_xact_tuples_{what}({oid})"))
}

/// A sum as a balanced tree: hundreds of terms must not become hundreds of levels. Sums of nothing are nothing.
fn sum(terms: &[String]) -> String {
    match terms {
        [] => "0::pg_catalog.int8".to_owned(),
        [one] => one.clone(),
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            format!("({}\n   OPERATOR(pg_catalog.+) {})", sum(left), sum(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(source: String, right: &str, safe: &str) -> Captured {
        let row = ["20001".to_owned(), source, right.to_owned(), safe.to_owned()];
        Captured { rows: vec![row.into_iter().map(Some).collect()], ..Captured::default() }
    }

    #[test]
    fn only_what_would_be_installed_is_called() {
        let tables = BTreeSet::from([16_400, 16_410]);
        let catalogs = [1247, 1259];
        let good = body(&[16_400, 16_410], &catalogs);
        let (found, function) = GuardFunction::read(&installed(good.clone(), "t", "t"), &tables, &catalogs);
        assert_eq!((found, function.map(|function| function.more)), (Found::Ours(20_001), Some("{}".to_owned())));
        // A newer table is counted besides; one that is gone doesn't matter.
        let (_, function) = GuardFunction::read(&installed(good.clone(), "t", "t"), &BTreeSet::from([16_400, 16_500]), &catalogs);
        assert_eq!(function.map(|function| function.more), Some("{16500}".to_owned()));
        for (source, right, safe) in [
            (good.replace("beyond := true", "beyond := false"), "t", "t"),
            (good.replace("-- tables: 16400 16410", "-- tables: 16400 16410 16420"), "t", "t"),
            (body(&[16_400, 16_410], &[1247]), "t", "t"),
            (String::new(), "t", "t"),
            (good.clone(), "f", "t"),
            (good.clone(), "t", "f"),
        ] {
            assert_eq!(GuardFunction::read(&installed(source, right, safe), &tables, &catalogs), (Found::Other, None));
        }
        assert_eq!(GuardFunction::read(&Captured::default(), &tables, &catalogs), (Found::Nothing, None));
    }

    #[test]
    fn answers() {
        assert_eq!(read_answer("77|16400:1,2,3 "), Some((Some(77), "16400:1,2,3 ")));
        assert_eq!(read_answer("|"), Some((None, "")));
        assert_eq!(read_answer("x|"), None);
        assert_eq!(read_answer(""), None);
    }

    #[test]
    fn a_call_is_the_same_both_ways() {
        let function = GuardFunction { oid: 7, more: "{16500}".to_owned() };
        let call = function.call(u64::MAX, Some(16_500));
        assert_eq!(call.arguments(), [Some(&b"9223372036854775807"[..]), Some(b"16500"), Some(b"{16500}")]);
        assert_eq!(
            call.statement(),
            "SELECT reprieve.guard(9223372036854775807::pg_catalog.int8, 16500::pg_catalog.oid, '{16500}'::pg_catalog.oid[])"
        );
    }
}
