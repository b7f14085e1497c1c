//! The order: what has to go, to change and to come, sorted so that nothing stands on what is not there.

use super::{BTreeMap, BTreeSet, Entry, HashMap, HashSet, Make, Plan, Refusal, Section, Step, UndoScript, lex, privileges};

/// One thing to do, by the key of its object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Task {
    Drop(String),
    Make(String),
    /// What comes when the data is there.
    Finish(String),
}

impl Task {
    fn key(&self) -> &str {
        match self {
            Self::Drop(key) | Self::Make(key) | Self::Finish(key) => key,
        }
    }
}

impl Plan<'_> {
    /// The script, after the renames.
    pub(super) fn script(mut self, renames: &[(String, String)]) -> UndoScript {
        let tasks = self.tasks();
        let waits = self.waits(&tasks);
        let sorted = self.sort(&tasks, &waits);
        if !self.refusals.is_empty() {
            let refusals = std::mem::take(&mut self.refusals);
            return UndoScript { refusals, ..UndoScript::default() };
        }
        let mut script = UndoScript {
            needs_data: self.data.iter().cloned().collect(),
            loses: self.loses.iter().cloned().collect(),
            reordered: self.reordered.clone(),
            ..UndoScript::default()
        };
        let mut writer =
            Writer { plan: &self, steps: Vec::new(), refusals: Vec::new(), tablespace: "''".to_owned(), access_method: "heap".to_owned() };
        writer.settings();
        let schemas: Vec<&Task> = sorted.iter().filter(|task| matches!(task, Task::Make(key) if self.is_new_schema(key))).collect();
        // Objects may have to move into a schema that is gone.
        for task in schemas {
            writer.write(task, Section::Before);
        }
        for (key, sql) in renames {
            writer.push(key, Section::Before, sql.clone(), None);
        }
        let sections = self.sections(&sorted, &waits);
        for section in [Section::Before, Section::After] {
            for task in &sorted {
                if sections.get(task) == Some(&section) && !matches!(task, Task::Make(key) if self.is_new_schema(key)) {
                    writer.write(task, section);
                }
            }
        }
        let Writer { steps, refusals, .. } = writer;
        if !refusals.is_empty() {
            return UndoScript { refusals, ..UndoScript::default() };
        }
        let first = 6;
        // Settings alone are no plan.
        if steps.len() > first {
            script.statements = steps;
        }
        script
    }

    fn is_new_schema(&self, key: &str) -> bool {
        key.starts_with("SCHEMA ") && matches!(self.makes.get(key), Some(Make::Create))
    }

    fn tasks(&self) -> BTreeSet<Task> {
        let mut tasks: BTreeSet<Task> = self.drops.iter().map(|key| Task::Drop(key.clone())).collect();
        for (key, make) in &self.makes {
            tasks.insert(Task::Make(key.clone()));
            let is_later = match make {
                Make::Create => key.starts_with("MATERIALIZED VIEW "),
                Make::Alter { after, .. } => !after.is_empty(),
            };
            if is_later || self.enums.contains(key) {
                tasks.insert(Task::Finish(key.clone()));
            }
        }
        tasks
    }

    /// What each task has to wait for.
    fn waits(&self, tasks: &BTreeSet<Task>) -> HashMap<Task, HashSet<Task>> {
        let mut waits: HashMap<Task, HashSet<Task>> = HashMap::new();
        let mut wait = |task: Task, on: Task| {
            if task != on && tasks.contains(&task) && tasks.contains(&on) {
                waits.entry(task).or_default().insert(on);
            }
        };
        for key in &self.drops {
            wait(Task::Make(key.clone()), Task::Drop(key.clone()));
            for dependent in self.dependents.get(key.as_str()).into_iter().flatten() {
                let dependent = (*dependent).to_owned();
                if self.drops.contains(&dependent) {
                    wait(Task::Drop(key.clone()), Task::Drop(dependent));
                } else if !self.enums.contains(key) {
                    wait(Task::Drop(key.clone()), Task::Make(dependent));
                }
            }
            // What is built on something must be gone before that changes.
            let Some(entry) = self.now.find(key) else { continue };
            for need in self.now.needs(entry) {
                wait(Task::Make(need.key.clone()), Task::Drop(key.clone()));
            }
        }
        for key in self.makes.keys() {
            wait(Task::Finish(key.clone()), Task::Make(key.clone()));
            let Some((definitions, entry)) = self.target(key) else { continue };
            for need in definitions.needs(entry) {
                wait(Task::Make(key.clone()), Task::Make(need.key.clone()));
                wait(Task::Finish(key.clone()), Task::Finish(need.key.clone()));
            }
            if super::is_identity(entry) && entry.kind == "SEQUENCE" {
                // An identity column has to be NOT NULL already.
                for need in definitions.needs(entry) {
                    wait(Task::Make(key.clone()), Task::Finish(need.key.clone()));
                }
            }
            if entry.kind == "TABLE ATTACH" {
                self.wait_of_attach(key, entry, &mut wait);
            }
            for parent in super::rename::parents(definitions, entry).filter(|_| entry.table.is_some()) {
                wait(Task::Make(key.clone()), Task::Make(parent.key.clone()));
                wait(Task::Finish(key.clone()), Task::Finish(parent.key.clone()));
            }
        }
        for kind in &self.enums {
            for dependent in self.dependents.get(kind.as_str()).into_iter().flatten() {
                wait(Task::Make((*dependent).to_owned()), Task::Make(kind.clone()));
                wait(Task::Finish(kind.clone()), Task::Make((*dependent).to_owned()));
            }
        }
        self.wait_for_names(tasks, &mut wait);
        waits
    }

    /// A partition's own indexes come first: the parent then takes them, rather than make others.
    fn wait_of_attach(&self, key: &str, attach: &Entry, wait: &mut impl FnMut(Task, Task)) {
        for (other, _) in self.makes.iter().filter(|(_, make)| matches!(make, Make::Create)) {
            let Some((_, entry)) = self.target(other) else { continue };
            let is_on_child =
                entry.shape.relation.as_ref().is_some_and(|name| Some(&name.schema) == attach.schema.as_ref() && name.name == attach.tag);
            if is_on_child && matches!(entry.kind.as_str(), "INDEX" | "CONSTRAINT") {
                wait(Task::Make(key.to_owned()), Task::Make(other.clone()));
            }
            if entry.kind == "INDEX ATTACH" {
                wait(Task::Make(other.clone()), Task::Make(key.to_owned()));
            }
        }
    }

    /// A name is free only when what has it now is gone.
    fn wait_for_names(&self, tasks: &BTreeSet<Task>, wait: &mut impl FnMut(Task, Task)) {
        let mut going: BTreeMap<(Option<&str>, &str), Vec<&str>> = BTreeMap::new();
        for key in &self.drops {
            if let Some(entry) = self.now.find(key) {
                let name = entry.shape.own.as_deref().filter(|_| entry.kind == "CONSTRAINT").unwrap_or(&entry.tag);
                going.entry((entry.schema.as_deref(), name)).or_default().push(key);
            }
        }
        for task in tasks {
            let Task::Make(key) = task else { continue };
            let Some((_, entry)) = self.target(key) else { continue };
            let name = entry.shape.own.as_deref().filter(|_| entry.kind == "CONSTRAINT").unwrap_or(&entry.tag);
            for other in going.get(&(entry.schema.as_deref(), name)).into_iter().flatten() {
                wait(task.clone(), Task::Drop((*other).to_owned()));
            }
        }
    }

    /// Sorts; what waits in a circle cannot be undone by this version.
    fn sort(&mut self, tasks: &BTreeSet<Task>, waits: &HashMap<Task, HashSet<Task>>) -> Vec<Task> {
        let rank = |task: &Task| match task {
            Task::Drop(key) => (0, usize::MAX - self.now.at.get(key).copied().unwrap_or(0)),
            Task::Make(key) => (1, self.before.at.get(key).or_else(|| self.now.at.get(key)).copied().unwrap_or(0)),
            Task::Finish(key) => (2, self.before.at.get(key).or_else(|| self.now.at.get(key)).copied().unwrap_or(0)),
        };
        let mut left: HashMap<&Task, usize> = tasks.iter().map(|task| (task, waits.get(task).map_or(0, HashSet::len))).collect();
        let mut followers: HashMap<&Task, Vec<&Task>> = HashMap::new();
        for (task, others) in waits {
            for other in others {
                followers.entry(other).or_default().push(task);
            }
        }
        let mut ready: BTreeSet<((i32, usize), &Task)> =
            tasks.iter().filter(|task| left.get(task) == Some(&0)).map(|task| (rank(task), task)).collect();
        let mut sorted = Vec::with_capacity(tasks.len());
        while let Some((_, task)) = ready.pop_first() {
            sorted.push(task.clone());
            for follower in followers.get(task).into_iter().flatten() {
                if let Some(count) = left.get_mut(*follower) {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert((rank(follower), follower));
                    }
                }
            }
        }
        if sorted.len() < tasks.len() {
            let stuck: Vec<&str> = tasks.iter().filter(|task| !sorted.contains(task)).map(Task::key).collect();
            let because = format!("it depends on itself in a circle: {}", stuck.join(", "));
            self.refusals.push(Refusal { object: stuck.first().copied().unwrap_or_default().to_owned(), because });
        }
        sorted
    }

    /// Before or after the data: later than everything it waits for.
    fn sections(&self, sorted: &[Task], waits: &HashMap<Task, HashSet<Task>>) -> HashMap<Task, Section> {
        let mut sections: HashMap<Task, Section> = HashMap::new();
        for task in sorted {
            let own = match task {
                Task::Drop(_) => Section::Before,
                Task::Finish(_) => Section::After,
                Task::Make(key) => section_of(key),
            };
            let latest = waits.get(task).into_iter().flatten().filter_map(|other| sections.get(other)).max().copied();
            sections.insert(task.clone(), latest.map_or(own, |latest| latest.max(own)));
        }
        sections
    }

    /// Whether something goes by itself when what it belongs to goes.
    fn vanishes(&self, entry: &Entry) -> bool {
        let goes = |need: &Entry| self.drops.contains(&need.key) && !self.enums.contains(&need.key);
        let any_need = || self.now.needs(entry).any(goes);
        let relation_goes = || {
            let Some(name) = &entry.shape.relation else { return false };
            ["TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"]
                .iter()
                .any(|kind| self.drops.contains(&format!("{kind} {}.{}", name.schema, name.name)))
        };
        match entry.kind.as_str() {
            "COMMENT" | "ACL" | "SECURITY LABEL" | "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" | "INDEX ATTACH" => any_need(),
            "SEQUENCE" | "STATISTICS" | "SEQUENCE OWNED BY" => {
                self.now.needs(entry).any(|need| goes(need) && matches!(need.kind.as_str(), "TABLE" | "SEQUENCE"))
            }
            "TABLE ATTACH" => {
                let child = format!("TABLE {}.{}", entry.schema.as_deref().unwrap_or("-"), entry.tag);
                self.drops.contains(&child)
            }
            "INDEX" | "CONSTRAINT" => relation_goes() || self.goes_with_parent_index(entry),
            "DEFAULT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY" | "ROW SECURITY" => relation_goes(),
            _ => false,
        }
    }

    fn goes_with_parent_index(&self, entry: &Entry) -> bool {
        let name = entry.shape.own.as_deref().unwrap_or(&entry.tag);
        let attach = format!("INDEX ATTACH {}.{name}", entry.schema.as_deref().unwrap_or("-"));
        let Some(attach) = self.now.find(&attach) else { return false };
        self.now
            .needs(attach)
            .any(|need| need.key != entry.key && matches!(need.kind.as_str(), "INDEX" | "CONSTRAINT") && self.drops.contains(&need.key))
    }
}

fn section_of(key: &str) -> Section {
    const AFTER: &[&str] = &[
        "INDEX ",
        "CONSTRAINT ",
        "FK CONSTRAINT ",
        "CHECK CONSTRAINT ",
        "TRIGGER ",
        "EVENT TRIGGER ",
        "RULE ",
        "POLICY ",
        "ROW SECURITY ",
        "PUBLICATION ",
        "ALTER PUBLICATION ",
        "STATISTICS ",
        "ACL ",
        "DEFAULT ACL ",
    ];
    if AFTER.iter().any(|kind| key.starts_with(kind)) { Section::After } else { Section::Before }
}

/// Writes tasks as statements.
struct Writer<'a, 'b> {
    plan: &'b Plan<'a>,
    steps: Vec<Step>,
    refusals: Vec<Refusal>,
    tablespace: String,
    access_method: String,
}

impl Writer<'_, '_> {
    fn push(&mut self, key: &str, section: Section, sql: String, or_else: Option<String>) {
        self.steps.push(Step { section, object: key.to_owned(), sql, or_else });
    }

    /// The session as a dump expects it.
    fn settings(&mut self) {
        for sql in [
            "SELECT pg_catalog.set_config('search_path', '', true)",
            "SET LOCAL check_function_bodies = false",
            "SET LOCAL xmloption = content",
            "SET LOCAL standard_conforming_strings = on",
            "SET LOCAL default_tablespace = ''",
            "SET LOCAL default_table_access_method = heap",
        ] {
            self.push("session", Section::Before, sql.to_owned(), None);
        }
    }

    fn write(&mut self, task: &Task, section: Section) {
        match task {
            Task::Drop(key) => self.drop(key, section),
            Task::Make(key) => self.make(key, section),
            Task::Finish(key) => self.finish(key),
        }
    }

    fn drop(&mut self, key: &str, section: Section) {
        let Some(entry) = self.plan.now.find(key) else { return };
        if self.plan.vanishes(entry) {
            return;
        }
        if self.plan.enums.contains(key) {
            let name = entry.designation().unwrap_or_default();
            self.push(key, section, format!("ALTER {name} RENAME TO {}", lex::quote(&aside(entry))), None);
            return;
        }
        match drop_statements(entry) {
            Some(statements) => statements.into_iter().for_each(|sql| self.push(key, section, sql, None)),
            None => self.refusals.push(Refusal {
                object: key.to_owned(),
                because: format!("this version does not know how to drop a {}", entry.kind.to_lowercase()),
            }),
        }
    }

    fn make(&mut self, key: &str, section: Section) {
        let Some((_, entry)) = self.plan.target(key) else { return };
        match self.plan.makes.get(key) {
            Some(Make::Alter { before, .. }) => {
                for (sql, or_else) in before {
                    self.push(key, section, sql.clone(), or_else.clone());
                }
            }
            Some(Make::Create) => {
                if entry.has_place() {
                    self.place(entry, section);
                }
                for sql in &entry.statements {
                    self.push(key, section, sql.clone(), None);
                }
                for sql in self.unasked(entry) {
                    self.push(key, section, sql, None);
                }
            }
            None => {}
        }
    }

    fn finish(&mut self, key: &str) {
        if let Some(Make::Alter { after, .. }) = self.plan.makes.get(key) {
            for sql in after {
                self.push(key, Section::After, sql.clone(), None);
            }
        }
        if self.plan.enums.contains(key)
            && let Some(entry) = self.plan.now.find(key)
        {
            let schema = lex::quote(entry.schema.as_deref().unwrap_or_default());
            self.push(key, Section::After, format!("DROP TYPE {schema}.{}", lex::quote(&aside(entry))), None);
        }
        if key.starts_with("MATERIALIZED VIEW ")
            && let Some(sql) = self.plan.target(key).and_then(|(_, entry)| entry.designation())
        {
            self.push(key, Section::After, format!("REFRESH {sql}"), None);
        }
    }

    fn place(&mut self, entry: &Entry, section: Section) {
        let tablespace = if entry.tablespace.is_empty() { "''" } else { &entry.tablespace };
        if tablespace != self.tablespace {
            self.tablespace = tablespace.to_owned();
            self.push(&entry.key, section, format!("SET LOCAL default_tablespace = {tablespace}"), None);
        }
        if !entry.access_method.is_empty() && entry.access_method != self.access_method {
            self.access_method.clone_from(&entry.access_method);
            self.push(&entry.key, section, format!("SET LOCAL default_table_access_method = {}", entry.access_method), None);
        }
    }

    /// What default privileges would give to a new object, and this one did not have.
    fn unasked(&self, entry: &Entry) -> Vec<String> {
        let (class, object) = match entry.kind.as_str() {
            "TABLE" | "VIEW" | "MATERIALIZED VIEW" => ("TABLES", "TABLE"),
            "SEQUENCE" => ("SEQUENCES", "SEQUENCE"),
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" => ("FUNCTIONS", "ROUTINE"),
            "TYPE" | "DOMAIN" => ("TYPES", "TYPE"),
            "SCHEMA" => ("SCHEMAS", "SCHEMA"),
            _ => return Vec::new(),
        };
        let defaults = self.plan.now.entries.iter().chain(&self.plan.before.entries).filter(|default| {
            default.kind == "DEFAULT ACL" && default.tag.ends_with(class) && (default.schema.is_none() || default.schema == entry.schema)
        });
        let name = match entry.designation() {
            Some(name) if class == "FUNCTIONS" || class == "SCHEMAS" => {
                name.split_once(' ').map(|(_, name)| format!("{object} {name}")).unwrap_or_default()
            }
            _ => format!("{object} {}.{}", lex::quote(entry.schema.as_deref().unwrap_or_default()), lex::quote(&entry.tag)),
        };
        let mut result: Vec<String> = Vec::new();
        for statement in defaults.flat_map(|default| &default.statements) {
            if let Some(sql) = privileges::unasked(statement, &name, entry.owner.as_deref())
                && !result.contains(&sql)
            {
                result.push(sql);
            }
        }
        result
    }
}

fn aside(entry: &Entry) -> String {
    format!("reprieve_undo_{}", entry.identity.unwrap_or_default().1)
}

/// What takes an object away.
fn drop_statements(entry: &Entry) -> Option<Vec<String>> {
    let first = entry.statements.first()?;
    let on = entry.shape.relation.as_ref().map(super::table::sql_name);
    let own = entry.shape.own.as_deref().map(lex::quote);
    let one = |sql: String| Some(vec![sql]);
    match entry.kind.as_str() {
        "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" => one(format!("ALTER TABLE {} DROP CONSTRAINT {}", on?, own?)),
        "TRIGGER" | "RULE" | "POLICY" => one(format!("DROP {} {} ON {}", entry.kind, own?, on?)),
        "DEFAULT" => one(format!("ALTER TABLE ONLY {} ALTER COLUMN {} DROP DEFAULT", on?, own?)),
        "ROW SECURITY" => one(format!("ALTER TABLE {} DISABLE ROW LEVEL SECURITY", on?)),
        "SEQUENCE OWNED BY" => one(format!("ALTER SEQUENCE {} OWNED BY NONE", on?)),
        "SEQUENCE" if first.starts_with("ALTER TABLE ") => one(format!("ALTER TABLE {} ALTER COLUMN {} DROP IDENTITY", on?, own?)),
        "TABLE ATTACH" => {
            let child = format!("{}.{}", lex::quote(entry.schema.as_deref()?), lex::quote(&entry.tag));
            one(format!("ALTER TABLE {} DETACH PARTITION {child}", on?))
        }
        "INDEX ATTACH" => None,
        "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" => {
            let words = lex::words(&entry.key);
            let add = words.iter().find(|token| token.is("ADD"))?;
            one(format!("{}DROP{}", entry.key.get(..add.at)?, entry.key.get(add.end()..)?))
        }
        "ACL" | "DEFAULT ACL" => privileges::opposite(&entry.statements),
        "COMMENT" | "SECURITY LABEL" => one(privileges::emptied(first)?),
        _ => one(format!("DROP {}", entry.designation()?)),
    }
}
