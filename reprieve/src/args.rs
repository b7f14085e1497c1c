//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use reprieve_gate::RowName;
use reprieve_operation::{AgentName, HoldId, Kind, OperatorName, Pattern, Role, SessionId, SystemName, UndoId};

/// Stands between AI agents and production: every change an agent makes is undoable or approved.
#[derive(Debug, Parser)]
#[command(
    name = "reprieve",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 held, 4 refused.\nExample: reprieve init && reprieve serve"
)]
pub(crate) struct Cli {
    /// The settings.
    #[arg(long, global = true, default_value = "reprieve.toml", env = "REPRIEVE_CONFIG")]
    pub(crate) config: PathBuf,
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make settings, keys and the first operator in this folder.
    #[command(after_help = "Example: reprieve init --operator ana")]
    Init(Init),
    /// Run the gateway.
    #[command(after_help = "Example: reprieve serve --json\nThe first line of output says {\"ready\":true,…} when it serves.")]
    Serve,
    /// Print what would be in force, and whether everything needed is there.
    #[command(after_help = "Example: reprieve check")]
    Check,
    /// What a database allows and what can be promised there; sets it up for Reprieve, or takes that away again.
    #[command(
        after_help = "Example: reprieve protect pocket-prod --check\n--apply and --remove log in with the system's `admin` and print what they do first."
    )]
    Protect(Protect),
    /// Credentials that only the gateway puts on the wire.
    #[command(subcommand, after_help = "Example: reprieve secret set prod < url.txt")]
    Secret(Secret),
    /// Agents and their tokens.
    #[command(subcommand)]
    Agent(Agent),
    /// Operators.
    #[command(subcommand)]
    Operator(Operator),
    /// Operations that wait for a person.
    #[command(subcommand)]
    Hold(Hold),
    /// Variables for a shell whose tools go through the gateway. Reads the agent's token from REPRIEVE_TOKEN.
    #[command(after_help = "Example: eval \"$(REPRIEVE_TOKEN=rpv_… reprieve env --agent cursor-staging)\"")]
    Env {
        #[arg(long)]
        agent: AgentName,
    },
    /// What was approved and waits in sight of everybody before it is carried out.
    #[command(subcommand)]
    Schedule(Schedule),
    /// What agents changed, and the way back.
    #[command(subcommand)]
    Undo(Undo),
    /// What undo keeps outside of the databases.
    #[command(subcommand)]
    Vault(Vault),
    /// Stop an agent, or all, at once. Needs no second factor.
    #[command(after_help = "Example: reprieve freeze --all")]
    Freeze(Freeze),
    /// Let an agent, or all, go on.
    #[command(after_help = "Example: reprieve thaw cursor-staging --reason 'looked at its session'")]
    Thaw(Thaw),
    /// The tamper-evident record.
    #[command(subcommand)]
    Ledger(Ledger),
    /// The rules.
    #[command(subcommand)]
    Policy(Policy),
    /// How a text is understood: one input a line on stdin, one JSON line out.
    #[command(subcommand)]
    Explain(Explain),
    /// Requests to services.
    #[command(subcommand)]
    Http(Http),
    /// What each service's operations mean.
    #[command(subcommand)]
    Catalog(Catalog),
    /// Copies of protected databases.
    #[command(subcommand)]
    Backup(Backup),
    /// Proof that copies come back: the newest is restored into a throw-away server and looked at.
    #[command(subcommand)]
    Drill(Drill),
    /// Bring a copy back, into a new place. Takes an operator; never overwrites.
    #[command(
        after_help = "Example: reprieve restore pocket-prod --to /var/lib/postgresql/restored --at '2026-05-12 14:02:10' --reason 'disk lost'\nTimes are UTC unless they say otherwise."
    )]
    Restore(Restore),
    /// What is known about coming back.
    #[command(subcommand)]
    Recovery(Recovery),
    /// The eight points, from what is measured here. Exit 1 unless all of them hold.
    Checklist,
    /// Everything about one agent, or one stretch of time, in a folder that can be checked without us.
    #[command(
        after_help = "Example: reprieve incident cursor-staging --to incident\nExample: reprieve incident '2026-04-25 09:00:00' --to incident"
    )]
    Incident(Incident),
    /// Whether an incident's folder, or a published recovery page, is what its ledger says. Needs the public key alone.
    #[command(
        after_help = "Example: reprieve verify incident --key ledger.pub\nExample: curl -s https://HOST:PORT/recovery/public.json > page.json && reprieve verify page.json --key 'reprieve+…'\nGet the key from the gateway's owner, and not from what is checked. Exit 1 if anything is not as it says."
    )]
    Verify(Verify),
    /// The incident, replayed against a real PostgreSQL that is thrown away afterwards.
    #[command(after_help = "Example: reprieve demo --keep")]
    Demo(Demo),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The first operator's name.
    #[arg(long, default_value = "operator")]
    pub(crate) operator: OperatorName,
    /// The host name agents will use.
    #[arg(long, default_value = "localhost")]
    pub(crate) host: String,
}

#[derive(Debug, Args)]
pub(crate) struct Protect {
    pub(crate) system: SystemName,
    #[command(flatten)]
    pub(crate) what: ProtectWhat,
    /// Only print what would be done.
    #[arg(long, conflicts_with = "check")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ProtectWhat {
    /// Only look.
    #[arg(long)]
    pub(crate) check: bool,
    /// Install what makes measuring fast. Running it again brings it up to date.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Take away everything that was installed.
    #[arg(long)]
    pub(crate) remove: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Read a value from stdin and seal it under a name; settings refer to it as `secret:NAME`.
    Set { name: String },
    /// Names, never values.
    List,
    /// Forget one.
    Remove { name: String },
}

/// Which operator acts. The passphrase is read from `REPRIEVE_PASSPHRASE` or asked for, the code from `REPRIEVE_CODE` or asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct As {
    /// The operator; the only one with a key here if missing.
    #[arg(long = "as", env = "REPRIEVE_OPERATOR")]
    pub(crate) operator: Option<OperatorName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// A new agent, or a new token for one. The token is shown once.
    #[command(after_help = "Example: reprieve agent add cursor-staging --system pocket-staging --allow read,write --expires 30d")]
    Add {
        name: AgentName,
        /// A system it may reach; may be given again.
        #[arg(long = "system", required = true)]
        systems: Vec<SystemName>,
        /// read, write, destroy, grant.
        #[arg(long, value_delimiter = ',', default_value = "read", value_parser = kind)]
        allow: Vec<Kind>,
        /// A resource pattern such as public.*; may be given again. All if missing.
        #[arg(long = "resource")]
        resources: Vec<Pattern>,
        /// The operator it acts for, who can't be its only approver.
        #[arg(long)]
        on_behalf_of: Option<OperatorName>,
        /// When the token is void.
        #[arg(long, default_value = "30d")]
        expires: String,
        /// Its own limit of rows an hour.
        #[arg(long)]
        rows_per_hour: Option<u64>,
        /// The agent whose token this one narrows.
        #[arg(long)]
        parent: Option<AgentName>,
        #[command(flatten)]
        by: As,
    },
    /// Agents and what their tokens cover.
    List,
    /// A token that is bait: whoever presents it is frozen.
    #[command(after_help = "Example: reprieve agent decoy old-deploy-token")]
    Decoy {
        name: AgentName,
        #[command(flatten)]
        by: As,
    },
    /// Make an agent's token and its children void at once.
    Revoke {
        name: AgentName,
        #[command(flatten)]
        by: As,
    },
    /// Take rights from an agent's token.
    Narrow {
        name: AgentName,
        #[arg(long, value_delimiter = ',', required = true, value_parser = kind)]
        allow: Vec<Kind>,
        #[arg(long = "resource")]
        resources: Vec<Pattern>,
        #[command(flatten)]
        by: As,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make a key and a second factor for another operator, and add them.
    #[command(after_help = "Example: reprieve operator add jonas --as ana")]
    Add {
        name: OperatorName,
        /// `viewer`, `approver` or `administrator`.
        #[arg(long, default_value = "administrator")]
        role: Role,
        #[command(flatten)]
        by: As,
    },
    /// Let an operator do more, or less.
    #[command(after_help = "Example: reprieve operator role jonas approver --as ana")]
    Role {
        name: OperatorName,
        role: Role,
        #[command(flatten)]
        by: As,
    },
    /// Codes to print and lock away: each lets you enrol one passkey when you have lost yours. Those before are void.
    #[command(after_help = "Example: reprieve operator recovery-codes --as ana")]
    RecoveryCodes {
        #[command(flatten)]
        by: As,
    },
    /// Operators and their roles.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hold {
    /// What waits, newest first.
    List {
        /// Ended ones too.
        #[arg(long)]
        all: bool,
    },
    /// One hold: who, what, where, and what it reaches.
    #[command(after_help = "Example: reprieve hold show H-17")]
    Show { id: HoldId },
    /// Let it run, once, as measured.
    #[command(after_help = "Example: reprieve hold approve H-17 --confirm reservations --reason 'load-test leftovers'")]
    Approve {
        id: HoldId,
        /// The resource's name, typed.
        #[arg(long)]
        confirm: Option<String>,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        by: As,
    },
    /// Say no; the agent gets to read the reason.
    #[command(after_help = "Example: reprieve hold deny H-17 --reason 'it matches 41,872 rows, not 212'")]
    Deny {
        id: HoldId,
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        by: As,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Schedule {
    /// What is carried out when.
    List,
    /// Don't carry it out. Any operator may, also the one who approved it.
    #[command(after_help = "Example: reprieve schedule cancel H-17 --reason 'that volume is production'")]
    Cancel {
        id: HoldId,
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        by: As,
    },
    /// Carry it out now. Takes another operator than the one who approved it.
    #[command(after_help = "Example: reprieve schedule run H-17 --confirm pocket-db-data --as jonas")]
    Run {
        id: HoldId,
        /// The resource's name, typed.
        #[arg(long)]
        confirm: Option<String>,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        by: As,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Undo {
    /// What was changed, newest first, and whether it can be undone.
    #[command(after_help = "Example: reprieve undo list --agent cursor-staging --since 2h")]
    List {
        #[command(flatten)]
        which: Which,
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One change: what undoing it would do, and what is in the way.
    #[command(after_help = "Example: reprieve undo show U-17 --diff")]
    Show {
        id: UndoId,
        /// The rows, before and after.
        #[arg(long)]
        diff: bool,
    },
    /// Put back what was changed, in one transaction that can be undone itself. Nothing that others changed since is overwritten.
    #[command(
        after_help = "Example: reprieve undo apply U-17\nExample: reprieve undo apply --session S-4 --theirs --reason 'the whole session'\nExample: reprieve undo apply U-17 --ours --keep public.orders:17"
    )]
    Apply {
        ids: Vec<UndoId>,
        #[command(flatten)]
        which: Which,
        /// Only say what it would do.
        #[arg(long)]
        dry_run: bool,
        /// Leave rows that others changed since as they are, and undo the rest.
        #[arg(long, conflicts_with = "ours")]
        theirs: bool,
        /// Overwrite rows that others changed since.
        #[arg(long)]
        ours: bool,
        /// Leave one row as it is, and undo the rest: `--keep public.orders:17`. Again for each row; `show --diff` prints their names.
        #[arg(long, value_name = "TABLE:KEY")]
        keep: Vec<RowName>,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        by: As,
    },
}

/// Which changes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Of one agent.
    #[arg(long)]
    pub(crate) agent: Option<AgentName>,
    /// Of one connection.
    #[arg(long)]
    pub(crate) session: Option<SessionId>,
    /// In one system.
    #[arg(long)]
    pub(crate) system: Option<SystemName>,
    /// Not older than this, e.g. 2h.
    #[arg(long)]
    pub(crate) since: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Vault {
    /// Objects with rows of finished changes, newest first, and how full the vault is.
    #[command(after_help = "Example: reprieve vault ls --limit 5")]
    Ls {
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// The rows of a change as they lie in the vault, one JSON line each. Needs no database.
    #[command(after_help = "Example: reprieve vault export U-17 > rows.jsonl")]
    Export { id: UndoId },
    /// Read everything to its end, and look for what the ledger says is there. Exit 1 if something is damaged or missing.
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct Freeze {
    pub(crate) agent: Option<AgentName>,
    #[arg(long, conflicts_with = "agent")]
    pub(crate) all: bool,
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Thaw {
    pub(crate) agent: Option<AgentName>,
    #[arg(long, conflicts_with = "agent")]
    pub(crate) all: bool,
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) by: As,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Recompute everything: hashes, order, signatures, and the head kept outside. Exit 1 if anything was changed.
    #[command(
        after_help = "Example: reprieve ledger verify\nThe checkpoint is a signed note: keep a copy elsewhere and pass it with --since."
    )]
    Verify {
        /// An earlier checkpoint (a file with a signed note) that this ledger must continue.
        #[arg(long)]
        since: Option<PathBuf>,
    },
    /// Go on with a ledger that has lost events: after the gateway came back from a copy. Everything is frozen then.
    Resume {
        #[arg(long)]
        reason: String,
    },
    /// The newest events.
    Tail {
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Keep printing what is added.
        #[arg(long)]
        follow: bool,
    },
    /// Events that match, newest first.
    #[command(after_help = "Example: reprieve ledger search --agent cursor-staging --text reservations")]
    Search {
        #[arg(long)]
        agent: Option<AgentName>,
        #[arg(long)]
        hold: Option<HoldId>,
        #[arg(long)]
        kind: Option<String>,
        #[arg(long)]
        text: Option<String>,
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Every event, one JSON line each, in order.
    Export,
    /// The proof that one event is in the ledger, verifiable without it.
    Prove { index: u64 },
    /// The newest signed checkpoint.
    Checkpoint,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Check the policy files as they are.
    Check,
    /// Ask other rules about everything that agents did, and show each answer that would change.
    #[command(after_help = "Example: reprieve policy simulate --with proposed-policies --profile guard --since 7d")]
    Simulate {
        /// The proposed `*.cedar` files; those in force if it is left out.
        #[arg(long, value_name = "FOLDER")]
        with: Option<PathBuf>,
        /// The proposed profile; the one in force if it is left out.
        #[arg(long)]
        profile: Option<reprieve_policy::Profile>,
        /// How far back.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// The least each agent's token would need for what it really did.
    #[command(after_help = "Example: reprieve policy suggest cursor-staging --since 30d")]
    Suggest {
        /// Only this agent.
        agent: Option<AgentName>,
        /// How far back.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    /// SQL. A line is JSON {"text": …, "system": …}, or the SQL itself.
    #[command(after_help = "Example: echo 'DELETE FROM reservations' | reprieve explain sql")]
    Sql {
        /// The environment to decide for, where a line names no system.
        #[arg(long, default_value = "production")]
        environment: reprieve_operation::Environment,
    },
    /// Requests. A line is JSON {"request": {"method", "url", "headers", "body"}, "system" or "provider": …}, or a curl command.
    #[command(after_help = "Example: echo 'DELETE https://api.cloudflare.com/client/v4/zones/z1' | reprieve explain http")]
    Http {
        /// The environment to decide for, where a line names no system.
        #[arg(long, default_value = "production")]
        environment: reprieve_operation::Environment,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Http {
    /// How a request is understood, what the rules say to it, and why. Nothing is sent.
    #[command(
        after_help = "Example: reprieve http explain -- curl https://backboard.railway.com/graphql/v2 --json '{\"query\":\"mutation { volumeDelete(volumeId: \\\"v\\\") }\"}'"
    )]
    Explain {
        /// The provider, where its host doesn't tell.
        #[arg(long)]
        provider: Option<String>,
        /// The environment to decide for.
        #[arg(long, default_value = "production")]
        environment: reprieve_operation::Environment,
        /// A curl command line.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Catalog {
    /// Providers, or what is known of one's operations.
    #[command(after_help = "Example: reprieve catalog show railway volumeDelete")]
    Show {
        provider: Option<String>,
        /// Only operations with this in their name.
        operation: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Make a copy now.
    #[command(after_help = "Example: reprieve backup now pocket-prod")]
    Now { system: SystemName },
    /// Copy the gateway's own ledger, keys and settings now. Each copy of a database does that too.
    Gateway,
    /// Remove the copies whose time (`keep`) is over. Each copy of a database does that too.
    Purge { system: SystemName },
    /// Recovery points, newest first.
    List {
        system: Option<SystemName>,
        /// Look through the vault itself, for when the ledger is gone.
        #[arg(long)]
        vault: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Drill {
    /// Restore the newest copy into a throw-away server and look for what is wrong with it. Exit 1 if anything is.
    #[command(after_help = "Example: reprieve drill run pocket-prod")]
    Run {
        system: SystemName,
        /// Look for the newest copy in the vault itself.
        #[arg(long)]
        vault: bool,
    },
    /// Say what was done about the last drill that failed; everybody who may see the recovery page reads it. Takes an operator.
    #[command(after_help = "Example: reprieve drill remedy pocket-prod --done 'recovery.scratch was full: moved to a disk of 2 TB'")]
    Remedy {
        system: SystemName,
        /// What was done.
        #[arg(long)]
        done: String,
        #[command(flatten)]
        by: As,
    },
    /// Drills, newest first.
    List { system: Option<SystemName> },
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    pub(crate) system: SystemName,
    /// A folder that is not there yet, or the URL of an empty database (as `env:NAME`, `secret:NAME` or `file:PATH`).
    #[arg(long)]
    pub(crate) to: String,
    /// Up to a time: `2026-05-12 14:02:10`, or `14:02:10` of today. UTC unless it says otherwise (`2026-05-12T16:02:10+02:00`). The newest
    /// there is if nothing is said.
    #[arg(long, conflicts_with = "before")]
    pub(crate) at: Option<String>,
    /// Just before an operation: its intent's number, `I-17`.
    #[arg(long)]
    pub(crate) before: Option<String>,
    /// A certain recovery point; the newest one before the time if missing.
    #[arg(long)]
    pub(crate) point: Option<String>,
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Make the roles that a logical copy names and the target does not have, without login.
    #[arg(long)]
    pub(crate) create_roles: bool,
    /// Without a gateway that records it: for when it is lost too.
    #[arg(long)]
    pub(crate) unrecorded: bool,
    #[command(flatten)]
    pub(crate) by: As,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Recovery {
    /// Objectives, and what the drills of 90 days measured. Exit 1 if anything is unproven.
    Status,
    /// Print what brings the gateway back when its machine is lost. Keep it elsewhere.
    Kit,
    /// Bring the gateway itself back from the vault, into a new folder. It serves after `ledger resume`.
    #[command(after_help = "Example: reprieve recovery gateway --kit kit.toml --to /srv/reprieve")]
    Gateway {
        /// What `reprieve recovery kit` printed.
        #[arg(long)]
        kit: PathBuf,
        /// The identity that opens copies, where the kit does not have it.
        #[arg(long)]
        identity: Option<PathBuf>,
        #[arg(long)]
        to: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Incident {
    /// An agent's name, or a time (UTC); an hour around it counts.
    pub(crate) about: String,
    /// The folder, which is made.
    #[arg(long, default_value = "incident")]
    pub(crate) to: PathBuf,
    /// Leave the exact texts out: they have passwords, names, whatever was in them.
    #[arg(long)]
    pub(crate) without_texts: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The folder that `reprieve incident` made, or a file with what `/recovery/public.json` answered.
    pub(crate) what: PathBuf,
    /// The ledger's public key, or a file with it: `keys/ledger.pub` of the gateway.
    #[arg(long)]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave everything running to try it by hand.
    #[arg(long)]
    pub(crate) keep: bool,
    /// End with the disk gone: production is copied and tried first, and comes back from the vault. Takes a minute more.
    #[arg(long)]
    pub(crate) worst_case: bool,
}

fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "read" => Ok(Kind::Read),
        "write" => Ok(Kind::Write),
        "destroy" => Ok(Kind::Destroy),
        "grant" => Ok(Kind::Grant),
        _ => Err("one of read, write, destroy, grant".to_owned()),
    }
}
