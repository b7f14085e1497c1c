//! One simulated life: agents, people, a database, and a gateway that may die at any moment.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use reprieve_gate::{Audit as _, Clock as _, Considered, Gate, GateOptions, Ran, Release};
use reprieve_operation::{
    Action, AgentName, Answer, Budget, Digest, Environment, Event, HoldStatus, IntentId, Kind, Outcome, Principal, Refusal, Scope,
    ScramVerifier, SessionId, TokenId,
};
use reprieve_policy::Policy;
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    database::{Assignment, Client, Database, Form, Job, Rule, Trouble, agreed},
    ledger::{Disk, Health, Ledger, StandingClock, lock},
    steps::{Task, pause},
    work::{Asker, Work, works_of},
};

/// How long a client waits for people.
const WAIT: Duration = Duration::from_secs(20);
/// When a hold that nobody answered is denied.
const EXPIRE: Duration = Duration::from_secs(120);
/// Steps after which everything that still runs must have ended.
const SETTLING: usize = 2_000;

/// A client's task, or Reprieve's own.
struct Running {
    task: Task<Ended>,
    /// Hangs up.
    gone: watch::Sender<bool>,
    /// Whether it is Reprieve's own run, which nobody can hang up.
    unattended: bool,
}

/// How a job ended, for the one who asked.
struct Ended {
    what: String,
    intent: Option<IntentId>,
    result: Result<Ran, Refusal>,
}

/// What a simulation breaks on purpose, so that it is seen to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Nothing.
    Nothing,
    /// The database makes changes final without clearance.
    Database,
    /// The ledger answers before an event is durable.
    Ledger,
}

/// One life of the gateway.
struct Life {
    ledger: Arc<Ledger>,
    gate: Arc<Gate>,
    follower: Task<()>,
}

/// A simulation of one seed.
pub(crate) struct World {
    random: StdRng,
    runtime: Arc<Runtime>,
    clock: Arc<StandingClock>,
    policy: Arc<arc_swap::ArcSwap<Policy>>,
    four_eyes: bool,
    budget: Budget,
    disk: Arc<Mutex<Disk>>,
    database: Arc<Mutex<Database>>,
    life: Life,
    running: Vec<Running>,
    broken: Broken,
    /// Steps, answered jobs, crashes: for the summary.
    pub(crate) counts: Counts,
}

/// What happened, to see that a simulation is worth its time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Steps taken.
    pub(crate) steps: usize,
    /// Jobs whose client got an answer.
    pub(crate) answered: usize,
    /// Effects that became final.
    pub(crate) applied: usize,
    /// Of these, by an approval.
    pub(crate) approved: usize,
    /// Holds opened.
    pub(crate) held: usize,
    /// Crashes.
    pub(crate) crashes: usize,
}

impl Counts {
    /// Adds another simulation's.
    pub(crate) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.answered += other.answered;
        self.applied += other.applied;
        self.approved += other.approved;
        self.held += other.held;
        self.crashes += other.crashes;
    }
}

impl World {
    /// A world from a seed; `four_eyes`: the policy asks two people about payments.
    pub(crate) fn new(seed: u64, runtime: Arc<Runtime>, policy: Arc<Policy>, four_eyes: bool, broken: Broken) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = Arc::new(StandingClock::new());
        let mut disk = Disk::default();
        for event in ["ada", "bob", "cyd"].into_iter().enumerate().map(|(number, name)| issued(number, name)) {
            disk.push(event, clock.now()).expect("tokens with different numbers");
        }
        let rows_per_hour = if random.gen_bool(0.2) { 25 } else { 10_000 };
        let budget = Budget { rows_per_statement: 10, rows_per_transaction: 15, rows_per_hour, relations_dropped: 0, rows_without_undo: 0 };
        let disk = Arc::new(Mutex::new(disk));
        let policy = Arc::new(arc_swap::ArcSwap::from(policy));
        let life = begin(&disk, &clock, &policy, budget, broken);
        let (database, counts) = (Arc::default(), Counts::default());
        Self { random, runtime, clock, policy, four_eyes, budget, disk, database, life, running: Vec::new(), broken, counts }
    }

    /// Lives through `steps` random steps, settles, and answers what went wrong.
    pub(crate) fn live(&mut self, steps: usize) -> Vec<(Rule, String)> {
        let runtime = self.runtime.clone();
        let _timers_belong_to_it = runtime.enter();
        for _ in 0..steps {
            self.step();
        }
        self.settle();
        self.check_releases();
        // An outcome or an end that found the queue full is made up for at the next start.
        self.crash();
        self.settle();
        self.check_the_end();
        let database = lock(&self.database);
        self.counts.applied = database.applied.len();
        database.violations.clone()
    }

    /// Every event that is durable, for whoever plays a seed again.
    pub(crate) fn story(&self) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::Concluded { intent, outcome, .. } => format!("concluded {intent}: {outcome:?}"),
            Event::Intent { intent, session, agent, text, .. } => {
                format!("intent {intent} {session} of {agent}: {}", text.replace('\n', " "))
            }
            Event::HoldOpened { hold, intent, needs, reach, .. } => format!("opened {hold} for {intent}: {} {reach:?}", needs.rule),
            Event::HoldAnswered { hold, operator, answer, .. } => format!("{operator} says {answer:?} to {hold}"),
            other => format!("{other:?}").chars().take(120).collect(),
        };
        lock(&self.disk).events.iter().map(|recorded| format!("{:>4} {}", recorded.index, line(&recorded.event))).collect()
    }

    fn violation(&self, rule: Rule, what: String) {
        lock(&self.database).violations.push((rule, what));
    }

    fn step(&mut self) {
        self.counts.steps += 1;
        match self.random.gen_range(0..1000) {
            0..=449 => self.poll_one(),
            450..=569 => {
                let count = self.random.gen_range(1..4);
                self.life.ledger.place(count);
            }
            570..=689 => {
                let count = self.random.gen_range(1..4);
                self.life.ledger.tell(count);
            }
            690..=759 => self.follow(),
            760..=829 => self.ask(),
            830..=899 => self.answer_a_hold(),
            900..=919 => self.run_unattended(),
            920..=934 => self.freeze_or_thaw(),
            935..=939 => self.revoke_or_reissue(),
            940..=949 => lock(&self.database).day += 1,
            950..=964 => self.pass_time(),
            965..=974 => self.hang_up(),
            975..=984 => {
                let full = self.life.ledger.health() == Health::Well && self.random.gen_bool(0.5);
                self.life.ledger.set_full(full);
            }
            985 | 986 if self.random.gen_bool(0.3) => {
                let reached = self.random.gen_range(0..=self.life.ledger.backlog().0);
                self.life.ledger.fail(reached);
            }
            987..=989 => self.crash(),
            990..=993 => self.abort(),
            // A failed storage lasts until the next start.
            _ if self.life.ledger.health() == Health::Failed => self.crash(),
            _ => self.poll_one(),
        }
    }

    /// Lets one task that can go on do so.
    fn poll_one(&mut self) {
        let ready: Vec<usize> = (0..self.running.len()).filter(|place| self.running[*place].task.is_woken()).collect();
        let Some(place) = ready.choose(&mut self.random) else { return };
        self.poll(*place);
    }

    fn poll(&mut self, place: usize) {
        if let Some(ended) = self.running[place].task.step() {
            self.running.swap_remove(place);
            self.counts.answered += 1;
            self.check_answer(&ended);
        }
    }

    fn follow(&mut self) {
        if self.life.follower.is_woken() {
            let _runs_for_ever = self.life.follower.step();
        }
    }

    /// Everything that can go on does, so that what comes next finds at most one reason for each waiting task to wake up.
    fn drain(&mut self) {
        self.follow();
        for _ in 0..1_000 {
            let Some(place) = (0..self.running.len()).find(|place| self.running[*place].task.is_woken()) else { return };
            self.poll(place);
        }
        self.violation("no-progress", "a task goes on for ever without waiting".to_owned());
    }

    /// A new client with a job.
    fn ask(&mut self) {
        if self.running.len() >= 6 {
            return;
        }
        let (number, agent) = *[(0, "ada"), (1, "bob"), (2, "cyd")].choose(&mut self.random).unwrap_or(&(0, "ada"));
        let asker = self.asker(number, agent);
        let trouble = match self.random.gen_range(0..20) {
            0 => Trouble::Error,
            1 => Trouble::Lost,
            2 => Trouble::LostAtCommit(self.random.gen_bool(0.5)),
            _ => Trouble::None,
        };
        let mut draw = |from: &[Work]| *from.choose(&mut self.random).unwrap_or(&Work::Touch);
        let (first, second, inside) = (draw(&Work::DRAWN), draw(&Work::INSIDE), draw(&Work::INSIDE));
        let job = match self.random.gen_range(0..10) {
            0 => Job::Read,
            1..=6 => Job::Statement(first),
            7 => Job::Transaction(vec![inside], true),
            8 => Job::Transaction(vec![inside, second], true),
            _ => Job::Transaction(vec![inside], false),
        };
        self.start(Assignment { asker, job, trouble });
    }

    fn asker(&self, number: u64, agent: &str) -> Asker {
        let agent: AgentName = agent.parse().expect("a name");
        let state = self.life.ledger.state();
        let known = state.agents.get(&agent);
        let principal = Principal {
            agent,
            token: known.map_or(TokenId(number), |known| known.token),
            on_behalf_of: known.and_then(|known| known.on_behalf_of.clone()),
            scope: known.map_or_else(|| Arc::new(scope()), |known| known.scope.clone()),
        };
        let environment = if number == 2 { "staging".parse().expect("a name") } else { Environment::production() };
        Asker { principal, system: "pocket".parse().expect("a name"), environment }
    }

    fn start(&mut self, assignment: Assignment) {
        let (gone, hears) = watch::channel(false);
        let unattended = matches!(assignment.job, Job::Unattended(_));
        let work = Worker {
            database: self.database.clone(),
            ledger: self.life.ledger.clone(),
            gate: self.life.gate.clone(),
            budget: self.budget,
            four_eyes: self.four_eyes,
            gone: hears,
            cheats: self.broken == Broken::Database,
            assignment,
        };
        self.running.push(Running { task: Task::new(work.work()), gone, unattended });
    }

    /// A person looks at a hold, as far as the desk would let them answer.
    fn answer_a_hold(&mut self) {
        let waiting: Vec<_> = {
            let state = self.life.ledger.state();
            state.holds.values().filter(|hold| hold.status == HoldStatus::Waiting && hold.expires > self.clock.now()).cloned().collect()
        };
        let Some(hold) = waiting.choose(&mut self.random) else { return };
        let operator = ["ana", "ben", "eve"].choose(&mut self.random).unwrap_or(&"ana").parse().expect("a name");
        if hold.answers.iter().any(|(answered, ..)| *answered == operator) {
            return;
        }
        let answer = if self.random.gen_bool(0.8) { Answer::Approve } else { Answer::Deny };
        let signed = hold.digest_to_sign(answer);
        let event =
            Event::HoldAnswered { hold: hold.hold, operator, answer, reason: "simulated".to_owned(), signature: String::new(), signed };
        drop(self.life.ledger.append(event));
    }

    fn run_unattended(&mut self) {
        if self.running.iter().any(|running| running.unattended) {
            return;
        }
        self.life.gate.expire_holds();
        let holds = self.life.gate.unattended();
        let Some(hold) = holds.first() else { return };
        let number = match hold.agent.as_str() {
            "ada" => 0,
            "bob" => 1,
            _ => 2,
        };
        let mut asker = self.asker(number, hold.agent.as_str());
        asker.principal.token = hold.token;
        let Some(work) = works_of(&hold.text).first().copied() else { return };
        self.start(Assignment { asker, job: Job::Unattended(work), trouble: Trouble::None });
    }

    fn freeze_or_thaw(&mut self) {
        let agent = ["ada", "bob", "cyd"].choose(&mut self.random).and_then(|name| name.parse().ok());
        let agent = if self.random.gen_bool(0.2) { None } else { agent };
        let reason = "simulated".to_owned();
        let event = if self.random.gen_bool(0.4) {
            Event::Frozen { agent, by: "ana".to_owned(), reason }
        } else {
            Event::Thawed { agent, by: "ana".parse().expect("a name"), reason }
        };
        drop(self.life.ledger.append(event));
    }

    fn revoke_or_reissue(&mut self) {
        let names = ["ada", "bob", "cyd"];
        let place = self.random.gen_range(0..names.len());
        let known = self.life.ledger.state().agents.get(&names[place].parse::<AgentName>().expect("a name")).cloned();
        let Some(known) = known else { return };
        if known.revoked {
            let token = self.life.ledger.state().next.token;
            if let Event::TokenIssued { agent, digest, verifier, scope, on_behalf_of, expires, parent, decoy, by, .. } =
                issued(place, names[place])
            {
                let token = TokenId(token);
                let event = Event::TokenIssued { token, agent, digest, verifier, scope, on_behalf_of, expires, parent, decoy, by };
                drop(self.life.ledger.append(event));
            }
        } else {
            drop(self.life.ledger.append(Event::TokenRevoked { token: known.token, by: "ana".parse().expect("a name") }));
        }
    }

    fn pass_time(&mut self) {
        self.drain();
        let by = Duration::from_secs(self.random.gen_range(1..15));
        self.advance(by);
        self.drain();
    }

    fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.runtime.block_on(tokio::time::advance(by));
    }

    /// A client hangs up: the session hears it where it listens.
    fn hang_up(&mut self) {
        self.drain();
        if let Some(running) = self.running.choose(&mut self.random)
            && !running.unattended
        {
            let _hears = running.gone.send(true);
        }
        self.drain();
    }

    /// A client's task ends in the middle of what it waits for.
    fn abort(&mut self) {
        let place = self.random.gen_range(0..self.running.len().max(1));
        if place < self.running.len() {
            self.running.swap_remove(place);
        }
    }

    /// The gateway dies, and starts again on what is durable.
    fn crash(&mut self) {
        self.counts.crashes += 1;
        self.life.ledger.die();
        self.running.clear();
        self.life = begin(&self.disk, &self.clock, &self.policy, self.budget, self.broken);
        let disk = lock(&self.disk);
        for intent in disk.intents.iter().filter(|intent| !disk.outcomes.contains_key(*intent)) {
            lock(&self.database).violations.push(("no-outcome", format!("{intent} after a start")));
        }
    }

    /// Nothing new comes: everything that runs has to end.
    fn settle(&mut self) {
        match self.life.ledger.health() {
            Health::Well | Health::Dead => {}
            Health::Full => self.life.ledger.set_full(false),
            Health::Failed => self.crash(),
        }
        for _ in 0..SETTLING {
            self.life.ledger.place(64);
            self.life.ledger.tell(64);
            self.drain();
            let (queued, untold) = self.life.ledger.backlog();
            if queued + untold > 0 {
                continue;
            }
            if self.running.is_empty() {
                return;
            }
            self.advance(WAIT / 2);
        }
        self.violation("no-answer", format!("{} clients wait for ever", self.running.len()));
    }

    /// What a client was told is what happened.
    fn check_answer(&self, ended: &Ended) {
        let Some(intent) = ended.intent else { return };
        let applied = lock(&self.database).applied.contains_key(&intent);
        let delivered = matches!(&ended.result, Ok(Ran::Final(done)) if done.tag.starts_with("result of"));
        match &ended.result {
            Ok(Ran::Final(_)) if applied || delivered => {}
            Ok(Ran::Final(_)) => self.violation("told-final", format!("{} {intent}: nothing was changed", ended.what)),
            Ok(Ran::Unknown) => {}
            _ if !applied => {}
            Ok(_) => self.violation("told-unchanged", format!("{} {intent}: it is final", ended.what)),
            Err(refusal) => self.violation("told-unchanged", format!("{} {intent}: it is final; was told: {refusal}", ended.what)),
        }
    }

    /// Nothing runs any more, so that no release is still being spent.
    fn check_releases(&self) {
        if self.life.ledger.has_refused() {
            return;
        }
        for hold in self.life.ledger.state().holds.values().filter(|hold| hold.status == HoldStatus::Released) {
            self.violation("release-not-finished", format!("{}: `{}`", hold.hold, hold.text.replace('\n', " ")));
        }
    }

    /// What the ledger says is what happened.
    fn check_the_end(&mut self) {
        let disk = lock(&self.disk);
        let mut found: Vec<(Rule, String)> = Vec::new();
        let mut seen: HashSet<IntentId> = HashSet::new();
        let mut concluded: HashMap<IntentId, usize> = HashMap::new();
        let (mut held, mut approved) = (0, 0);
        let mut state = reprieve_operation::State::default();
        for recorded in &disk.events {
            match &recorded.event {
                Event::Intent { intent, .. } if !seen.insert(*intent) => found.push(("intent-twice", intent.to_string())),
                Event::Concluded { intent, .. } => *concluded.entry(*intent).or_default() += 1,
                Event::HoldOpened { hold, .. } => {
                    held += 1;
                    if state.holds.contains_key(hold) {
                        found.push(("hold-twice", hold.to_string()));
                    }
                }
                Event::HoldReleased { hold, .. } => {
                    approved += 1;
                    if !agreed(&disk, *hold) {
                        found.push(("released-unapproved", hold.to_string()));
                    }
                    if state.holds.get(hold).is_some_and(|hold| hold.status != HoldStatus::Approved) {
                        found.push(("released-too-late", format!("{hold}: {:?}", state.holds[hold].status)));
                    }
                }
                _ => {}
            }
            state.apply(recorded);
        }
        let database = lock(&self.database);
        for intent in &seen {
            let outcome = disk.outcomes.get(intent);
            let applied = database.applied.get(intent);
            match (outcome, applied) {
                (None, _) => found.push(("no-outcome", intent.to_string())),
                (Some(Outcome::Done { reach, .. }), Some(applied)) if reach != applied => {
                    found.push(("wrong-outcome", format!("{intent} reached {applied}, recorded: {reach}")));
                }
                (Some(Outcome::Done { reach, .. }), None) if !reach.is_empty() => {
                    found.push(("wrong-outcome", format!("{intent} reached nothing, recorded: {reach}")));
                }
                (Some(Outcome::Failed { .. } | Outcome::Refused { .. } | Outcome::Abandoned), Some(applied)) => {
                    found.push(("wrong-outcome", format!("{intent} reached {applied}, recorded: {outcome:?}")));
                }
                _ => {}
            }
            if concluded.get(intent).is_some_and(|times| *times > 1) {
                found.push(("second-outcome", intent.to_string()));
            }
        }
        for hold in state.holds.values().filter(|hold| hold.status == HoldStatus::Released) {
            found.push(("release-never-finished", hold.hold.to_string()));
        }
        drop(database);
        drop(disk);
        self.counts.held = held;
        self.counts.approved = approved;
        lock(&self.database).violations.extend(found);
    }
}

fn scope() -> Scope {
    Scope {
        kinds: [Kind::Read, Kind::Write, Kind::Destroy, Kind::Grant].into(),
        environments: [Environment::production(), "staging".parse().expect("a name")].into(),
        systems: ["pocket".parse().expect("a name")].into(),
        resources: ["*".parse().expect("a pattern")].into(),
        rows_per_hour: None,
    }
}

fn issued(number: usize, agent: &str) -> Event {
    Event::TokenIssued {
        token: TokenId(number as u64 + 1),
        agent: agent.parse().expect("a name"),
        digest: Digest::of(&[agent.as_bytes()]),
        verifier: ScramVerifier { stored_key: String::new(), server_key: String::new() },
        scope: scope(),
        on_behalf_of: (number == 0).then(|| "ana".parse().expect("a name")),
        expires: reprieve_operation::Timestamp(u64::MAX),
        parent: None,
        decoy: false,
        by: "ana".parse().expect("a name"),
    }
}

fn begin(
    disk: &Arc<Mutex<Disk>>,
    clock: &Arc<StandingClock>,
    policy: &Arc<arc_swap::ArcSwap<Policy>>,
    budget: Budget,
    broken: Broken,
) -> Life {
    let ledger = Arc::new(Ledger::start(disk.clone(), clock.clone(), broken == Broken::Ledger));
    let environments = [Environment::production(), "staging".parse().expect("a name")];
    let options = GateOptions {
        budgets: environments.into_iter().map(|environment| (environment, budget)).collect(),
        wait: WAIT,
        expire: EXPIRE,
        open_holds: 4,
        link: "https://example.invalid/holds/".to_owned(),
    };
    let gate = Arc::new(Gate::new(ledger.clone(), clock.clone(), policy.clone(), options));
    let following = gate.clone();
    let mut follower = Task::new(async move { following.follow().await });
    let _runs_for_ever = follower.step(); // follows from the first event on
    Life { ledger, gate, follower }
}

/// What a task is made of.
struct Worker {
    database: Arc<Mutex<Database>>,
    ledger: Arc<Ledger>,
    gate: Arc<Gate>,
    budget: Budget,
    four_eyes: bool,
    gone: watch::Receiver<bool>,
    cheats: bool,
    assignment: Assignment,
}

impl Worker {
    async fn work(self) -> Ended {
        let what = format!("{} of {}", name(&self.assignment.job), self.assignment.asker.principal.agent);
        let asker = &self.assignment.asker;
        let unattended = matches!(self.assignment.job, Job::Unattended(_));
        let session = match self.gate.open_session(&asker.principal, &asker.system, "simulated", None).await {
            Ok(session) => session,
            Err(refusal) => return Ended { what, intent: None, result: Err(refusal) },
        };
        let (intent, result) = match self.assignment.job.clone() {
            Job::Read => {
                let mut operation = asker.operation(session, &[], Action::InSession);
                operation.effects =
                    [reprieve_operation::Effect::Read { relation: reprieve_operation::ObjectName::bare("vehicles") }].into();
                (
                    None,
                    match self.gate.consider(&operation) {
                        Considered::Pass => Ok(Ran::Abandoned),
                        Considered::Hold(refusal) | Considered::Refuse(refusal) => Err(refusal),
                    },
                )
            }
            Job::Statement(work) | Job::Unattended(work) => {
                let operation = asker.operation(session, &[work], Action::SelfContained);
                let mut client = self.client(session, None, Form::Statement(work), unattended);
                let result = self.gate.handle(operation, &mut client).await;
                (self.ledger.intent_of(session), result)
            }
            Job::Transaction(works, commits) => self.transaction(session, &works, commits).await,
        };
        Ended { what, intent, result }
    }

    fn client(&self, session: SessionId, intent: Option<IntentId>, form: Form, kept: bool) -> Client {
        Client {
            database: self.database.clone(),
            ledger: self.ledger.clone(),
            session,
            intent,
            form,
            trouble: self.assignment.trouble,
            kept,
            gone: self.gone.clone(),
            budget: self.budget,
            four_eyes: self.four_eyes,
            cheats: self.cheats,
        }
    }

    /// A client's transaction as the PostgreSQL session carries it: each statement admitted or released, the COMMIT decided.
    async fn transaction(&self, session: SessionId, works: &[Work], commits: bool) -> (Option<IntentId>, Result<Ran, Refusal>) {
        let asker = &self.assignment.asker;
        let mut intent = None;
        let mut reaches = Vec::new();
        let mut releases: Vec<Release> = Vec::new();
        for work in works {
            let operation = asker.operation(session, &[*work], Action::InSession);
            match self.gate.consider(&operation) {
                Considered::Pass => {}
                Considered::Refuse(refusal) => return (None, Err(refusal)),
                Considered::Hold(_) => {
                    let mut client = self.client(session, None, Form::Release(*work), false);
                    match self.gate.release_statement(operation.clone(), &mut client).await {
                        Ok(release) => releases.extend(release),
                        Err(refusal) => return (None, Err(refusal)),
                    }
                }
            }
            if intent.is_none() {
                match self.gate.intend(&operation) {
                    Ok(opened) => intent = Some(opened),
                    Err(refusal) => return (None, Err(refusal)),
                }
            }
            let day = lock(&self.database).day;
            reaches.push(work.reach(day));
            pause().await;
        }
        let Some(intent) = intent.filter(|_| commits) else { return (None, Ok(Ran::Abandoned)) };
        let id = intent.id();
        let operation = asker.operation(session, works, Action::Commit);
        let approved = releases.iter().map(Release::approved).map(|approved| (approved.hold, approved.reach.clone())).collect();
        let plain = works.iter().all(|work| work.is_plain());
        let mut client = self.client(session, Some(id), Form::Commit(reaches, approved, plain), false);
        let result = self.gate.carry_released(intent, operation, &mut client, &mut releases).await;
        for release in releases {
            drop(release.finish(matches!(result, Ok(Ran::Final(_))), None));
        }
        (Some(id), result)
    }
}

fn name(job: &Job) -> String {
    format!("{job:?}")
}
