//! A client's transaction that may have changed something: what ran in it, under one intent.

use std::sync::Arc;

use reprieve_gate::{OpenIntent, Release};
use reprieve_operation::{Digest, Effect, Reach};

use crate::known::Known;

/// Statements kept of one transaction, for the person who may have to read them.
const MOST_STATEMENTS: usize = 2_000;

/// Statements at a transaction's end whose values may be others when it is run again.
const MOST_STAMPS: usize = 20;

/// A client's open transaction with changes in it.
pub(crate) struct Transaction {
    pub(crate) intent: OpenIntent,
    /// The texts of what may have changed something, in order.
    texts: Vec<Arc<str>>,
    redacted: Vec<Arc<str>>,
    effects: Vec<Effect>,
    /// What was left out: how many, and a digest of all of them, so that an approval is bound to these too.
    left_out: usize,
    left_out_digest: Option<Digest>,
    /// What of its last statements has to be the same when it is run again; see [`Transaction::bound`].
    stamps: Vec<Arc<str>>,
    /// Whether all that its statements do is in their texts.
    is_open: bool,
    /// Whether nothing but plain row changes ran.
    pub(crate) plain: bool,
    /// Releases that statements in it drew on.
    pub(crate) releases: Vec<Release>,
}

impl Transaction {
    pub(crate) fn new(intent: OpenIntent) -> Self {
        Self {
            intent,
            texts: Vec::new(),
            redacted: Vec::new(),
            effects: Vec::new(),
            left_out: 0,
            left_out_digest: None,
            stamps: Vec::new(),
            is_open: true,
            plain: true,
            releases: Vec::new(),
        }
    }

    /// Takes in a statement and what it does; `parameters` distinguishes retries with other values. `stamp` is what of it has to be
    /// the same in a retry, where its values needn't be.
    pub(crate) fn add(&mut self, known: &Known, effects: &[Effect], parameters: Option<&str>, stamp: Option<Arc<str>>) {
        self.plain &= known.is_plain();
        self.is_open &= known.is_open();
        match stamp {
            Some(stamp) => self.stamps.push(stamp),
            // What runs after a stamp may read its values.
            None => self.stamps.clear(),
        }
        if self.texts.len() >= MOST_STATEMENTS {
            self.left_out += 1;
            let before = self.left_out_digest.as_ref().map(ToString::to_string).unwrap_or_default();
            let parts = [before.as_bytes(), known.text.as_bytes(), parameters.unwrap_or_default().as_bytes()];
            self.left_out_digest = Some(Digest::of(&parts));
        } else {
            if !self.texts.is_empty() {
                self.intent.add_statement(&known.redacted());
            }
            match parameters {
                Some(parameters) if !parameters.is_empty() => self.texts.push(format!("{} -- {parameters}", known.text).into()),
                _ => self.texts.push(known.text.clone()),
            }
            self.redacted.push(known.redacted());
        }
        for effect in effects {
            if !self.effects.contains(effect) {
                self.effects.push(effect.clone());
            }
        }
    }

    /// The whole of it, one statement a line.
    pub(crate) fn text(&self) -> Arc<str> {
        let mut text = self.listed(&self.texts);
        if let Some(digest) = &self.left_out_digest {
            text.push_str(&format!(" ({digest})"));
        }
        if let Some(count) = self.open_stamps() {
            text.push_str(&format!(";\n-- the values of the last {count} may be others when it is run again"));
        }
        text.into()
    }

    /// What an approval of it is bound to, where that is not all of its text: rows that its last statements add, that nobody would be
    /// asked about, and that nothing reads before the COMMIT may have other values. Migration tools note there what they ran, and when.
    pub(crate) fn bound(&self) -> Option<Arc<str>> {
        let count = self.open_stamps()?;
        let exact = self.texts.get(..self.texts.len() - count)?;
        // No two transactions are cut at different places and still read the same.
        let mut text = format!("{} as they are:\n{}", exact.len(), self.listed(exact));
        self.stamps.iter().for_each(|stamp| text.push_str(&format!(";\n{stamp}")));
        Some(text.into())
    }

    fn open_stamps(&self) -> Option<usize> {
        let count = self.stamps.len();
        (self.is_open && self.left_out == 0 && (1..=MOST_STAMPS).contains(&count) && count < self.texts.len()).then_some(count)
    }

    /// The same without literals.
    pub(crate) fn redacted(&self) -> Arc<str> {
        self.listed(&self.redacted).into()
    }

    fn listed(&self, texts: &[Arc<str>]) -> String {
        let mut text = texts.iter().map(|text| text.trim().trim_end_matches(';')).collect::<Vec<_>>().join(";\n");
        if self.left_out > 0 {
            text.push_str(&format!(";\n-- and {} more", self.left_out));
        }
        text
    }

    pub(crate) fn effects(&self) -> Arc<[Effect]> {
        self.effects.clone().into()
    }

    /// Whether an approval was drawn on by an earlier statement.
    pub(crate) fn has_used(&self, release: &Release) -> bool {
        self.releases.iter().any(|used| used.approved().hold == release.approved().hold)
    }

    /// What its releases cover together. `None`: one of them was given without a measurement.
    pub(crate) fn approved_reach(&self) -> Option<Reach> {
        let mut sum = Reach::default();
        for release in &self.releases {
            sum.add(release.approved().reach.as_ref()?);
        }
        Some(sum)
    }
}
