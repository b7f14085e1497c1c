//! Functions and settings that the text alone must speak up about.
//!
//! Whatever is in no list is not thereby allowed: functions that no list knows are calls that may do anything, to be
//! measured; [`Catalog`](crate::Catalog) proves reads from a list of harmless ones, never from the absence here.

/// What calling a built-in function (or one of a well-known extension) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hazard {
    /// Cannot be taken back, or reaches outside the transaction.
    Escape,
    /// Runs SQL text that we do not see.
    Runs,
    /// Sends a notification at COMMIT.
    Notifies,
    /// Sets a setting named by its first argument.
    Sets,
    /// Uses what belongs to the session: advisory locks, current values of sequences.
    Session,
    /// Advances a sequence: not undone by a rollback, and meant not to be.
    Sequence,
}

/// Exact names, sorted.
const FUNCTIONS: &[(&str, Hazard)] = &[
    ("currval", Hazard::Session),
    ("cursor_to_xml", Hazard::Runs),
    ("cursor_to_xmlschema", Hazard::Runs),
    ("database_to_xml", Hazard::Runs),
    ("database_to_xml_and_xmlschema", Hazard::Runs),
    ("database_to_xmlschema", Hazard::Runs),
    ("lastval", Hazard::Session),
    ("nextval", Hazard::Sequence),
    ("pg_cancel_backend", Hazard::Escape),
    ("pg_current_logfile", Hazard::Escape),
    ("pg_export_snapshot", Hazard::Session),
    ("pg_extension_config_dump", Hazard::Escape),
    ("pg_import_system_collations", Hazard::Escape),
    ("pg_log_backend_memory_contexts", Hazard::Escape),
    ("pg_log_standby_snapshot", Hazard::Escape),
    ("pg_logical_emit_message", Hazard::Escape),
    ("pg_notify", Hazard::Notifies),
    ("pg_nextoid", Hazard::Escape),
    ("pg_promote", Hazard::Escape),
    ("pg_read_binary_file", Hazard::Escape),
    ("pg_reload_conf", Hazard::Escape),
    ("pg_restore_attribute_stats", Hazard::Escape),
    ("pg_restore_relation_stats", Hazard::Escape),
    ("pg_rotate_logfile", Hazard::Escape),
    ("pg_rotate_logfile_old", Hazard::Escape),
    ("pg_start_backup", Hazard::Escape),
    ("pg_stat_file", Hazard::Escape),
    ("pg_stop_backup", Hazard::Escape),
    ("pg_stop_making_pinned_objects", Hazard::Escape),
    ("pg_switch_wal", Hazard::Escape),
    ("pg_sync_replication_slots", Hazard::Escape),
    ("pg_terminate_backend", Hazard::Escape),
    ("query_to_xml", Hazard::Runs),
    ("query_to_xml_and_xmlschema", Hazard::Runs),
    ("query_to_xmlschema", Hazard::Runs),
    ("schema_to_xml", Hazard::Runs),
    ("schema_to_xml_and_xmlschema", Hazard::Runs),
    ("schema_to_xmlschema", Hazard::Runs),
    ("set_config", Hazard::Sets),
    ("setval", Hazard::Escape),
    ("table_to_xml", Hazard::Runs),
    ("table_to_xml_and_xmlschema", Hazard::Runs),
    ("table_to_xmlschema", Hazard::Runs),
    ("ts_rewrite", Hazard::Runs),
    ("ts_stat", Hazard::Runs),
];

/// Beginnings of names.
const FAMILIES: &[(&str, Hazard)] = &[
    ("binary_upgrade_", Hazard::Escape),
    ("dblink", Hazard::Escape),
    // Rows of `pg_largeobject` are measured, but an import or export reads or writes the server's files.
    ("lo_", Hazard::Escape),
    ("loread", Hazard::Escape),
    ("lowrite", Hazard::Escape),
    ("pg_advisory_", Hazard::Session),
    ("pg_backup_", Hazard::Escape),
    ("pg_clear_", Hazard::Escape),
    ("pg_copy_", Hazard::Escape),
    ("pg_create_", Hazard::Escape),
    ("pg_drop_replication_slot", Hazard::Escape),
    ("pg_file_", Hazard::Escape),
    ("pg_logdir_ls", Hazard::Escape),
    ("pg_logical_slot_", Hazard::Escape),
    ("pg_ls_", Hazard::Escape),
    ("pg_read_file", Hazard::Escape),
    ("pg_replication_", Hazard::Escape),
    ("pg_stat_clear_", Hazard::Escape),
    ("pg_stat_flush_", Hazard::Escape),
    ("pg_stat_force_next_flush", Hazard::Escape),
    ("pg_stat_reset", Hazard::Escape),
    ("pg_stat_statements_reset", Hazard::Escape),
    ("pg_try_advisory_", Hazard::Session),
    ("pg_wal_replay_", Hazard::Escape),
    ("pg_write_", Hazard::Escape),
];

/// Schemas of extensions whose functions act outside the transaction.
const OUTSIDE_SCHEMAS: &[&str] = &["aws_lambda", "aws_s3", "cron", "net"];

/// What calling `name` means. The schema may be anything: an extension's functions can stand in any, and a function of the
/// user's that borrows such a name is better asked about once too often.
pub(crate) fn function_hazard(schema: Option<&str>, name: &str) -> Option<Hazard> {
    if schema.is_some_and(|schema| OUTSIDE_SCHEMAS.contains(&schema)) {
        return Some(Hazard::Escape);
    }
    if let Some((_, hazard)) = FUNCTIONS.iter().find(|(exact, _)| *exact == name) {
        return Some(*hazard);
    }
    FAMILIES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, hazard)| *hazard)
}

/// Settings that change how the gateway reads texts, what the server counts, who the session is, or what it loads.
const BLINDING: &[&str] = &[
    "allow_in_place_tablespaces",
    "allow_system_table_mods",
    "archive_command",
    "archive_library",
    "client_encoding",
    "createrole_self_grant",
    "dynamic_library_path",
    "event_triggers",
    "extension_control_path",
    "ignore_checksum_failure",
    "ignore_system_indexes",
    "jit_provider",
    "lo_compat_privileges",
    "local_preload_libraries",
    "names",
    "role",
    "session_authorization",
    "session_preload_libraries",
    "session_replication_role",
    "standard_conforming_strings",
    "track_activities",
    "track_counts",
    "transform_null_equals",
    "zero_damaged_pages",
];

/// Whether setting `name` to `value` (unknown: `None`) blinds the gateway. The values it works with anyway do not.
pub(crate) fn blinds(name: &str, value: Option<&str>) -> bool {
    // The server compares setting names without regard to case.
    let name = name.to_ascii_lowercase();
    if !BLINDING.contains(&name.as_str()) {
        return false;
    }
    let Some(value) = value.map(str::to_ascii_lowercase) else { return true };
    let usual: &[&str] = match name.as_str() {
        "standard_conforming_strings" | "track_counts" | "track_activities" => &["on", "true", "yes", "1"],
        "client_encoding" | "names" => &["utf8", "utf-8", "unicode"],
        "session_replication_role" => &["origin"],
        "transform_null_equals" => &["off", "false", "no", "0"],
        _ => &[],
    };
    !usual.contains(&value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_by_name_and_family() {
        let check = |schema, name, expected| assert_eq!(function_hazard(schema, name), expected, "{name}");
        check(None, "setval", Some(Hazard::Escape));
        check(Some("pg_catalog"), "pg_read_file", Some(Hazard::Escape));
        check(Some("public"), "dblink_exec", Some(Hazard::Escape));
        check(None, "pg_advisory_xact_lock", Some(Hazard::Session));
        check(None, "pg_try_advisory_lock", Some(Hazard::Session));
        check(Some("cron"), "schedule", Some(Hazard::Escape));
        check(None, "query_to_xml", Some(Hazard::Runs));
        check(None, "lower", None);
    }

    #[test]
    fn settings_blind_unless_set_to_what_the_gateway_works_with() {
        let check = |name, value, expected| assert_eq!(blinds(name, value), expected, "{name}");
        check("standard_conforming_strings", Some("on"), false);
        check("Standard_Conforming_Strings", Some("off"), true);
        check("standard_conforming_strings", None, true);
        check("client_encoding", Some("UTF8"), false);
        check("client_encoding", Some("SJIS"), true);
        check("role", Some("none"), true);
        check("search_path", Some("x"), false);
        check("statement_timeout", None, false);
    }
}
