//! The protected database of a simulation: what becomes final in it is checked at that very moment, against what is durable.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use reprieve_gate::{Audit as _, Clock as _, Done, Permit, Ran, Running, Upstream};
use reprieve_operation::{
    Action, Answer, Budget, Digest, Event, HoldId, IntentId, Operation, OperatorName, Reach, Refusal, SessionId, State, TableReach,
};
use tokio::sync::watch;

use crate::{
    ledger::{Disk, Ledger, lock},
    steps::pause,
    work::{Asker, Work},
};

/// What a run of the gate must never do, by name: one that stands open is listed in `simulation.rs`.
pub(crate) type Rule = &'static str;

/// Everything that outlives a crash of the gateway, besides its ledger.
#[derive(Default)]
pub(crate) struct Database {
    /// What became final, by the intent it ran under.
    pub(crate) applied: HashMap<IntentId, Reach>,
    /// Holds whose release was used up by something final.
    used: BTreeSet<HoldId>,
    /// Holds whose kept result was handed over.
    delivered: BTreeSet<HoldId>,
    /// How far the data has grown.
    pub(crate) day: u64,
    /// What went wrong.
    pub(crate) violations: Vec<(Rule, String)>,
}

/// How a client's run meets trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It doesn't.
    None,
    /// The database itself says no.
    Error,
    /// The connection is lost before anything is final.
    Lost,
    /// The connection is lost while it becomes final; whether it did is the second opinion.
    LostAtCommit(bool),
}

/// What the client sends.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// One statement with its own transaction.
    Statement(Work),
    /// The COMMIT of a transaction that ran these, each with what it did then, and the releases it drew on.
    Commit(Vec<Reach>, Vec<(HoldId, Option<Reach>)>, bool),
    /// Nothing: a release for this statement is asked for.
    Release(Work),
}

/// One client's end at the database, or Reprieve's own.
pub(crate) struct Client {
    /// The database.
    pub(crate) database: Arc<Mutex<Database>>,
    /// The ledger of this life, to check against.
    pub(crate) ledger: Arc<Ledger>,
    /// The session.
    pub(crate) session: SessionId,
    /// The intent, where it was opened before.
    pub(crate) intent: Option<IntentId>,
    /// What is sent.
    pub(crate) form: Form,
    /// How it goes.
    pub(crate) trouble: Trouble,
    /// Whether nobody listens, so that the result is kept.
    pub(crate) kept: bool,
    /// Turns true when the client hangs up.
    pub(crate) gone: watch::Receiver<bool>,
    /// What may change without a person.
    pub(crate) budget: Budget,
    /// Whether payments need two people.
    pub(crate) four_eyes: bool,
    /// Whether it makes everything final without asking, to see that the checks see it.
    pub(crate) cheats: bool,
}

impl Client {
    fn violation(&self, rule: Rule, what: String) {
        lock(&self.database).violations.push((rule, what));
    }

    fn reach(&self) -> Reach {
        let day = lock(&self.database).day;
        match &self.form {
            Form::Statement(work) | Form::Release(work) => work.reach(day),
            Form::Commit(reaches, ..) => {
                let mut sum = Reach::default();
                reaches.iter().for_each(|reach| sum.add(reach));
                sum
            }
        }
    }

    fn intent(&self) -> Option<IntentId> {
        self.intent.or_else(|| self.ledger.intent_of(self.session))
    }

    /// Something was cleared to become final: for somebody who may go on, as far as everybody was told.
    fn check_clearance(&self, operation: &Operation) {
        let agent = &operation.principal.agent;
        // A thaw that is durable counts, and a freeze once everybody was told.
        let (told, durable) = (self.ledger.told(), self.ledger.state());
        if told.frozen_because(agent).is_some() && durable.frozen_because(agent).is_some() {
            self.violation("cleared-while-frozen", format!("`{}` of {agent}", operation.text));
        }
        let void = |state: &State| state.agents.get(agent).is_none_or(|it| it.revoked || it.token != operation.principal.token);
        if void(&told) && void(&durable) {
            self.violation("cleared-for-revoked", format!("`{}` of {agent}", operation.text));
        }
    }

    fn rows_this_hour(&self, operation: &Operation) -> u64 {
        self.ledger.told().rows_this_hour(&operation.principal.agent, self.ledger.clock().now())
    }

    /// Makes it final.
    fn apply(&self, operation: &Operation, reach: &Reach, rows_before: u64) {
        let told = |what: &str| format!("{what}: `{}` of {}: {reach}", operation.text.replace('\n', " "), operation.principal.agent);
        let Some(intent) = self.intent() else { return self.violation("effect-without-intent", told("no intent")) };
        let disk = self.ledger.disk();
        if !disk.intents.contains(&intent) {
            self.violation("effect-without-intent", told(&format!("{intent} is not durable")));
        }
        let mut holds: BTreeSet<HoldId> = released_to(&disk, intent);
        let mut beyond = reach.clone();
        if let Form::Commit(_, approved, _) = &self.form {
            for (hold, reach) in approved {
                holds.insert(*hold);
                if !agreed(&disk, *hold) {
                    self.violation("over-budget", told(&format!("nobody agreed to {hold}")));
                }
                match reach {
                    Some(reach) => beyond = rest(&beyond, reach),
                    None => beyond = Reach::default(),
                }
            }
        }
        for hold in &holds {
            if !lock(&self.database).used.insert(*hold) {
                self.violation("approved-twice", told(&format!("{hold} was used before")));
            }
        }
        let whole = holds.iter().any(|hold| self.approves(&disk, *hold, &operation.digest(), reach));
        if !whole && let Some(why) = self.over_budget(operation, &beyond, rows_before) {
            self.violation("over-budget", told(&format!("{why}, {intent}, {holds:?}")));
        }
        if disk.outcomes.contains_key(&intent) {
            self.violation("effect-after-outcome", told(&intent.to_string()));
        }
        drop(disk);
        if lock(&self.database).applied.insert(intent, reach.clone()).is_some() {
            self.violation("applied-twice", told(&intent.to_string()));
        }
    }

    /// Whether a person has to have agreed, told in the words of the rules but not by their code.
    fn over_budget(&self, operation: &Operation, reach: &Reach, rows_before: u64) -> Option<&'static str> {
        let budget = &self.budget;
        let limit = if operation.action == Action::Commit { budget.rows_per_transaction } else { budget.rows_per_statement };
        if reach.rows() > limit {
            Some("rows")
        } else if reach.rows() > 0 && rows_before + reach.rows() > budget.rows_per_hour {
            Some("rows in this hour")
        } else if !reach.dropped.is_empty() || !reach.rewritten.is_empty() {
            Some("relations")
        } else if !reach.escapes.is_empty() {
            Some("escapes")
        } else if reach.catalogs.contains_key("pg_authid") {
            Some("privileges")
        } else if self.four_eyes && reach.tables.get("public.payments").is_some_and(|rows| rows.deleted > 0) {
            Some("payments")
        } else {
            None
        }
    }

    /// Whether people agreed to all of `reach`, by the events alone.
    fn approves(&self, disk: &Disk, hold: HoldId, digest: &Digest, reach: &Reach) -> bool {
        let opened = disk.events.iter().find_map(|recorded| match &recorded.event {
            Event::HoldOpened { hold: id, digest, reach, .. } if *id == hold => Some((digest, reach)),
            _ => None,
        });
        let Some((asked, approved)) = opened else { return false };
        let people = approvers(disk, hold);
        let payments = reach.tables.get("public.payments").is_some_and(|rows| rows.deleted > 0);
        let eyes = !(self.four_eyes && payments) || people.len() >= 2;
        let within = approved.as_ref().is_none_or(|approved| is_nothing(&rest(reach, approved)));
        agreed(disk, hold) && eyes && within && asked == digest
    }
}

fn is_nothing(reach: &Reach) -> bool {
    reach.rows() == 0 && reach.dropped.is_empty() && reach.rewritten.is_empty() && reach.catalogs.is_empty() && reach.escapes.is_empty()
}

/// What of `reach` was not approved; told again here, so that the gate's own comparison is checked by another one.
fn rest(reach: &Reach, approved: &Reach) -> Reach {
    let mut rest = Reach::default();
    for (name, rows) in &reach.tables {
        let limit = approved.tables.get(name).copied().unwrap_or_default();
        let over = TableReach {
            inserted: rows.inserted.saturating_sub(limit.inserted),
            updated: rows.updated.saturating_sub(limit.updated),
            deleted: rows.deleted.saturating_sub(limit.deleted),
        };
        if over.rows() > 0 {
            rest.tables.insert(name.clone(), over);
        }
    }
    let missing = |mine: &[String], theirs: &[String]| mine.iter().filter(|name| !theirs.contains(name)).cloned().collect::<Vec<_>>();
    rest.dropped = missing(&reach.dropped, &approved.dropped);
    rest.rewritten = missing(&reach.rewritten, &approved.rewritten);
    rest.escapes = missing(&reach.escapes, &approved.escapes);
    // Rows of catalogs can't be estimated: an approved DROP of a name covers them.
    let by_name = approved.estimated && !(approved.dropped.is_empty() && approved.rewritten.is_empty());
    for (name, rows) in reach.catalogs.iter().filter(|_| !by_name) {
        let over = rows.saturating_sub(approved.catalogs.get(name).copied().unwrap_or(0));
        if over > 0 {
            rest.catalogs.insert(name.clone(), over);
        }
    }
    rest
}

/// Who approved a hold before anybody denied it or it expired.
pub(crate) fn approvers(disk: &Disk, hold: HoldId) -> BTreeSet<OperatorName> {
    let mut people = BTreeSet::new();
    for recorded in &disk.events {
        match &recorded.event {
            Event::HoldAnswered { hold: id, operator, answer: Answer::Approve, .. } if *id == hold => {
                people.insert(operator.clone());
            }
            Event::HoldAnswered { hold: id, answer: Answer::Deny, .. } if *id == hold => break,
            _ => {}
        }
    }
    people
}

/// Whether enough people approved a hold, and not only the one whom the agent acts for.
pub(crate) fn agreed(disk: &Disk, hold: HoldId) -> bool {
    let people = approvers(disk, hold);
    disk.events.iter().any(|recorded| match &recorded.event {
        Event::HoldOpened { hold: id, on_behalf_of, needs, .. } if *id == hold => {
            let alone = people.len() == 1 && people.iter().next() == on_behalf_of.as_ref();
            !alone && people.len() >= needs.approvals.max(1) as usize
        }
        _ => false,
    })
}

fn released_to(disk: &Disk, intent: IntentId) -> BTreeSet<HoldId> {
    let released = |event: &Event| match event {
        Event::HoldReleased { hold, intent: to } if *to == intent => Some(*hold),
        _ => None,
    };
    disk.events.iter().filter_map(|recorded| released(&recorded.event)).collect()
}

impl Upstream for Client {
    fn run<'a>(&'a mut self, mut permit: Permit<'a>) -> Running<'a, Result<Ran, Refusal>> {
        Box::pin(async move {
            let operation = permit.operation().clone();
            let rows_before = self.rows_this_hour(&operation);
            pause().await;
            match self.trouble {
                Trouble::None | Trouble::LostAtCommit(_) => {}
                Trouble::Error => return Ok(Ran::Failed { code: "40001".to_owned() }),
                Trouble::Lost => return Err(Refusal::unavailable("connection", "lost")),
            }
            if self.cheats {
                let reach = self.reach();
                return Ok(self.finish(&operation, reach, rows_before).await);
            }
            let (plain, approved) = match &self.form {
                Form::Statement(work) => (work.is_plain(), Vec::new()),
                Form::Commit(_, approved, plain) => (*plain && approved.is_empty(), approved.clone()),
                Form::Release(_) => {
                    self.violation("release-was-run", operation.text.to_string());
                    return Err(Refusal::unavailable("bug", "a release was run"));
                }
            };
            if let Some(ceiling) = permit.ceiling().filter(|_| plain) {
                let _clearance = permit.within_ceiling().await?;
                self.check_clearance(&operation);
                pause().await;
                let reach = self.reach();
                if reach.rows() > ceiling {
                    pause().await;
                    return Ok(Ran::Beyond(reach)); // the database itself rolled it back
                }
                return Ok(self.finish(&operation, reach, rows_before).await);
            }
            let reach = self.reach();
            pause().await;
            let left = approved.iter().fold(reach.clone(), |left, (_, approved)| match approved {
                Some(approved) => left.undecided(approved),
                None => left,
            });
            if !left.is_empty() && permit.clear(&left).await?.is_none() {
                pause().await;
                return Ok(Ran::Beyond(left));
            }
            let _durable = permit.within_ceiling().await?;
            self.check_clearance(&operation);
            pause().await;
            Ok(self.finish(&operation, reach, rows_before).await)
        })
    }

    fn estimate<'a>(&'a mut self, _operation: &'a Operation) -> Running<'a, Option<Reach>> {
        Box::pin(async move {
            pause().await;
            let day = lock(&self.database).day;
            match &self.form {
                Form::Statement(work) => work.estimate(day),
                Form::Release(work) => work.estimate(day).filter(|reach| reach.estimated),
                Form::Commit(_, approved, _) => {
                    let reach = self.reach();
                    Some(
                        approved
                            .iter()
                            .filter_map(|(_, approved)| approved.as_ref())
                            .fold(reach, |left, approved| left.undecided(approved)),
                    )
                }
            }
        })
    }

    fn can_wait(&self) -> bool {
        match self.form {
            Form::Statement(_) => !self.kept,
            Form::Commit(..) | Form::Release(_) => false,
        }
    }

    fn tell_waiting<'a>(&'a mut self, _refusal: &'a Refusal) -> Running<'a, ()> {
        Box::pin(pause())
    }

    fn gone(&mut self) -> Running<'_, ()> {
        Box::pin(async move {
            if self.gone.wait_for(|gone| *gone).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn deliver<'a>(&'a mut self, kept: &'a str) -> Running<'a, bool> {
        Box::pin(async move {
            pause().await;
            let hold: Option<HoldId> = kept.parse().ok();
            match hold {
                Some(hold) if lock(&self.database).delivered.insert(hold) => {}
                _ => self.violation("delivered-twice", format!("`{kept}`")),
            }
            matches!(self.form, Form::Statement(_))
        })
    }
}

impl Client {
    async fn finish(&self, operation: &Operation, reach: Reach, rows_before: u64) -> Ran {
        if let Trouble::LostAtCommit(arrived) = self.trouble {
            if arrived {
                self.apply(operation, &reach, rows_before);
            }
            pause().await;
            return Ran::Unknown;
        }
        self.apply(operation, &reach, rows_before);
        pause().await; // final, and the answer is on its way
        let kept = self.kept.then(|| {
            let intent = self.intent().unwrap_or(IntentId(0));
            released_to(&self.ledger.disk(), intent).first().map(ToString::to_string).unwrap_or_default()
        });
        Ran::Final(Done { tag: "DONE".to_owned(), reach, xid: None, kept })
    }
}

/// What the agent asks for.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// A read, which is only admitted.
    Read,
    /// A statement by itself.
    Statement(Work),
    /// A transaction, committed or not.
    Transaction(Vec<Work>, bool),
    /// An approved hold that nobody waits for.
    Unattended(Work),
}

/// Who does what, as one value that a task is made of.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    /// Who and where.
    pub(crate) asker: Asker,
    /// What.
    pub(crate) job: Job,
    /// How it goes.
    pub(crate) trouble: Trouble,
}
