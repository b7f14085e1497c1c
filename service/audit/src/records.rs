//! The ledger for people: the gate's `Records`.

use std::time::Duration;

use reprieve_gate::{EventProof, LedgerCheck, RecordQuery, Records, RecordsError, Searched};
use reprieve_operation::Recorded;
use reprieve_store::Query;

use crate::{log::AuditLog, prove::prove_event};

impl Records for AuditLog {
    fn search(&self, query: &RecordQuery) -> Result<Vec<Recorded>, RecordsError> {
        Self::search(self, &stored(query)).map_err(unavailable)
    }

    fn search_for(&self, query: &RecordQuery, patience: Duration) -> Result<Searched, RecordsError> {
        let (found, stopped_at) = Self::search_for(self, &stored(query), patience).map_err(unavailable)?;
        Ok(Searched { found, stopped_at })
    }

    fn prove(&self, index: u64) -> Result<EventProof, RecordsError> {
        let reader = self.with_reader(|reader| reader.as_of_now()).map_err(unavailable)?;
        let end = reader.head().map_err(unavailable)?.map_or(0, |head| head.size);
        if index >= end {
            return Err(RecordsError::Missing(format!("the ledger has {end} events, and none of the number {index}")));
        }
        let proven = prove_event(reader.as_ref(), self.verifier(), index).map_err(unavailable)?;
        Ok(EventProof { text: proven.proof.to_text(), hashes: proven.proof.hashes.len(), body: proven.body })
    }

    fn checkpoint(&self) -> Result<Option<String>, RecordsError> {
        Self::checkpoint(self).map_err(unavailable)
    }

    fn verifier(&self) -> String {
        Self::verifier(self).to_string()
    }

    fn checked(&self) -> Option<LedgerCheck> {
        Self::checked(self)
    }
}

fn stored(query: &RecordQuery) -> Query {
    let RecordQuery { kind, agent, hold, text, before, limit } = query.clone();
    let (agent, hold) = (agent.map(|agent| agent.to_string()), hold.map(|hold| hold.0));
    Query { kind, agent, hold, text, before, limit, ..Query::default() }
}

#[allow(clippy::needless_pass_by_value, reason = "what `map_err` hands on")]
fn unavailable(error: impl std::error::Error) -> RecordsError {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    RecordsError::Unavailable(causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}")))
}
