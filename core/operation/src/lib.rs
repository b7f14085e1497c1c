//! The nouns every part of Reprieve speaks in: operations, effects, reach, decisions, and the events that record them.
//!
//! Pure data: no clock, socket, file or async runtime is known here. The state of a gateway is a fold over [`Event`]s;
//! see `event.rs` for what is recorded and `state.rs` for the fold.

mod decision;
mod effect;
mod event;
mod id;
mod operation;
mod reach;
mod recovery;
mod role;
mod sample;
mod scope;
mod state;
mod token;

pub use decision::{Answer, Budget, Decision, Facts, Needs, RecoveryFacts, Refusal, RefusalKind, Terms, Undoability};
pub use effect::{Effect, Hazard, Kind, ObjectKind, ObjectName, Rewrite};
pub use event::{Event, HeldReason, Moment, Outcome, ReadTally, Recorded};
pub use id::{AgentName, Digest, Environment, HoldId, IntentId, OperatorName, SessionId, SystemName, Timestamp, TokenId, UndoId};
pub use operation::{Action, Operation, Parameters, Principal, Protocol};
pub use reach::{Found, Reach, TableReach};
pub use recovery::{DrillState, NewestCopy, RECOVERABLE, RecoveryState};
pub use role::Role;
pub use sample::{Sample, SampleRow};
pub use scope::{Pattern, Scope, ScopeError};
pub use state::{
    AgentState, HoldState, HoldStatus, InvitationState, LostOutcome, Next, OpenIntent, OperatorState, PasskeyState, State, VOUCHED,
};
pub use token::{SCRAM_ITERATIONS, ScramVerifier, Token, TokenError};

/// The text of all that events are folded by. A state that another text folded may lack what this one would have noted.
pub const FOLD_RULES: &[&str] = &[
    include_str!("decision.rs"),
    include_str!("effect.rs"),
    include_str!("event.rs"),
    include_str!("id.rs"),
    include_str!("lib.rs"),
    include_str!("operation.rs"),
    include_str!("reach.rs"),
    include_str!("recovery.rs"),
    include_str!("role.rs"),
    include_str!("sample.rs"),
    include_str!("scope.rs"),
    include_str!("state.rs"),
    include_str!("token.rs"),
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_is_among_the_rules() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files: Vec<String> = std::fs::read_dir(folder)
            .expect("the sources")
            .map(|entry| std::fs::read_to_string(entry.expect("a file").path()).expect("no folder, and text"))
            .collect();
        assert_eq!(files.len(), super::FOLD_RULES.len());
        assert!(files.iter().all(|file| super::FOLD_RULES.contains(&file.as_str())));
    }
}
