//! The notifier: follows the ledger, tells each channel once of each hold that waits, and records how that ended.
//!
//! What was told is an event, so that a restart tells nobody twice and nobody not at all. Everything has a limit: attempts, messages at
//! a time, messages an hour.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use reprieve_gate::{Audit, Clock};
use reprieve_operation::{Event, HoldId, HoldState, HoldStatus, Timestamp};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinSet,
};

use crate::{Channel, ChannelError, Message};

/// How long after a failed attempt the next one comes.
const RETRY_AFTER: [Duration; 4] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];
/// Messages that are being handed over at one time.
const MOST_AT_ONCE: usize = 8;
/// Messages one channel gets in an hour: an agent must not be able to drown it. The next ones wait for the hour to end.
const MOST_AN_HOUR: usize = 60;
const HOUR: Duration = Duration::from_secs(3_600);
/// Nothing sleeps longer, so that a clock that was set is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a notifier has to be told.
#[derive(Debug)]
pub struct NotifierOptions {
    /// Where people hear of holds, in the order of the settings.
    pub channels: Vec<Channel>,
    /// What a hold's id is appended to.
    pub link: String,
}

/// Tells people of holds.
pub struct Notifier {
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    channels: Arc<Vec<Channel>>,
    link: String,
}

/// One message to one channel, with the attempts so far.
#[derive(Debug, Clone, Copy)]
struct Task {
    hold: HoldId,
    channel: usize,
    attempts: usize,
}

#[derive(Default)]
struct Plan {
    /// By time, and in order within it.
    due: BTreeMap<(Timestamp, u64), Task>,
    next: u64,
    known: HashSet<(HoldId, usize)>,
    /// When each channel was told something in the last hour.
    told: HashMap<usize, VecDeque<Timestamp>>,
}

impl Plan {
    fn add(&mut self, at: Timestamp, task: Task) {
        self.next += 1;
        self.due.insert((at, self.next), task);
    }

    fn take(&mut self, now: Timestamp) -> Option<Task> {
        let (at, _) = *self.due.keys().next()?;
        if at > now { None } else { self.due.pop_first().map(|(_, task)| task) }
    }

    /// When a channel that has told enough may tell again.
    fn limited(&mut self, channel: usize, now: Timestamp) -> Option<Timestamp> {
        let told = self.told.entry(channel).or_default();
        while told.front().is_some_and(|first| now.since(*first) >= HOUR) {
            told.pop_front();
        }
        if told.len() < MOST_AN_HOUR { None } else { told.front().map(|first| first.plus(HOUR)) }
    }
}

impl Notifier {
    /// A notifier over a ledger.
    pub fn new(audit: Arc<dyn Audit>, clock: Arc<dyn Clock>, options: NotifierOptions) -> Self {
        Self { audit, clock, channels: Arc::new(options.channels), link: options.link }
    }

    /// Works until `stopped` turns true.
    pub async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        if self.channels.is_empty() {
            return;
        }
        let mut events = self.audit.follow();
        let mut plan = Plan::default();
        self.plan_waiting(&mut plan);
        let mut running: JoinSet<(Task, Result<(), ChannelError>)> = JoinSet::new();
        loop {
            self.begin(&mut plan, &mut running);
            let now = self.clock.now();
            let sleep = plan.due.keys().next().map_or(LOOK_EVERY, |(at, _)| at.since(now).clamp(Duration::from_millis(10), LOOK_EVERY));
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                event = events.recv() => match event {
                    Ok(recorded) => if let Event::HoldOpened { hold, .. } = &recorded.event {
                        let hold = self.audit.state().holds.get(hold).cloned();
                        if let Some(hold) = hold { self.plan_one(&mut plan, &hold) }
                    },
                    Err(RecvError::Lagged(_)) => self.plan_waiting(&mut plan),
                    Err(RecvError::Closed) => return,
                },
                Some(done) = running.join_next(), if !running.is_empty() => match done {
                    Ok((task, result)) => self.ended(&mut plan, task, result),
                    Err(error) => tracing::error!(%error, "a notification ended in a bug"),
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn plan_waiting(&self, plan: &mut Plan) {
        let waiting: Vec<HoldState> =
            self.audit.state().holds.values().filter(|hold| hold.status == HoldStatus::Waiting).cloned().collect();
        plan.known.retain(|(hold, _)| waiting.iter().any(|own| own.hold == *hold));
        for hold in &waiting {
            self.plan_one(plan, hold);
        }
    }

    fn plan_one(&self, plan: &mut Plan, hold: &HoldState) {
        for (at, channel) in self.channels.iter().enumerate() {
            let concerned = channel.environments.is_empty() || channel.environments.contains(&hold.environment);
            if concerned && !hold.notified.contains(&channel.name) && plan.known.insert((hold.hold, at)) {
                plan.add(hold.opened.plus(channel.after), Task { hold: hold.hold, channel: at, attempts: 0 });
            }
        }
    }

    /// Begins what is due, as far as there is room.
    fn begin(&self, plan: &mut Plan, running: &mut JoinSet<(Task, Result<(), ChannelError>)>) {
        let now = self.clock.now();
        while running.len() < MOST_AT_ONCE {
            let Some(task) = plan.take(now) else { return };
            let Some(channel) = self.channels.get(task.channel) else { continue };
            let message = {
                let state = self.audit.state();
                let waiting = state.holds.get(&task.hold).filter(|hold| hold.status == HoldStatus::Waiting);
                waiting.map(|hold| Message::of(hold, &self.link, now))
            };
            // Decided meanwhile: nobody needs to hear of it.
            let Some(message) = message else {
                plan.known.remove(&(task.hold, task.channel));
                continue;
            };
            let quiet = channel.quiet.and_then(|quiet| quiet.left(now)).map(|left| now.plus(left));
            if let Some(later) = quiet.or_else(|| plan.limited(task.channel, now)) {
                plan.add(later, task);
                continue;
            }
            plan.told.entry(task.channel).or_default().push_back(now);
            let channels = self.channels.clone();
            running.spawn_blocking(move || (task, channels[task.channel].route.hand_over(&message, now)));
        }
    }

    fn ended(&self, plan: &mut Plan, task: Task, result: Result<(), ChannelError>) {
        let Some(channel) = self.channels.get(task.channel) else { return };
        let attempts = task.attempts + 1;
        let (delivered, detail) = match result {
            Ok(()) => (true, String::new()),
            Err(error) => {
                tracing::warn!(channel = channel.name, hold = %task.hold, %error, attempts, "a notification was not handed over");
                if let Some(after) = RETRY_AFTER.get(task.attempts) {
                    plan.add(self.clock.now().plus(*after), Task { attempts, ..task });
                    return;
                }
                (false, error.to_string())
            }
        };
        if !delivered {
            let what = format!("`{}` was not told of {}: {detail}", channel.name, task.hold);
            drop(self.audit.append(Event::Alarm { what, agent: None }));
        }
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        drop(self.audit.append(Event::Notified { hold: task.hold, channel: channel.name.clone(), delivered, attempts, detail }));
    }
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("channels", &self.channels).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_order_and_a_full_channel_waits_for_its_hour() {
        let mut plan = Plan::default();
        let task = |hold| Task { hold: HoldId(hold), channel: 0, attempts: 0 };
        plan.add(Timestamp(2_000), task(2));
        plan.add(Timestamp(1_000), task(1));
        plan.add(Timestamp(1_000), task(3));
        assert!(plan.take(Timestamp(999)).is_none());
        let taken: Vec<u64> = std::iter::from_fn(|| plan.take(Timestamp(5_000))).map(|task| task.hold.0).collect();
        assert_eq!(taken, [1, 3, 2]);

        let start = Timestamp(1_800_000_000_000);
        for _ in 0..MOST_AN_HOUR {
            assert_eq!(plan.limited(0, start), None);
            plan.told.entry(0).or_default().push_back(start);
        }
        assert_eq!(plan.limited(0, start), Some(start.plus(HOUR)));
        assert_eq!(plan.limited(1, start), None);
        assert_eq!(plan.limited(0, start.plus(HOUR)), None);
    }
}
