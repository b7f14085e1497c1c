//! The exact text of what agents ask. The ledger has it without its literals; the whole of it goes where only operators can read it.

use std::sync::Arc;

use reprieve_operation::{AgentName, IntentId, Parameters};

/// One statement or request, exactly as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedText {
    /// Who.
    pub agent: AgentName,
    /// Under which intent. A client's transaction has one for all of its statements.
    pub intent: IntentId,
    /// The text.
    pub text: Arc<str>,
    /// Bound parameters, or a body that is no text.
    pub parameters: Option<Parameters>,
}

/// Keeps exact texts.
pub trait Texts: Send + Sync {
    /// Takes a text in, without waiting; it is durable some seconds later. Refused with the reason where too many wait already.
    fn keep(&self, asked: AskedText) -> Result<(), String>;
}
