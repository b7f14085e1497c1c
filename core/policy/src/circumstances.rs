//! Circumstances: everything about an operation that a rule may look at, besides who, what kind and where.
//!
//! `schema.cedarschema` has the same list with explanations; a test holds the two together.

use std::time::Duration;

use cedar_policy::{Context, RestrictedExpression};
use reprieve_operation::{Action, Budget, Effect, Facts, Kind, Operation, Protocol, RecoveryFacts, Timestamp, Undoability};

/// Which attributes of the context a rule looks at: one bit each, by their place in [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mentions(u32);

const NAMES: [&str; 30] = [
    "in_scope",
    "frozen",
    "production",
    "hour_utc",
    "weekday",
    "approvals",
    "delay_s",
    "window_s",
    "undoable",
    "measured",
    "estimated",
    "unbounded",
    "commit",
    "call",
    "channel",
    "rows",
    "statement_rows",
    "deleted",
    "dropped",
    "definitions",
    "grants",
    "escapes",
    "rows_hour",
    "over_hour",
    "backup_age_s",
    "drill_age_s",
    "same_blast_radius",
    "rpo_s",
    "rto_s",
    "unproven",
];

/// The one attribute that is a record.
const BUDGET: &str = "budget";

/// What a reason may quote besides: the first thing that the token does not cover.
const OUT_OF_SCOPE: &str = "out_of_scope";

/// The system's window, of which only words can be quoted.
const WINDOW: &str = "window";

impl Mentions {
    /// Every attribute.
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// Adds the attribute `name`; one that isn't known adds all, to be safe.
    pub(crate) fn add(&mut self, name: &str) {
        self.0 |= bit(name).unwrap_or(u32::MAX);
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether the attribute `name` is looked at.
    pub(crate) fn has(self, name: &str) -> bool {
        bit(name).is_none_or(|bit| self.0 & bit != 0)
    }
}

fn bit(name: &str) -> Option<u32> {
    // Reasons quote these, which say the same as the attribute.
    let name = match name {
        OUT_OF_SCOPE => "in_scope",
        WINDOW => "window_s",
        name => name,
    };
    NAMES.iter().chain([&BUDGET]).position(|known| *known == name).map(|place| 1 << place)
}

/// The values of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// What the token does not cover, in words.
    pub(crate) out_of_scope: Option<String>,
    pub(crate) frozen: bool,
    pub(crate) production: bool,
    pub(crate) now: Timestamp,
    pub(crate) approvals: u32,
    pub(crate) delay: Duration,
    /// How long its system wants it to wait.
    pub(crate) window: Duration,
    pub(crate) undoable: bool,
    /// It can't be made so either.
    pub(crate) lasting: bool,
    pub(crate) measured: bool,
    pub(crate) estimated: bool,
    pub(crate) unbounded: bool,
    pub(crate) commit: bool,
    /// A call to a service, which no transaction takes back.
    pub(crate) call: bool,
    /// It opens a channel, and does nothing else that changes something.
    pub(crate) channel: bool,
    pub(crate) rows: u64,
    /// Rows of them that are not the largest statement's.
    pub(crate) rows_apart: u64,
    pub(crate) deleted: u64,
    pub(crate) dropped: u64,
    /// That number is what the text names: there may be more.
    pub(crate) dropped_by_text: bool,
    pub(crate) definitions: bool,
    pub(crate) grants: bool,
    pub(crate) escapes: bool,
    /// Without this operation's own rows.
    pub(crate) rows_before: u64,
    /// The environment's budget, its hour narrowed to what the token may change.
    pub(crate) budget: Budget,
    pub(crate) recovery: RecoveryFacts,
}

impl Circumstances {
    pub(crate) fn new(operation: &Operation, facts: &Facts, out_of_scope: Option<String>) -> Self {
        let reach = operation.reach.as_ref();
        let kinds = operation.kinds();
        let takes_away = |effect: &&Effect| match effect {
            Effect::Drop { .. } | Effect::Rewrite { .. } => true,
            Effect::Invoke { .. } => effect.kind() == Kind::Destroy,
            _ => false,
        };
        let named = operation.effects.iter().filter(takes_away).count() as u64;
        let counted = reach.map_or(0, |reach| (reach.dropped.len() as u64).saturating_add(reach.rewritten.len() as u64));
        // `DROP … IF EXISTS` of nothing moves nothing. Otherwise the text counts too: a dropped function is not in a reach.
        let nothing = reach.is_some_and(|reach| !reach.estimated && reach.is_empty());
        let hour = facts.budget.rows_per_hour.min(operation.principal.scope.rows_per_hour.unwrap_or(u64::MAX));
        Self {
            out_of_scope,
            frozen: facts.frozen,
            production: operation.environment.is_production(),
            now: facts.now,
            approvals: facts.approvals,
            delay: facts.delayed,
            window: facts.window,
            undoable: match facts.undoable {
                Undoability::None | Undoability::Impossible => false,
                Undoability::Secured => true,
            },
            lasting: match facts.undoable {
                Undoability::None | Undoability::Secured => false,
                Undoability::Impossible => true,
            },
            measured: reach.is_some_and(|reach| !reach.estimated),
            estimated: reach.is_some_and(|reach| reach.estimated),
            unbounded: operation.effects.iter().any(Effect::is_unbounded),
            commit: match operation.action {
                Action::Commit => true,
                Action::SelfContained | Action::InSession => false,
            },
            call: match operation.protocol {
                Protocol::Http => true,
                Protocol::Postgres => false,
            },
            channel: operation.effects.iter().any(Effect::is_channel)
                && operation.effects.iter().all(|effect| effect.is_channel() || effect.kind() == Kind::Read),
            rows: reach.map_or(0, |reach| reach.rows()),
            rows_apart: operation.rows_apart,
            deleted: reach.map_or(0, |reach| reach.deleted()),
            dropped: if nothing { 0 } else { named.max(counted) },
            dropped_by_text: named > counted || reach.is_none_or(|reach| reach.estimated),
            definitions: operation
                .effects
                .iter()
                .any(|effect| matches!(effect, Effect::Define { .. } | Effect::Drop { .. } | Effect::Rewrite { .. }))
                || reach.is_some_and(|reach| reach.touches_catalogs() || counted > 0),
            grants: kinds.contains(&Kind::Grant),
            escapes: kinds.contains(&Kind::Escape),
            rows_before: facts.rows_this_hour,
            budget: Budget { rows_per_hour: hour, ..facts.budget },
            recovery: facts.recovery.clone(),
        }
    }

    /// Rows that may still change: by the statement's and the transaction's budget, and in this hour.
    pub(crate) fn rows_left(&self) -> u64 {
        let own = self.budget.rows_per_statement.saturating_add(self.rows_apart).min(self.budget.rows_per_transaction);
        own.min(self.budget.rows_per_hour.saturating_sub(self.rows_before))
    }

    /// The same, had it been measured to change `rows` rows, all of them removed.
    pub(crate) fn assuming(&self, rows: u64, undoable: bool, out_of_scope: Option<String>) -> Self {
        Self { out_of_scope, rows, deleted: rows, measured: true, estimated: false, undoable, lasting: !undoable, ..self.clone() }
    }

    /// Rows that one statement of it may have changed.
    fn statement_rows(&self) -> u64 {
        self.rows.saturating_sub(self.rows_apart)
    }

    fn rows_hour(&self) -> u64 {
        self.rows_before.saturating_add(self.rows)
    }

    /// Whether the agent changes more than it may in an hour. An operation that changes nothing never does.
    pub(crate) fn over_hour(&self) -> bool {
        self.rows > 0 && self.rows_hour() > self.budget.rows_per_hour
    }

    /// Cedar's context with the attributes that `mentions` has. A rule that looks at another one errs, which refuses.
    pub(crate) fn context(&self, mentions: Mentions) -> Result<Context, String> {
        let mut pairs: Vec<(String, RestrictedExpression)> = Vec::with_capacity(NAMES.len() + 1);
        for name in NAMES.into_iter().filter(|name| mentions.has(name)) {
            if let Some(value) = self.value(name) {
                pairs.push((name.to_owned(), value.expression()));
            }
        }
        if mentions.has(BUDGET) {
            let budget = ["statement", "transaction", "hour", "dropped", "without_undo"]
                .map(|name| (name.to_owned(), Value::Number(self.budget(name).unwrap_or(0)).expression()));
            pairs.push((BUDGET.to_owned(), RestrictedExpression::new_record(budget).map_err(|error| error.to_string())?));
        }
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }

    /// The value of `name` in words, as a rule's `{name}` shows it.
    pub(crate) fn in_words(&self, name: &str) -> Option<String> {
        if name == OUT_OF_SCOPE {
            return Some(self.out_of_scope.clone().unwrap_or_else(|| "this".to_owned()));
        }
        if let Some(part) = name.strip_prefix("budget.") {
            return self.budget(part).map(|rows| rows.to_string());
        }
        if let Some(counted) = name.strip_suffix(".in_words") {
            return self.counted(counted);
        }
        Some(match self.value(name)? {
            Value::Truth(truth) => truth.to_string(),
            Value::Number(number) => number.to_string(),
        })
    }

    /// A count with its noun, and how sure it is.
    fn counted(&self, name: &str) -> Option<String> {
        let (sure, number, noun) = match name {
            WINDOW => return Some(in_hours(self.window)),
            "rows" if self.estimated => ("about ", self.rows, "row"),
            "rows" => ("", self.rows, "row"),
            "statement_rows" if self.rows_apart > 0 => ("up to ", self.statement_rows(), "row"),
            "statement_rows" if self.estimated => ("about ", self.statement_rows(), "row"),
            "statement_rows" => ("", self.statement_rows(), "row"),
            "dropped" if self.dropped_by_text => ("at least ", self.dropped, "object"),
            "dropped" => ("", self.dropped, "object"),
            _ => return None,
        };
        Some(format!("{sure}{number} {noun}{}", if number == 1 { "" } else { "s" }))
    }

    fn budget(&self, name: &str) -> Option<u64> {
        match name {
            "statement" => Some(self.budget.rows_per_statement),
            "transaction" => Some(self.budget.rows_per_transaction),
            "hour" => Some(self.budget.rows_per_hour),
            "dropped" => Some(self.budget.relations_dropped),
            "without_undo" => Some(self.budget.rows_without_undo),
            _ => None,
        }
    }

    fn value(&self, name: &str) -> Option<Value> {
        Some(match name {
            "in_scope" => Value::Truth(self.out_of_scope.is_none()),
            "frozen" => Value::Truth(self.frozen),
            "production" => Value::Truth(self.production),
            "hour_utc" => Value::Number(self.now.0 / 3_600_000 % 24),
            // The epoch was a Thursday.
            "weekday" => Value::Number((self.now.0 / 86_400_000 + 3) % 7 + 1),
            "approvals" => Value::Number(self.approvals.into()),
            "delay_s" => Value::Number(self.delay.as_secs()),
            "window_s" => Value::Number(self.window.as_secs()),
            "undoable" => Value::Truth(self.undoable),
            "measured" => Value::Truth(self.measured),
            "estimated" => Value::Truth(self.estimated),
            "unbounded" => Value::Truth(self.unbounded),
            "commit" => Value::Truth(self.commit),
            "call" => Value::Truth(self.call),
            "channel" => Value::Truth(self.channel),
            "rows" => Value::Number(self.rows),
            "statement_rows" => Value::Number(self.statement_rows()),
            "deleted" => Value::Number(self.deleted),
            "dropped" => Value::Number(self.dropped),
            "definitions" => Value::Truth(self.definitions),
            "grants" => Value::Truth(self.grants),
            "escapes" => Value::Truth(self.escapes),
            "rows_hour" => Value::Number(self.rows_hour()),
            "over_hour" => Value::Truth(self.over_hour()),
            "backup_age_s" => Value::Number(seconds_or_never(self.recovery.backup_age)),
            "drill_age_s" => Value::Number(seconds_or_never(self.recovery.drill_age)),
            "same_blast_radius" => Value::Truth(self.recovery.same_blast_radius),
            "rpo_s" => Value::Number(seconds_or_never(self.recovery.rpo)),
            "rto_s" => Value::Number(seconds_or_never(self.recovery.rto)),
            "unproven" => Value::Truth(self.recovery.unproven),
            _ => return None,
        })
    }
}

/// What never was is older than anything.
fn seconds_or_never(time: Option<Duration>) -> u64 {
    time.map_or(u64::MAX, |time| time.as_secs())
}

/// A time in the largest unit that tells it exactly.
fn in_hours(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0 => (0, "second"),
        _ if seconds.is_multiple_of(3_600) => (seconds / 3_600, "hour"),
        _ if seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

enum Value {
    Truth(bool),
    Number(u64),
}

impl Value {
    /// Numbers beyond Cedar's are its largest: still above every budget that a person would write.
    fn expression(&self) -> RestrictedExpression {
        match self {
            Self::Truth(truth) => RestrictedExpression::new_bool(*truth),
            Self::Number(number) => RestrictedExpression::new_long(i64::try_from(*number).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use cedar_policy::Request;

    use super::*;
    use crate::policy::SCHEMA;

    #[test]
    fn the_context_is_what_the_schema_says() {
        let budget = Budget::default();
        let circumstances = Circumstances {
            out_of_scope: None,
            frozen: false,
            production: true,
            now: Timestamp(1_767_614_400_000),
            approvals: 1,
            delay: Duration::from_millis(1_999),
            window: Duration::from_secs(172_800),
            undoable: true,
            lasting: false,
            measured: true,
            estimated: false,
            unbounded: false,
            commit: false,
            call: false,
            channel: false,
            rows: u64::MAX,
            rows_apart: 1,
            deleted: 2,
            dropped: 3,
            dropped_by_text: true,
            definitions: false,
            grants: false,
            escapes: false,
            rows_before: u64::MAX,
            budget,
            recovery: RecoveryFacts::default(),
        };
        let context = circumstances.context(Mentions::ALL).expect("a context");
        let schema = SCHEMA.as_ref().expect("the schema is right");
        let uid = |text: &str| text.parse().expect("an entity");
        let request = Request::new(uid(r#"Agent::"a""#), uid(r#"Action::"read""#), uid(r#"System::"s""#), context, Some(schema));
        assert!(request.is_ok(), "{:?}", request.err());
        let one = |name: &str| {
            let mut mentions = Mentions::default();
            mentions.add(name);
            mentions
        };
        for name in NAMES.into_iter().chain([BUDGET]) {
            assert!(circumstances.context(one(name)).is_ok_and(|context| context.get(name).is_some()), "{name}");
        }
        assert_eq!(one("of another version"), Mentions::ALL);
        for (name, expected) in [
            ("hour_utc", Some("12")),
            ("weekday", Some("1")),
            ("delay_s", Some("1")),
            ("budget.hour", Some("10000")),
            ("window_s", Some("172800")),
            ("window.in_words", Some("48 hours")),
            ("budget.year", None),
            ("other", None),
            ("rows.in_words", Some("18446744073709551615 rows")),
            ("dropped.in_words", Some("at least 3 objects")),
            ("deleted.in_words", None),
        ] {
            assert_eq!(circumstances.in_words(name).as_deref(), expected, "{name}");
        }
    }
}
