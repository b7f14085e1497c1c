//! Texts that were analysed before: a small verdict each, bounded in number, shared by all sessions.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use reprieve_effects_sql::{Analysis, Class, Control, Copy, Statement, analyze, redact, redact_readable, unread};
use reprieve_operation::{Effect, Kind, ObjectName};

use crate::{guard::Relation, system::View};

/// Texts remembered. A verdict is about a kilobyte.
const REMEMBERED: usize = 4096;

/// Longer texts are analysed each time rather than remembered.
const LONGEST: usize = 16 * 1024;

/// A text and what its analysis said.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) text: Arc<str>,
    pub(crate) analysis: Analysis,
    /// The effects of all its statements.
    pub(crate) effects: Arc<[Effect]>,
    redacted: OnceLock<Arc<str>>,
    /// What the server runs under its name may be something else: it is never taken for a read.
    distrusted: bool,
    /// The view's version under which all of it was proven to be reads, times two, plus one if it was.
    proof: AtomicU64,
}

impl Known {
    pub(crate) fn new(text: &str) -> Self {
        Self::of(text, analyze(text))
    }

    fn of(text: &str, analysis: Analysis) -> Self {
        let mut effects: Vec<Effect> = Vec::new();
        for statement in &analysis.statements {
            for effect in &statement.effects {
                if !effects.contains(effect) {
                    effects.push(effect.clone());
                }
            }
        }
        Self {
            text: text.into(),
            analysis,
            effects: effects.into(),
            redacted: OnceLock::new(),
            distrusted: false,
            proof: AtomicU64::new(0),
        }
    }

    /// A statement that was prepared behind our back: it may be anything.
    pub(crate) fn opaque(name: &str) -> Arc<Self> {
        // EXECUTE of a name is analysed as a call that may do anything.
        let quoted = name.replace('"', "\"\"");
        Arc::new(Self::new(&format!("EXECUTE \"{quoted}\"")))
    }

    /// A text that the server reads in another way than we do.
    pub(crate) fn unread(text: &str) -> Arc<Self> {
        let analysis = unread(text, "the session's settings make the server read this text in another way");
        Arc::new(Self::of(text, analysis))
    }

    /// The same text, of which nothing is believed: code ran since it was prepared, or its parameters run code.
    pub(crate) fn distrusted(text: &str) -> Arc<Self> {
        Arc::new(Self { distrusted: true, ..Self::new(text) })
    }

    /// Whether it is a proven read, or touches nothing but the session or the transaction's state.
    pub(crate) fn is_harmless(&self, view: Option<&View>) -> bool {
        !self.distrusted && (self.control().is_some() || self.is_session() || view.is_some_and(|view| self.is_read(view)))
    }

    /// The text without its literals.
    pub(crate) fn redacted(&self) -> Arc<str> {
        let unreadable = self.analysis.statements.iter().any(|statement| statement.class == Class::Unreadable);
        let make = || if unreadable { redact(&self.text) } else { redact_readable(&self.text) };
        self.redacted.get_or_init(|| make().into()).clone()
    }

    /// Whether all of it is proven to write nothing.
    pub(crate) fn is_read(&self, view: &View) -> bool {
        if self.distrusted {
            return false;
        }
        let seen = self.proof.load(Ordering::Relaxed);
        if seen >> 1 == view.version {
            return seen & 1 == 1;
        }
        let statements = &self.analysis.statements;
        let proves = |statement: &Statement| statement.class == Class::Read && view.catalog.proves_read(statement);
        let proven = statements.iter().all(proves) && !self.is_loud(view);
        self.proof.store(view.version << 1 | u64::from(proven), Ordering::Relaxed);
        proven
    }

    fn is_loud(&self, view: &View) -> bool {
        let loud = |effect: &Effect| effect.relation().is_some_and(|name| view.snapshot.loud.contains(&name.name));
        self.effects.iter().any(loud)
    }

    /// Whether it declares a cursor WITH HOLD.
    pub(crate) fn is_holdable(&self) -> bool {
        self.analysis.statements.iter().any(|statement| statement.holdable)
    }

    /// Whether it is nothing but a cursor WITH HOLD whose query is proven to write nothing.
    pub(crate) fn is_quiet_cursor(&self, view: &View) -> bool {
        let proves = |only: &Statement| only.holdable && view.catalog.proves_cursor(only);
        !self.distrusted && matches!(self.analysis.statements.as_slice(), [only] if proves(only)) && !self.is_loud(view)
    }

    /// The one control statement that it is.
    pub(crate) fn control(&self) -> Option<Control> {
        match self.analysis.statements.as_slice() {
            [Statement { class: Class::Control(control), .. }] => Some(*control),
            _ => None,
        }
    }

    /// Whether it only touches the session's own state.
    pub(crate) fn is_session(&self) -> bool {
        // PREPARE reads the constants in its statement, and reading a constant may run code.
        let prepares = || self.text.to_ascii_uppercase().contains("PREPARE");
        let session = |statement: &Statement| match statement.class {
            Class::Session => true,
            // DISCARD ALL, which has to stand alone.
            Class::Unwrapped => statement.effects.iter().all(|effect| matches!(effect, Effect::Session { .. })),
            _ => false,
        };
        !self.distrusted && self.analysis.statements.iter().all(session) && !prepares()
    }

    /// Whether nothing but rows may change, so that it may run in an implicit transaction.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = |statement: &Statement| matches!(statement.class, Class::Dml | Class::Read | Class::Session) && !statement.holdable;
        self.analysis.statements.iter().all(plain)
    }

    /// Whether it can't run inside a transaction block.
    pub(crate) fn is_unwrapped(&self) -> bool {
        self.analysis.statements.iter().any(|statement| statement.class == Class::Unwrapped)
    }

    /// Whether it is one statement that goes over partitioned relations part by part.
    pub(crate) fn goes_by_parts(&self) -> bool {
        matches!(self.analysis.statements.as_slice(), [only] if only.by_parts)
    }

    /// Whether it can't run inside a transaction block because of what it names: REINDEX of something partitioned.
    pub(crate) fn is_unwrapped_by(&self, view: &View) -> bool {
        let partitioned = |name: &str| {
            let named = |relation: &&Relation| relation.name.rsplit('.').next() == Some(name);
            view.snapshot.relations.values().filter(named).any(|relation| matches!(relation.kind, 'p' | 'I'))
        };
        let names =
            |statement: &Statement| statement.effects.iter().any(|effect| effect.relation().is_some_and(|name| partitioned(&name.name)));
        matches!(self.analysis.statements.as_slice(), [only] if only.by_parts && names(only))
    }

    /// Whether it could not be read: the server may still say what is wrong with it.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.analysis.statements.iter().any(|statement| statement.class == Class::Unreadable)
    }

    /// Whether the client sends rows for it.
    pub(crate) fn copies_in(&self) -> bool {
        self.analysis.statements.iter().any(|statement| statement.copy == Some(Copy::In))
    }

    /// Whether it is one statement that does nothing outside a transaction block: the server refuses it there, or only warns.
    pub(crate) fn is_block_only(&self) -> bool {
        !self.distrusted && matches!(self.analysis.statements.as_slice(), [only] if only.block_only)
    }

    /// Whether it depends on the session it runs in.
    pub(crate) fn in_session(&self) -> bool {
        self.analysis.statements.iter().any(|statement| statement.in_session)
    }

    /// Whether it is one statement that changes rows of ordinary tables and calls nothing: what its tag says is what it did there.
    pub(crate) fn is_counted_by_its_tag(&self, view: &View) -> bool {
        let is_table = |effect: &Effect| match effect {
            Effect::Insert { table } | Effect::Update { table, .. } | Effect::Delete { table, .. } => {
                let tables = view.catalog.find_tables(table);
                !tables.is_empty() && tables.iter().all(|table| matches!(table.kind, 'r' | 'p'))
            }
            Effect::Read { .. } => true,
            _ => false,
        };
        let counted = |only: &Statement| only.class == Class::Dml && only.functions.is_empty() && only.effects.iter().all(is_table);
        !self.distrusted && matches!(self.analysis.statements.as_slice(), [only] if counted(only))
    }

    /// The table that it adds rows to, where nothing else can come of it whatever its values are: nothing of the users' making runs in
    /// this database.
    pub(crate) fn adds_constants_to(&self, view: &View) -> Option<&ObjectName> {
        let [only] = self.analysis.statements.as_slice() else { return None };
        let [Effect::Insert { table }] = &*self.effects else { return None };
        let is_ordinary = || {
            let tables = view.catalog.find_tables(table);
            !tables.is_empty() && tables.iter().all(|table| table.kind == 'r')
        };
        let runs_nothing = !self.distrusted && !view.snapshot.user_code && !view.snapshot.deferrable_triggers && !self.is_loud(view);
        (runs_nothing && view.catalog.proves_insert(only) && is_ordinary()).then_some(table)
    }

    /// Whether all that it does is in its text: it calls nothing that runs a text or code of users' making, and makes none.
    pub(crate) fn is_open(&self) -> bool {
        let read = |statement: &Statement| statement.class != Class::Unreadable && statement.effects.iter().all(says_all);
        !self.distrusted && self.analysis.statements.iter().all(read)
    }

    /// Whether it can't have made a table: one that is temporary hides another one of the same name.
    pub(crate) fn makes_nothing(&self, view: Option<&View>) -> bool {
        let makes_nothing = |statement: &Statement| match statement.class {
            Class::Control(_) | Class::Session => true,
            Class::Read => view.is_some_and(|view| view.catalog.proves_read(statement)),
            Class::Dml => statement.functions.is_empty(),
            Class::Block | Class::Unwrapped | Class::Unreadable => false,
        };
        !self.distrusted && self.analysis.statements.iter().all(makes_nothing)
    }

    /// Whether it can't have run code that prepares or closes statements and cursors behind our back.
    pub(crate) fn is_tame(&self, view: &View) -> bool {
        let statements = &self.analysis.statements;
        !self.distrusted
            && statements.iter().all(|statement| match statement.class {
                Class::Control(_) => true,
                Class::Session => !names_statements(&self.text),
                Class::Read => view.catalog.proves_read(statement),
                Class::Dml => !view.snapshot.user_code && statement.functions.is_empty(),
                Class::Block | Class::Unwrapped | Class::Unreadable => false,
            })
    }
}

/// Whether an effect is all that comes of it, and not a text or code that may do anything.
pub(crate) fn says_all(effect: &Effect) -> bool {
    matches!(effect.kind(), Kind::Read | Kind::Write | Kind::Destroy)
        && !matches!(effect, Effect::Call { .. } | Effect::Unknown { .. } | Effect::Escape { .. } | Effect::Invoke { .. })
}

/// Whether a session statement makes, closes or runs named statements or cursors.
fn names_statements(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    ["PREPARE", "DEALLOCATE", "DISCARD", "CLOSE", "DECLARE"].iter().any(|word| text.contains(word))
}

/// The texts remembered.
pub(crate) struct KnownTexts {
    shards: Vec<Mutex<LruCache<u128, Arc<Known>>>>,
    first: RandomState,
    second: RandomState,
}

impl Default for KnownTexts {
    fn default() -> Self {
        let size = NonZeroUsize::new(REMEMBERED / 8).unwrap_or(NonZeroUsize::MIN);
        Self { shards: (0..8).map(|_| Mutex::new(LruCache::new(size))).collect(), first: RandomState::new(), second: RandomState::new() }
    }
}

impl KnownTexts {
    /// The verdict on `text`. Keys are 128 bits under keys of this process, so that nobody can make two texts meet.
    pub(crate) fn find(&self, text: &str) -> Arc<Known> {
        if text.len() > LONGEST {
            return Arc::new(Known::new(text));
        }
        let hash = self.first.hash_one(text);
        let key = u128::from(hash) << 64 | u128::from(self.second.hash_one(text));
        let shard = &self.shards[(hash % 8) as usize];
        if let Some(known) = shard.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let known = Arc::new(Known::new(text));
        shard.lock().unwrap_or_else(PoisonError::into_inner).put(key, known.clone());
        known
    }
}
