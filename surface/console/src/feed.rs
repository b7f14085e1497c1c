//! The feed: what agents do, a row each, reads folded into one row a minute per agent and system.
//!
//! One task follows the ledger and renders each row once for everybody. It hands rows on a few times a second, at most so many at
//! once, so that neither ten thousand events a minute nor two hundred open pages choke anything.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use maud::{Markup, html};
use reprieve_gate::RecordQuery;
use reprieve_operation::{
    AgentName, Environment, Event, HoldId, HoldStatus, IntentId, Kind, Outcome, Reach, Recorded, RefusalKind, State as Folded, SystemName,
    Timestamp,
};
use tokio::{
    sync::{broadcast, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    pages::ending,
    site::Console,
    statement::in_line,
    words::{Risk, agent, environment, icon, number, outcome, rail, roughly, time, verb, visible},
};

/// Rows that are kept.
const MOST_ROWS: usize = 300;
/// Rows that a page begins with, so that it stays light; older ones are in the record.
const MOST_AT_FIRST: usize = 120;
/// Rows in one message to a page; older ones of the same moment are in the record only.
const MOST_AT_ONCE: usize = 60;
/// Intents whose outcome is awaited.
const MOST_OPEN: usize = 8_192;
/// How often pages hear of rows: with many pages open, what they cost goes by this. Holds and freezes are told at once.
const TICK: Duration = Duration::from_millis(300);
/// Minutes of the chart.
const MINUTES: usize = 60;

/// What a page hears.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// Rows, newest first, as HTML.
    Rows(Arc<str>),
    /// A hold was opened, answered or ended.
    Hold,
    /// Something was frozen or thawed.
    Freeze,
}

/// What a row is shown with: holds go on, and time goes by.
pub(crate) struct View<'a> {
    pub(crate) state: &'a Folded,
    pub(crate) now: Timestamp,
    pub(crate) undo_window: Duration,
}

/// A row of the feed.
#[derive(Debug, Clone)]
struct Row {
    id: u64,
    at: Timestamp,
    /// None where it concerns no system.
    environment: Option<Environment>,
    who: Option<AgentName>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Reads { count: u64, text: String },
    Change { text: String, kinds: Vec<Kind>, outcome: Outcome },
    Frozen { text: String },
    Note { text: String, alarm: bool },
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Minute {
    pub(crate) minute: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) held: u64,
    pub(crate) denied: u64,
}

#[derive(Default)]
struct Kept {
    rows: VecDeque<Row>,
    next: u64,
    open: HashMap<IntentId, (Environment, String, Vec<Kind>)>,
    reads: HashMap<(AgentName, SystemName), (u64, u64)>,
    minutes: VecDeque<Minute>,
    last: HashMap<AgentName, (Timestamp, String)>,
    /// When and by whom everything was frozen last, and why.
    stopped: Option<(Timestamp, String)>,
}

/// The feed, filled by [`follow`].
pub(crate) struct Feed {
    kept: Mutex<Kept>,
    news: broadcast::Sender<News>,
}

impl Feed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), news: broadcast::Sender::new(64) })
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// The rows as they are, newest first.
    pub(crate) fn rows(&self, view: &View<'_>) -> Markup {
        let kept = self.kept();
        html! { @for row in kept.rows.iter().take(MOST_AT_FIRST) { (row.render(view)) } }
    }

    /// The last hour, oldest minute first.
    pub(crate) fn hour(&self, now: Timestamp) -> Vec<Minute> {
        let kept = self.kept();
        let this = now.0 / 60_000;
        let first = this.saturating_sub(MINUTES as u64 - 1);
        (first..=this)
            .map(|minute| kept.minutes.iter().find(|own| own.minute == minute).copied().unwrap_or(Minute { minute, ..Minute::default() }))
            .collect()
    }

    /// What an agent did last, and when.
    pub(crate) fn last(&self, agent: &AgentName) -> Option<(Timestamp, String)> {
        self.kept().last.get(agent).cloned()
    }

    /// When everything was frozen last, by whom and why; as far back as the feed remembers.
    pub(crate) fn stopped(&self) -> Option<(Timestamp, String)> {
        self.kept().stopped.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills the feed from the record, then follows it until the listener closes.
pub(crate) async fn follow(feed: Arc<Feed>, console: Arc<Console>, mut closing: watch::Receiver<bool>) {
    let mut events = console.audit.follow();
    let records = console.records.clone();
    let past = tokio::task::spawn_blocking(move || records.search(&RecordQuery { limit: 1_000, ..RecordQuery::default() })).await;
    let mut known = None;
    for recorded in past.ok().and_then(Result::ok).into_iter().flatten().rev() {
        known = Some(recorded.index);
        feed.kept().take(&recorded, &console);
    }
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fresh: Vec<u64> = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            _ = tick.tick() => feed.tell(&mut fresh, &console),
            event = events.recv() => match event {
                Ok(recorded) if known.is_some_and(|known| recorded.index <= known) => {}
                Ok(recorded) => {
                    if let Some(row) = feed.kept().take(&recorded, &console) && !fresh.contains(&row) {
                        fresh.push(row);
                    }
                    feed.tell_of(&recorded.event);
                }
                // The pages show the newest anyway; what was missed is in the record.
                Err(broadcast::error::RecvError::Lagged(missed)) => tracing::debug!(missed, "the feed skips events"),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

impl Feed {
    fn tell(&self, fresh: &mut Vec<u64>, console: &Console) {
        if fresh.is_empty() {
            return;
        }
        if self.news.receiver_count() > 0 {
            let skip = fresh.len().saturating_sub(MOST_AT_ONCE);
            let state = console.audit.state();
            let view = View { state: &state, now: console.clock.now(), undo_window: console.undo_window };
            let kept = self.kept();
            let rows = fresh[skip..].iter().rev().filter_map(|id| kept.rows.iter().find(|row| row.id == *id));
            let html = html! { @for row in rows { (row.render(&view)) } }.into_string();
            // Nobody may have stayed to listen.
            let _ = self.news.send(News::Rows(html.into()));
        }
        fresh.clear();
    }

    fn tell_of(&self, event: &Event) {
        let news = match event {
            Event::HoldOpened { .. }
            | Event::HoldAnswered { .. }
            | Event::HoldExpired { .. }
            | Event::HoldCancelled { .. }
            | Event::HoldReleased { .. }
            | Event::HoldFinished { .. } => News::Hold,
            Event::Frozen { .. } | Event::Thawed { .. } | Event::DecoyPresented { .. } => News::Freeze,
            _ => return,
        };
        let _ = self.news.send(news);
    }
}

impl Kept {
    /// Takes an event in; answers the row that is new or changed.
    fn take(&mut self, recorded: &Recorded, console: &Console) -> Option<u64> {
        let at = recorded.at;
        match &recorded.event {
            Event::Reads { agent, system, reads, .. } => {
                let count: u64 = reads.iter().map(|tally| tally.count).sum();
                let text = reads.iter().max_by_key(|tally| tally.count).map(|tally| tally.text.clone()).unwrap_or_default();
                self.minute(at).reads += count;
                self.remember(agent, at, "reads");
                let key = (agent.clone(), system.clone());
                let minute = at.0 / 60_000;
                let folded = self.reads.get(&key).filter(|(own, _)| *own == minute).map(|(_, id)| *id);
                if let Some(row) = folded.and_then(|id| self.rows.iter_mut().find(|row| row.id == id))
                    && let What::Reads { count: sum, .. } = &mut row.what
                {
                    *sum += count;
                    return Some(row.id);
                }
                self.reads.retain(|_, (own, _)| *own == minute);
                let id = self.push(at, console.environment_of(system), Some(agent.clone()), What::Reads { count, text });
                self.reads.insert(key, (minute, id));
                Some(id)
            }
            Event::Intent { intent, environment, text, kinds, .. } => {
                if self.open.len() < MOST_OPEN {
                    self.open.insert(*intent, (environment.clone(), text.clone(), kinds.clone()));
                }
                None
            }
            Event::UndoStarted { intent, environment, operator, reverts, .. } => {
                let text = format!("{operator} takes back {}", reverts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
                if self.open.len() < MOST_OPEN {
                    self.open.insert(*intent, (environment.clone(), text, Vec::new()));
                }
                None
            }
            Event::Concluded { intent, agent, outcome, statements } => {
                let (environment, text, kinds) = self.open.remove(intent)?;
                let minute = self.minute(at);
                match outcome {
                    Outcome::Refused { refusal } if refusal.kind == RefusalKind::Held => minute.held += 1,
                    Outcome::Refused { .. } => minute.denied += 1,
                    _ => minute.writes += 1,
                }
                let text = if statements.is_empty() { text } else { statements.join("; ") };
                self.remember(agent, at, "changes");
                Some(self.push(at, environment, Some(agent.clone()), What::Change { text, kinds, outcome: outcome.clone() }))
            }
            Event::Frozen { agent, by, reason } => {
                let whom = if agent.is_some() { "" } else { "All agents. " };
                let why = if reason.is_empty() { String::new() } else { format!(": “{reason}”") };
                if agent.is_none() {
                    self.stopped = Some((at, format!("by {by}{why}")));
                }
                Some(self.push(at, None, agent.clone(), What::Frozen { text: format!("{whom}By {by}{why}") }))
            }
            Event::DecoyPresented { claimed, peer, .. } => {
                let text = format!("Frozen by rule: a decoy token was presented from {peer}");
                Some(self.push(at, None, Some(claimed.clone()), What::Frozen { text }))
            }
            Event::Thawed { agent, by, reason } => {
                let text = format!("Thawed by {by}: {reason}");
                Some(self.push(at, None, agent.clone(), What::Note { text, alarm: false }))
            }
            Event::HoldAnswered { hold, operator, answer, .. } => {
                let word = if *answer == reprieve_operation::Answer::Approve { "approved" } else { "denied" };
                Some(self.push(at, None, None, What::Note { text: format!("{operator} {word} {hold}"), alarm: false }))
            }
            Event::SessionRefused { claimed, system, peer, reason } => {
                let text = format!("Turned away at the door of {system}: {claimed} from {peer}, {reason}");
                Some(self.push(at, None, None, What::Note { text, alarm: false }))
            }
            Event::Alarm { what, agent } => Some(self.push(at, None, agent.clone(), What::Note { text: what.clone(), alarm: true })),
            _ => None,
        }
    }

    fn push(&mut self, at: Timestamp, environment: impl Into<Option<Environment>>, who: Option<AgentName>, what: What) -> u64 {
        let id = self.next;
        self.next += 1;
        self.rows.push_front(Row { id, at, environment: environment.into(), who, what });
        self.rows.truncate(MOST_ROWS);
        id
    }

    fn minute(&mut self, at: Timestamp) -> &mut Minute {
        let minute = at.0 / 60_000;
        if self.minutes.back().is_none_or(|last| last.minute < minute) {
            self.minutes.push_back(Minute { minute, ..Minute::default() });
            while self.minutes.len() > MINUTES {
                self.minutes.pop_front();
            }
        }
        self.minutes.back_mut().expect("one was pushed where there was none")
    }

    fn remember(&mut self, agent: &AgentName, at: Timestamp, what: &str) {
        self.last.insert(agent.clone(), (at, what.to_owned()));
    }
}

impl Row {
    fn render(&self, view: &View<'_>) -> Markup {
        let id = format!("r{}", self.id);
        let rail = self.environment.as_ref().map_or("s", rail);
        let head = |risk: Markup| {
            html! {
                span.when { (time(self.at, view.now)) } @match &self.environment { Some(place) => (environment(place)), None => span {} } (risk)
                @match &self.who { Some(name) => (agent(name, view.state.frozen_because(name).is_some())), None => span.muted { "–" } }
            }
        };
        match &self.what {
            What::Reads { count, text } => html! {
                li id=(id) class={ (rail) " quiet" } data-f="read" {
                    (head(Risk::Read.mark("Read")))
                    span.st { (number(*count)) @if *count == 1 { " read: " } @else { " reads, mostly " } code { (in_line(text)) } }
                    span.eff {} (outcome("ran", "check", "Passed"))
                }
            },
            What::Change { text, kinds, outcome } => render_change(&id, rail, head, (text, kinds, outcome), (self.at, view)),
            What::Frozen { text } => html! {
                li id=(id) class={ (rail) " ice" } data-f="stopped" {
                    (head(html! { span.risk.ice { (icon("freeze")) "Frozen" } }))
                    span.st { (visible(text)) } span.eff {} a.small href="/audit?kind=frozen" { "Proof" }
                }
            },
            What::Note { text, alarm } => html! {
                li id=(id) class={ (rail) @if *alarm { " alarm" } @else { " quiet" } } data-f=[alarm.then_some("stopped")] {
                    (head(html! { span.risk.wide[*alarm].read[!*alarm] { (icon(if *alarm { "warn" } else { "key" })) @if *alarm { "Alarm" } @else { "People" } } }))
                    span.st { (visible(text)) } span.eff {} span {}
                }
            },
        }
    }
}

fn render_change(
    id: &str,
    rail: &str,
    head: impl Fn(Markup) -> Markup,
    (text, kinds, done): (&str, &[Kind], &Outcome),
    (at, view): (Timestamp, &View<'_>),
) -> Markup {
    let (reach, hold): (Option<&Reach>, Option<HoldId>) = match done {
        Outcome::Done { reach, .. } => (Some(reach), None),
        Outcome::Refused { refusal } => (refusal.reach.as_ref(), refusal.hold),
        Outcome::Failed { .. } | Outcome::Abandoned | Outcome::Unknown => (None, None),
    };
    let risk = Risk::of(kinds, reach);
    let stopped = matches!(done, Outcome::Refused { .. });
    let alarm = stopped && risk == Risk::Destroy;
    let filters = match (risk == Risk::Destroy, stopped) {
        (true, true) => "change destroy stopped",
        (true, false) => "change destroy",
        (false, true) => "change stopped",
        (false, false) => "change",
    };
    let verb = match (risk, reach) {
        (Risk::Destroy, Some(reach)) if !reach.found.is_empty() => "Delete",
        (Risk::Destroy, Some(reach)) if !reach.is_empty() => verb(&[], Some(reach)),
        _ => risk.word(),
    };
    let marked = match done {
        Outcome::Done { reach, .. } if reach.is_undoable() && reach.rows() > 0 => {
            let left = at.plus(view.undo_window).since(view.now);
            let words = if left.is_zero() { "Undo is over".to_owned() } else { format!("Undo for {}", roughly(left)) };
            outcome("undo", "undo", &words)
        }
        Outcome::Done { reach, .. } if reach.is_empty() => outcome("ran", "check", "Passed"),
        Outcome::Done { .. } => outcome("ran", "check", "Ran, lasting"),
        Outcome::Failed { code } => html! { span.out.ran { (icon("x")) "Failed " (visible(code)) } },
        Outcome::Refused { refusal } => match refusal.kind {
            RefusalKind::Held => match hold.and_then(|hold| view.state.holds.get(&hold)) {
                Some(hold) if hold.status == HoldStatus::Waiting => {
                    outcome("held", "holds", &format!("Held, {} left", roughly(hold.expires.since(view.now))))
                }
                Some(hold) => ending(hold),
                None => outcome("held", "holds", "Held"),
            },
            RefusalKind::Refused => outcome("denied", "deny", "Denied"),
            RefusalKind::Frozen => outcome("denied", "deny", "Refused"),
            RefusalKind::Unavailable => outcome("denied", "deny", "Unavailable"),
        },
        Outcome::Abandoned => outcome("undo", "undo", "Rolled back"),
        Outcome::Unknown => outcome("held", "warn", "Not known"),
    };
    html! {
        li id=(id) class={ (rail) @if alarm { " alarm" } } data-f=(filters) {
            (head(risk.mark(verb)))
            @if let (Outcome::Refused { refusal }, true) = (done, alarm) {
                span.two { code.st { (in_line(text)) } span.why.st { (visible(&refusal.reason)) } }
            } @else { span.st { code { (in_line(text)) } } }
            span.eff { @if let Some(reach) = reach { (crate::words::effect(reach)) } }
            span { (marked) @if let Some(hold) = hold { br; a.small href={ "/holds/" (hold) } data-row { "Review " (hold) } } }
        }
    }
}
