//! Reads: what is proven to write nothing is asked about once, and passed on.

use std::{collections::HashSet, hash::BuildHasher as _, sync::Arc};

use reprieve_gate::Considered;
use reprieve_operation::{Action, Event, Refusal};

use super::Session;
use crate::known::Known;

impl Session {
    /// Whether a text is a proven read or touches only the session, and the policy's answer to it. `None`: it may change something.
    pub(crate) fn admit_read(&mut self, known: &Arc<Known>) -> Option<Result<(), Refusal>> {
        let harmless = if known.is_session() {
            self.changed = true;
            true
        } else {
            self.ends.system.view().is_some_and(|view| known.is_read(&view))
        };
        if !harmless {
            return None;
        }
        let version = *self.control.borrow();
        if self.admitted.0 != version || self.ends.gate.now() >= self.expires {
            self.admitted = (version, HashSet::new());
        }
        // Nothing but the effects, the scope and the rules decides on a read.
        let key = self.hasher.hash_one(&known.effects);
        if !self.admitted.1.contains(&key) {
            self.refresh_principal();
            let operation = self.operation(known, None, Action::InSession);
            match self.ends.gate.consider(&operation) {
                Considered::Pass => {}
                Considered::Hold(refusal) | Considered::Refuse(refusal) => {
                    self.ends.gate.note_refusal(&operation, &refusal);
                    return Some(Err(refusal));
                }
            }
            if self.admitted.1.len() > 1024 {
                self.admitted.1.clear();
            }
            self.admitted.1.insert(key);
        }
        if let Some(tally) = self.reads.count(known) {
            self.note_reads(tally);
        }
        if known.is_session() {
            self.note_effects(known);
        }
        Some(Ok(()))
    }

    fn note_reads(&self, reads: Vec<reprieve_operation::ReadTally>) {
        let (agent, system) = (self.principal.agent.clone(), self.ends.system.name.clone());
        self.ends.gate.note(Event::Reads { session: self.id, agent, system, reads });
    }

    pub(super) fn flush_reads(&mut self) {
        let reads = self.reads.take();
        if !reads.is_empty() {
            self.note_reads(reads);
        }
    }
}
