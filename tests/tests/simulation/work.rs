//! What the agents of a simulation do: texts whose effects are fixed, and whose reach grows with the data.

use std::sync::Arc;

use reprieve_operation::{
    Action, Effect, Environment, ObjectKind, ObjectName, Operation, Principal, Protocol, Reach, Rewrite, SessionId, SystemName, TableReach,
};

/// One statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Changes a few rows, whatever the data.
    Touch,
    /// Deletes rows by a condition that more and more rows meet.
    Sweep,
    /// Deletes every row of a large table.
    Wipe,
    /// Deletes every row of a table that has few.
    WipeFew,
    /// Deletes a few payments, which two people have to agree on where the rules say so.
    Payments,
    /// Drops a table.
    Drop,
    /// Empties a table.
    Truncate,
    /// Calls a function that deletes.
    Call,
    /// Gives privileges away.
    Grant,
    /// Leaves the transaction.
    Escape,
}

impl Work {
    /// Every kind, the harmless ones more than once.
    pub(crate) const DRAWN: [Self; 13] = [
        Self::Touch,
        Self::Touch,
        Self::Touch,
        Self::Sweep,
        Self::Sweep,
        Self::Wipe,
        Self::WipeFew,
        Self::Payments,
        Self::Drop,
        Self::Truncate,
        Self::Call,
        Self::Grant,
        Self::Escape,
    ];

    /// What may run inside a client's transaction.
    pub(crate) const INSIDE: [Self; 8] =
        [Self::Touch, Self::Touch, Self::Sweep, Self::Wipe, Self::WipeFew, Self::Call, Self::Drop, Self::Truncate];

    /// The text: the same for each repetition.
    pub(crate) fn text(self) -> Arc<str> {
        format!("{self:?};").into()
    }

    /// What the text says.
    pub(crate) fn effects(self) -> Vec<Effect> {
        let table = ObjectName::bare;
        match self {
            Self::Touch => vec![Effect::Update { table: table("vehicles"), bounded: true }],
            Self::Sweep => vec![Effect::Delete { table: table("reservations"), bounded: true }],
            Self::Wipe => vec![Effect::Delete { table: table("customers"), bounded: false }],
            Self::WipeFew => vec![Effect::Delete { table: table("drafts"), bounded: false }],
            Self::Payments => vec![Effect::Delete { table: table("payments"), bounded: true }],
            Self::Drop => vec![Effect::Drop { object: ObjectKind("table".to_owned()), name: table("customers"), cascade: false }],
            Self::Truncate => vec![Effect::Rewrite { table: table("reservations"), how: Rewrite::Truncate, cascade: false }],
            Self::Call => vec![Effect::Call { function: table("tidy_up") }],
            Self::Grant => vec![Effect::Grant { what: "gives rights to `public`".to_owned() }],
            Self::Escape => vec![Effect::Escape { what: "runs outside its transaction".to_owned() }],
        }
    }

    /// What it does, `day` days after the start: the data grows.
    pub(crate) fn reach(self, day: u64) -> Reach {
        let deletes = |name: &str, deleted| {
            let rows = TableReach { deleted, ..TableReach::default() };
            Reach { tables: [(format!("public.{name}"), rows)].into(), ..Reach::default() }
        };
        let catalogs = |name: &str, rows| [(name.to_owned(), rows)].into();
        match self {
            Self::Touch => {
                let rows = TableReach { updated: 3, ..TableReach::default() };
                Reach { tables: [("public.vehicles".to_owned(), rows)].into(), ..Reach::default() }
            }
            Self::Sweep => {
                let mut reach = deletes("reservations", 4 + 3 * day);
                reach.add(&deletes("payments", day));
                reach
            }
            Self::Wipe => deletes("customers", 40 + day),
            Self::WipeFew => deletes("drafts", 2),
            Self::Payments => deletes("payments", 2),
            Self::Drop => Reach { dropped: vec!["public.customers".to_owned()], catalogs: catalogs("pg_class", 5), ..Reach::default() },
            Self::Truncate => Reach { rewritten: vec!["public.reservations".to_owned()], ..Reach::default() },
            Self::Call => deletes("reservations", 7 + 2 * day),
            Self::Grant => Reach { catalogs: catalogs("pg_authid", 1), ..Reach::default() },
            Self::Escape => Reach { escapes: vec!["runs outside its transaction".to_owned()], ..Reach::default() },
        }
    }

    /// What is known of its reach before it is final: measured in a trial, estimated for whole relations, or nothing.
    pub(crate) fn estimate(self, day: u64) -> Option<Reach> {
        match self {
            Self::Drop | Self::Truncate => Some(Reach { estimated: true, catalogs: Default::default(), ..self.reach(day) }),
            Self::Escape => None,
            Self::Touch | Self::Sweep | Self::Wipe | Self::WipeFew | Self::Payments | Self::Call | Self::Grant => Some(self.reach(day)),
        }
    }

    /// Whether nothing but row changes can come of it, so that the database itself can enforce a limit.
    pub(crate) fn is_plain(self) -> bool {
        match self {
            Self::Touch | Self::Sweep | Self::Wipe | Self::WipeFew | Self::Payments => true,
            Self::Drop | Self::Truncate | Self::Call | Self::Grant | Self::Escape => false,
        }
    }
}

/// Who asks, and where.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// The agent as it logged in.
    pub(crate) principal: Principal,
    /// The system.
    pub(crate) system: SystemName,
    /// Its environment.
    pub(crate) environment: Environment,
}

impl Asker {
    /// An operation of `works`, as one text.
    pub(crate) fn operation(&self, session: SessionId, works: &[Work], action: Action) -> Operation {
        let text: Arc<str> = works.iter().map(|work| work.text()).collect::<Vec<_>>().join("\n").into();
        Operation {
            principal: self.principal.clone(),
            session,
            system: self.system.clone(),
            environment: self.environment.clone(),
            protocol: Protocol::Postgres,
            text: text.clone(),
            redacted: text,
            bound: None,
            parameters: None,
            action,
            effects: works.iter().flat_map(|work| work.effects()).collect(),
            rows_apart: 0,
            reach: None,
        }
    }
}

/// The work of a text, for whoever runs a held one.
pub(crate) fn works_of(text: &str) -> Vec<Work> {
    let one = |line: &str| Work::DRAWN.into_iter().find(|work| *work.text() == *line);
    text.lines().filter_map(one).collect()
}
