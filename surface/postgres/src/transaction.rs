//! A client's transaction that may have changed something: what ran in it, under one intent.

use std::sync::Arc;

use reprieve_gate::{OpenIntent, Release};
use reprieve_operation::{Effect, Reach};

use crate::known::Known;

/// Statements kept of one transaction, for the person who may have to read them.
const MOST_STATEMENTS: usize = 2_000;

/// A client's open transaction with changes in it.
pub(crate) struct Transaction {
    pub(crate) intent: OpenIntent,
    /// The texts of what may have changed something, in order.
    texts: Vec<Arc<str>>,
    redacted: Vec<Arc<str>>,
    effects: Vec<Effect>,
    left_out: usize,
    /// Whether nothing but plain row changes ran.
    pub(crate) plain: bool,
    /// Releases that statements in it drew on.
    pub(crate) releases: Vec<Release>,
}

impl Transaction {
    pub(crate) fn new(intent: OpenIntent) -> Self {
        Self { intent, texts: Vec::new(), redacted: Vec::new(), effects: Vec::new(), left_out: 0, plain: true, releases: Vec::new() }
    }

    /// Takes in a statement and what it does; `parameters` distinguishes retries with other values.
    pub(crate) fn add(&mut self, known: &Known, effects: &[Effect], parameters: Option<&str>) {
        self.plain &= known.is_plain();
        if self.texts.len() >= MOST_STATEMENTS {
            self.left_out += 1;
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
        self.listed(&self.texts)
    }

    /// The same without literals.
    pub(crate) fn redacted(&self) -> Arc<str> {
        self.listed(&self.redacted)
    }

    fn listed(&self, texts: &[Arc<str>]) -> Arc<str> {
        let mut text = texts.iter().map(|text| text.trim().trim_end_matches(';')).collect::<Vec<_>>().join(";\n");
        if self.left_out > 0 {
            text.push_str(&format!(";\n-- and {} more", self.left_out));
        }
        text.into()
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
