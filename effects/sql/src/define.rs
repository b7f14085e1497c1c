//! Definitions and privileges: CREATE, ALTER, DROP, GRANT and their relatives.
//!
//! CREATE FOREIGN TABLE has no node in the parser crate, so that it ends as a statement not understood: closed, as it should be.

use pg_raw_parse::{Node, nodes, raw};
use reprieve_operation::{Effect, ObjectKind, ObjectName, Rewrite};

use crate::{
    names::{list_name, object_name, relation_name, some_relation_name, strings_name},
    statement::Class,
    utility::Reading,
    walk::{Found, is_temporary},
};

/// Reads a definition into `reading`; what is none of them is an unknown effect.
pub(crate) fn read(reading: &mut Reading, statement: Node<'_>) {
    reading.class = Class::Block;
    reading.returns_rows = false;
    match statement {
        Node::CreateStmt(create) => {
            reading.define("table", some_relation_name(create.relation()));
            reading.found.in_session |= create.relation().is_some_and(is_temporary);
            expressions(reading, create.table_elts().iter());
            expressions(reading, create.partspec().map(Node::from).into_iter());
        }
        Node::ViewStmt(create) => {
            reading.define("view", some_relation_name(create.view()));
            reading.found.in_session |= create.view().is_some_and(is_temporary);
            expressions(reading, std::iter::once(create.query()));
        }
        Node::IndexStmt(create) => {
            let name = ObjectName {
                schema: create.relation().and_then(nodes::RangeVar::schemaname).map(str::to_owned),
                name: create.idxname().unwrap_or_default().to_owned(),
            };
            reading.define("index", name);
            expressions(reading, create.index_params().iter().map(Node::from).chain(std::iter::once(create.where_clause())));
            if create.concurrent {
                reading.unwrapped("CREATE INDEX CONCURRENTLY");
            }
        }
        Node::CreateSeqStmt(create) => {
            reading.define("sequence", some_relation_name(create.sequence()));
            reading.found.in_session |= create.sequence().is_some_and(is_temporary);
        }
        Node::AlterSeqStmt(alter) => rewrite(reading, some_relation_name(alter.sequence()), Rewrite::Alter, false),
        Node::CreateFunctionStmt(create) => {
            reading.define(if create.is_procedure { "procedure" } else { "function" }, list_name(create.funcname()));
        }
        Node::AlterFunctionStmt(alter) => {
            let name = alter.func().map_or_else(|| ObjectName::bare(""), |object| list_name(object.objname()));
            reading.define(kind_word(alter.objtype), name);
        }
        Node::CreateTrigStmt(create) => reading.define("trigger", ObjectName::bare(create.trigname().unwrap_or_default())),
        Node::RuleStmt(create) => reading.define("rule", ObjectName::bare(create.rulename().unwrap_or_default())),
        Node::CompositeTypeStmt(create) => reading.define("type", some_relation_name(create.typevar())),
        Node::CreateEnumStmt(create) => reading.define("type", strings_name(create.type_name())),
        Node::CreateRangeStmt(create) => reading.define("type", strings_name(create.type_name())),
        Node::AlterEnumStmt(alter) => reading.define("type", strings_name(alter.type_name())),
        Node::CreateDomainStmt(create) => reading.define("domain", strings_name(create.domainname())),
        Node::AlterDomainStmt(alter) => rewrite(reading, list_name(alter.type_name()), Rewrite::Alter, is_cascade(alter.behavior)),
        Node::AlterTypeStmt(alter) => reading.define("type", list_name(alter.type_name())),
        Node::DefineStmt(create) => reading.define(kind_word(create.kind), strings_name(create.defnames())),
        Node::CreateStatsStmt(create) => reading.define("statistics", strings_name(create.defnames())),
        Node::AlterStatsStmt(alter) => reading.define("statistics", strings_name(alter.defnames())),
        Node::CreateCastStmt(create) => {
            reading.define("cast", create.targettype().map_or_else(|| ObjectName::bare(""), |name| strings_name(name.names())));
        }
        Node::CreateTransformStmt(create) => {
            reading.define("transform", create.type_name().map_or_else(|| ObjectName::bare(""), |name| strings_name(name.names())));
        }
        Node::CreateConversionStmt(create) => reading.define("conversion", list_name(create.conversion_name())),
        Node::CreateOpClassStmt(create) => reading.define("operator class", strings_name(create.opclassname())),
        Node::CreateOpFamilyStmt(create) => reading.define("operator family", strings_name(create.opfamilyname())),
        Node::AlterOpFamilyStmt(alter) => rewrite(reading, strings_name(alter.opfamilyname()), Rewrite::Alter, false),
        Node::AlterOperatorStmt(alter) => {
            let name = alter.opername().map_or_else(|| ObjectName::bare(""), |object| list_name(object.objname()));
            reading.define("operator", name);
        }
        Node::AlterCollationStmt(alter) => reading.define("collation", list_name(alter.collname())),
        Node::AlterTSDictionaryStmt(alter) => reading.define("text search dictionary", strings_name(alter.dictname())),
        Node::AlterTSConfigurationStmt(alter) => rewrite(reading, strings_name(alter.cfgname()), Rewrite::Alter, false),
        Node::CommentStmt(comment) => reading.define("comment", object_name(comment.object())),
        Node::AlterTableStmt(alter) => alter_table(reading, alter),
        Node::AlterTableMoveAllStmt(alter) => {
            rewrite(reading, ObjectName::bare(alter.orig_tablespacename().unwrap_or_default()), Rewrite::Alter, false);
        }
        Node::RenameStmt(rename) => rename_object(reading, rename),
        Node::AlterObjectSchemaStmt(alter) => {
            rewrite(reading, relation_or_object(alter.relation(), alter.object()), Rewrite::Alter, false);
        }
        Node::AlterObjectDependsStmt(alter) => {
            rewrite(reading, relation_or_object(alter.relation(), alter.object()), Rewrite::Alter, false);
        }
        Node::TruncateStmt(truncate) => {
            let cascade = is_cascade(truncate.behavior);
            for relation in truncate.relations() {
                rewrite(reading, object_name(relation), Rewrite::Truncate, cascade);
            }
        }
        Node::DropStmt(drop) => drop_objects(reading, drop),
        statement => read_privileges(reading, statement),
    }
}

fn read_privileges(reading: &mut Reading, statement: Node<'_>) {
    match statement {
        Node::GrantStmt(grant) => grants(reading, &grant_words(grant)),
        Node::GrantRoleStmt(grant) => grants(reading, if grant.is_grant { "GRANT of a role" } else { "REVOKE of a role" }),
        Node::AlterDefaultPrivilegesStmt(_) => grants(reading, "ALTER DEFAULT PRIVILEGES"),
        Node::AlterOwnerStmt(alter) => {
            let name = relation_or_object(alter.relation(), alter.object());
            grants(reading, &format!("a new owner of {} `{name}`", kind_word(alter.object_type)));
        }
        Node::CreateRoleStmt(create) => grants(reading, &format!("CREATE ROLE `{}`", create.role().unwrap_or_default())),
        Node::AlterRoleStmt(alter) => grants(reading, &format!("ALTER ROLE `{}`", role(alter.role()))),
        Node::AlterRoleSetStmt(alter) => grants(reading, &format!("settings of role `{}`", role(alter.role()))),
        Node::DropRoleStmt(drop) => {
            grants(reading, "DROP ROLE");
            for name in drop.roles().iter().map(object_name) {
                drops(reading, "role", name, false);
            }
        }
        Node::DropOwnedStmt(drop) => {
            // Also rights on databases and tablespaces, which no snapshot of one database's definitions has.
            reading.found.escape("DROP OWNED takes whatever a role has away, in other places of the server too");
            grants(reading, "DROP OWNED");
            for name in drop.roles().iter().map(object_name) {
                drops(reading, "everything owned by", name, is_cascade(drop.behavior));
            }
        }
        Node::ReassignOwnedStmt(_) => grants(reading, "REASSIGN OWNED"),
        Node::CreatePolicyStmt(create) => {
            grants(reading, &format!("row security of `{}`", some_relation_name(create.table())));
            expressions(reading, [create.qual(), create.with_check()].into_iter());
        }
        Node::AlterPolicyStmt(alter) => {
            grants(reading, &format!("row security of `{}`", some_relation_name(alter.table())));
            expressions(reading, [alter.qual(), alter.with_check()].into_iter());
        }
        Node::SecLabelStmt(label) => grants(reading, &format!("a security label on `{}`", object_name(label.object()))),
        Node::AlterDatabaseSetStmt(alter) => grants(reading, &format!("settings of database `{}`", alter.dbname().unwrap_or_default())),
        Node::AlterDatabaseRefreshCollStmt(alter) => reading.define("database", ObjectName::bare(alter.dbname().unwrap_or_default())),
        Node::CreateEventTrigStmt(create) => grants(reading, &format!("event trigger `{}`", create.trigname().unwrap_or_default())),
        Node::AlterEventTrigStmt(alter) => grants(reading, &format!("event trigger `{}`", alter.trigname().unwrap_or_default())),
        Node::CreatePublicationStmt(create) => grants(reading, &format!("publication `{}`", create.pubname().unwrap_or_default())),
        Node::AlterPublicationStmt(alter) => grants(reading, &format!("publication `{}`", alter.pubname().unwrap_or_default())),
        statement => read_outside(reading, statement),
    }
}

/// What reaches outside the database, or outside any transaction.
fn read_outside(reading: &mut Reading, statement: Node<'_>) {
    match statement {
        Node::CreateExtensionStmt(create) => {
            reading.found.escape(format!("extension `{}` brings code into the server", create.extname().unwrap_or_default()));
        }
        Node::AlterExtensionStmt(alter) => {
            reading.found.escape(format!("extension `{}` brings code into the server", alter.extname().unwrap_or_default()));
        }
        Node::AlterExtensionContentsStmt(alter) => {
            reading.found.escape(format!("changes what extension `{}` holds", alter.extname().unwrap_or_default()));
        }
        Node::CreatePLangStmt(create) => {
            reading.found.escape(format!("language `{}` brings code into the server", create.plname().unwrap_or_default()));
        }
        Node::CreateAmStmt(create) => {
            reading.found.escape(format!("access method `{}` brings code into the server", create.amname().unwrap_or_default()));
        }
        Node::CreateFdwStmt(_) | Node::AlterFdwStmt(_) => reading.found.escape("a foreign data wrapper reaches outside the database"),
        Node::CreateForeignServerStmt(_) | Node::AlterForeignServerStmt(_) => {
            reading.found.escape("a foreign server reaches outside the database");
        }
        Node::ImportForeignSchemaStmt(_) => {
            reading.found.escape("a foreign table reaches outside the database");
        }
        Node::CreateUserMappingStmt(_) | Node::AlterUserMappingStmt(_) | Node::DropUserMappingStmt(_) => {
            reading.found.escape("a user mapping holds a credential of another server");
        }
        Node::CreatedbStmt(create) => {
            reading.define("database", ObjectName::bare(create.dbname().unwrap_or_default()));
            reading.unwrapped("CREATE DATABASE");
        }
        Node::DropdbStmt(drop) => {
            drops(reading, "database", ObjectName::bare(drop.dbname().unwrap_or_default()), false);
            reading.unwrapped("DROP DATABASE");
        }
        Node::AlterDatabaseStmt(alter) => {
            rewrite(reading, ObjectName::bare(alter.dbname().unwrap_or_default()), Rewrite::Alter, false);
            if alter.options().iter().any(|option| option.defname() == Some("tablespace")) {
                reading.unwrapped("ALTER DATABASE … SET TABLESPACE");
            }
        }
        Node::CreateTableSpaceStmt(create) => {
            reading.define("tablespace", ObjectName::bare(create.tablespacename().unwrap_or_default()));
            reading.unwrapped("CREATE TABLESPACE");
        }
        Node::DropTableSpaceStmt(drop) => {
            drops(reading, "tablespace", ObjectName::bare(drop.tablespacename().unwrap_or_default()), false);
            reading.unwrapped("DROP TABLESPACE");
        }
        Node::AlterTableSpaceOptionsStmt(alter) => {
            rewrite(reading, ObjectName::bare(alter.tablespacename().unwrap_or_default()), Rewrite::Alter, false);
        }
        Node::AlterSystemStmt(_) => reading.unwrapped("ALTER SYSTEM"),
        Node::CreateSubscriptionStmt(_) => reading.unwrapped("CREATE SUBSCRIPTION"),
        Node::AlterSubscriptionStmt(_) => reading.unwrapped("ALTER SUBSCRIPTION"),
        Node::DropSubscriptionStmt(drop) => {
            drops(reading, "subscription", ObjectName::bare(drop.subname().unwrap_or_default()), is_cascade(drop.behavior));
            reading.unwrapped("DROP SUBSCRIPTION");
        }
        _ => reading.found.not_understood("a statement that this version does not know"),
    }
}

fn alter_table(reading: &mut Reading, alter: &nodes::AlterTableStmt) {
    let table = some_relation_name(alter.relation());
    reading.found.note_temporary(&table);
    for command in alter.cmds() {
        let Node::AlterTableCmd(command) = command else {
            reading.found.not_understood("an ALTER TABLE action that this version does not know");
            continue;
        };
        alter_action(reading, alter, &table, command);
    }
}

fn alter_action(reading: &mut Reading, alter: &nodes::AlterTableStmt, table: &ObjectName, command: &nodes::AlterTableCmd) {
    use raw::AlterTableType as Action;
    let object = kind_word(alter.objtype);
    match command.subtype {
        Action::AT_AddColumn
        | Action::AT_AddColumnToView
        | Action::AT_AddConstraint
        | Action::AT_AddIndex
        | Action::AT_AddIndexConstraint
        | Action::AT_AddIdentity
        | Action::AT_AddOf
        | Action::AT_ColumnDefault
        | Action::AT_SetNotNull
        | Action::AT_SetStatistics
        | Action::AT_SetOptions
        | Action::AT_ResetOptions
        | Action::AT_SetStorage
        | Action::AT_SetCompression
        | Action::AT_ValidateConstraint
        | Action::AT_ClusterOn
        | Action::AT_SetRelOptions
        | Action::AT_ResetRelOptions
        | Action::AT_AttachPartition => {
            reading.define(object, table.clone());
            expressions(reading, std::iter::once(command.def()).filter(|def| has_expressions(*def)));
        }
        Action::AT_DropColumn => rewrite(reading, table.clone(), Rewrite::DropColumn, is_cascade(command.behavior)),
        Action::AT_AlterColumnType => {
            rewrite(reading, table.clone(), Rewrite::ChangeType, is_cascade(command.behavior));
            expressions(reading, std::iter::once(command.def()).filter(|def| has_expressions(*def)));
        }
        Action::AT_ChangeOwner
        | Action::AT_EnableRowSecurity
        | Action::AT_DisableRowSecurity
        | Action::AT_ForceRowSecurity
        | Action::AT_NoForceRowSecurity => grants(reading, &format!("owner or row security of {object} `{table}`")),
        Action::AT_DetachPartition | Action::AT_DetachPartitionFinalize => {
            rewrite(reading, table.clone(), Rewrite::Alter, false);
            if matches!(command.def(), Node::PartitionCmd(partition) if partition.concurrent) {
                reading.unwrapped("DETACH PARTITION CONCURRENTLY");
            }
        }
        Action::AT_GenericOptions | Action::AT_AlterColumnGenericOptions => {
            rewrite(reading, table.clone(), Rewrite::Alter, false);
            reading.found.escape("options of a foreign table reach outside the database");
        }
        // Whatever else may lose data, or a trigger, rule, constraint or default that protects it.
        _ => rewrite(reading, table.clone(), Rewrite::Alter, is_cascade(command.behavior)),
    }
}

fn has_expressions(definition: Node<'_>) -> bool {
    matches!(definition, Node::ColumnDef(_) | Node::Constraint(_) | Node::FuncCall(_) | Node::A_Expr(_) | Node::TypeCast(_))
}

fn rename_object(reading: &mut Reading, rename: &nodes::RenameStmt) {
    let name = relation_or_object(rename.relation(), rename.object());
    match rename.rename_type {
        raw::ObjectType::OBJECT_ROLE => grants(reading, &format!("a new name of role `{}`", rename.subname().unwrap_or_default())),
        raw::ObjectType::OBJECT_POLICY => grants(reading, &format!("row security of `{name}`")),
        _ if name.name.is_empty() => {
            rewrite(reading, ObjectName::bare(rename.subname().unwrap_or_default()), Rewrite::Alter, false);
        }
        _ => rewrite(reading, name, Rewrite::Alter, is_cascade(rename.behavior)),
    }
}

fn drop_objects(reading: &mut Reading, drop: &nodes::DropStmt) {
    use raw::ObjectType as Kind;
    let cascade = is_cascade(drop.behavior);
    for object in drop.objects() {
        let name = match (drop.remove_type, object) {
            // [schema, table, name]: it is the table that loses a protection.
            (Kind::OBJECT_TRIGGER | Kind::OBJECT_RULE | Kind::OBJECT_POLICY, Node::NodeList(list)) => {
                ObjectName::bare(list.iter().next_back().and_then(Node::as_str).unwrap_or_default())
            }
            (_, object) => object_name(object),
        };
        drops(reading, kind_word(drop.remove_type), name, cascade);
    }
    match drop.remove_type {
        Kind::OBJECT_POLICY => grants(reading, "DROP POLICY"),
        Kind::OBJECT_EVENT_TRIGGER => grants(reading, "DROP EVENT TRIGGER"),
        Kind::OBJECT_PUBLICATION => grants(reading, "DROP PUBLICATION"),
        _ => {}
    }
    if drop.concurrent {
        reading.unwrapped("DROP INDEX CONCURRENTLY");
    }
}

/// Walks expressions inside a definition. They are not run now, so what they change is left to when they are; the names
/// they call and the escapes among them stay.
fn expressions<'a>(reading: &mut Reading, nodes: impl Iterator<Item = Node<'a>>) {
    let mut inner = Found::default();
    for node in nodes {
        inner.walk(node);
    }
    let Found { effects, functions, operators, casts, attributes, in_session, .. } = inner;
    reading.found.effects.extend(
        effects
            .into_vec()
            .into_iter()
            .filter(|effect| matches!(effect, Effect::Read { .. } | Effect::Escape { .. } | Effect::Call { .. } | Effect::Unknown { .. })),
    );
    reading.found.functions.extend(functions.into_vec());
    reading.found.operators.extend(operators.into_vec());
    reading.found.casts.extend(casts.into_vec());
    reading.found.attributes.extend(attributes.into_vec());
    reading.found.in_session |= in_session;
}

fn rewrite(reading: &mut Reading, table: ObjectName, how: Rewrite, cascade: bool) {
    reading.found.note_temporary(&table);
    reading.found.effects.add(Effect::Rewrite { table, how, cascade });
}

fn drops(reading: &mut Reading, kind: &str, name: ObjectName, cascade: bool) {
    reading.found.note_temporary(&name);
    reading.found.effects.add(Effect::Drop { object: ObjectKind(kind.to_owned()), name, cascade });
}

fn grants(reading: &mut Reading, what: &str) {
    reading.found.effects.add(Effect::Grant { what: what.to_owned() });
}

fn grant_words(grant: &nodes::GrantStmt) -> String {
    let verb = if grant.is_grant { "GRANT" } else { "REVOKE" };
    let privileges: Vec<_> = grant.privileges().iter().filter_map(nodes::AccessPriv::priv_name).collect();
    let privileges = if privileges.is_empty() { "ALL".to_owned() } else { privileges.join(", ").to_ascii_uppercase() };
    let many = if grant.targtype == raw::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA { "every " } else { "" };
    let words = format!("{verb} {privileges} on {many}{}", kind_word(grant.objtype));
    // Only for these are the objects relations; the parser crate's typed list refuses others.
    let relations = matches!(grant.objtype, raw::ObjectType::OBJECT_TABLE | raw::ObjectType::OBJECT_SEQUENCE)
        && grant.targtype == raw::GrantTargetType::ACL_TARGET_OBJECT;
    if !relations {
        return words;
    }
    let names: Vec<_> = grant.objects().iter().map(|relation| format!("`{}`", relation_name(relation))).collect();
    format!("{words} {}", names.join(", "))
}

fn role(role: Option<&nodes::RoleSpec>) -> &str {
    role.and_then(nodes::RoleSpec::rolename).unwrap_or("current or all")
}

fn relation_or_object(relation: Option<&nodes::RangeVar>, object: Node<'_>) -> ObjectName {
    relation.map_or_else(|| object_name(object), relation_name)
}

fn is_cascade(behavior: raw::DropBehavior::Type) -> bool {
    behavior == raw::DropBehavior::DROP_CASCADE
}

/// The kind of an object in PostgreSQL's own words.
fn kind_word(kind: raw::ObjectType::Type) -> &'static str {
    use raw::ObjectType as Kind;
    match kind {
        Kind::OBJECT_ACCESS_METHOD => "access method",
        Kind::OBJECT_AGGREGATE => "aggregate",
        Kind::OBJECT_CAST => "cast",
        Kind::OBJECT_COLLATION => "collation",
        Kind::OBJECT_CONVERSION => "conversion",
        Kind::OBJECT_DATABASE => "database",
        Kind::OBJECT_DOMAIN => "domain",
        Kind::OBJECT_EVENT_TRIGGER => "event trigger",
        Kind::OBJECT_EXTENSION => "extension",
        Kind::OBJECT_FDW => "foreign data wrapper",
        Kind::OBJECT_FOREIGN_SERVER => "foreign server",
        Kind::OBJECT_FOREIGN_TABLE => "foreign table",
        Kind::OBJECT_FUNCTION => "function",
        Kind::OBJECT_INDEX => "index",
        Kind::OBJECT_LANGUAGE => "language",
        Kind::OBJECT_LARGEOBJECT => "large object",
        Kind::OBJECT_MATVIEW => "materialized view",
        Kind::OBJECT_OPCLASS => "operator class",
        Kind::OBJECT_OPERATOR => "operator",
        Kind::OBJECT_OPFAMILY => "operator family",
        Kind::OBJECT_PARAMETER_ACL => "parameter",
        Kind::OBJECT_POLICY => "policy",
        Kind::OBJECT_PROCEDURE => "procedure",
        Kind::OBJECT_PUBLICATION => "publication",
        Kind::OBJECT_ROLE => "role",
        Kind::OBJECT_ROUTINE => "routine",
        Kind::OBJECT_RULE => "rule",
        Kind::OBJECT_SCHEMA => "schema",
        Kind::OBJECT_SEQUENCE => "sequence",
        Kind::OBJECT_STATISTIC_EXT => "statistics",
        Kind::OBJECT_SUBSCRIPTION => "subscription",
        Kind::OBJECT_TABLE => "table",
        Kind::OBJECT_TABLESPACE => "tablespace",
        Kind::OBJECT_TRANSFORM => "transform",
        Kind::OBJECT_TRIGGER => "trigger",
        Kind::OBJECT_TSCONFIGURATION => "text search configuration",
        Kind::OBJECT_TSDICTIONARY => "text search dictionary",
        Kind::OBJECT_TSPARSER => "text search parser",
        Kind::OBJECT_TSTEMPLATE => "text search template",
        Kind::OBJECT_TYPE => "type",
        Kind::OBJECT_USER_MAPPING => "user mapping",
        Kind::OBJECT_VIEW => "view",
        _ => "object",
    }
}
