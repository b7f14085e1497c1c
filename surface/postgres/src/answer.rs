//! Refusals in PostgreSQL's words: SQLSTATE, message, DETAIL and HINT.

use bytes::BytesMut;
use reprieve_gate::Gate;
use reprieve_operation::{HoldState, Refusal, RefusalKind};
use reprieve_pgwire::write;

/// The SQLSTATE of a refusal.
#[must_use]
pub fn sqlstate(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::Held => "RPH01",
        RefusalKind::Refused => "RPR01",
        RefusalKind::Frozen => "RPF01",
        RefusalKind::Unavailable => "RPU01",
    }
}

/// Appends the refusal as an ErrorResponse.
pub(crate) fn error(out: &mut BytesMut, gate: &Gate, refusal: &Refusal) {
    let (message, detail, hint) = words(gate, refusal);
    write::error_response(
        out,
        &[(b'S', "ERROR"), (b'V', "ERROR"), (b'C', sqlstate(refusal.kind)), (b'M', &message), (b'D', &detail), (b'H', &hint)],
    );
}

/// Appends the refusal as a notice, for a client that waits.
pub(crate) fn notice(out: &mut BytesMut, gate: &Gate, refusal: &Refusal) {
    let (message, detail, hint) = words(gate, refusal);
    write::notice_response(
        out,
        &[(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', sqlstate(refusal.kind)), (b'M', &message), (b'D', &detail), (b'H', &hint)],
    );
}

fn words(gate: &Gate, refusal: &Refusal) -> (String, String, String) {
    let lead = match refusal.kind {
        RefusalKind::Held => "held for approval",
        RefusalKind::Refused => "refused",
        RefusalKind::Frozen => "frozen",
        RefusalKind::Unavailable => "unavailable",
    };
    let id = refusal.hold.map(|hold| format!(" {hold}")).unwrap_or_default();
    let message = format!("reprieve: {lead}{id}: {}", refusal.reason);
    let reach = refusal.reach.as_ref().map(|reach| format!(" Effect: {reach}.")).unwrap_or_default();
    let detail = format!("Nothing was changed.{reach} Rule: {}.", refusal.rule);
    let hint = match (refusal.kind, refusal.hold) {
        (RefusalKind::Held, Some(hold)) => format!(
            "A person decides out of band: {}. Silence is not consent, and another route to the same effect meets the same answer. \
             Once approved, the identical statement runs once. Instead: {}.",
            gate.hold_link(hold),
            refusal.remedy
        ),
        _ => format!("Another route to the same effect meets the same answer. Instead: {}.", refusal.remedy),
    };
    (message, detail, hint)
}

/// Appends an agent's holds as a result: `SHOW reprieve.holds`.
pub(crate) fn holds(out: &mut BytesMut, holds: &[HoldState]) {
    const TEXT: u32 = 25;
    let columns = [("hold", TEXT), ("status", TEXT), ("system", TEXT), ("effect", TEXT), ("statement", TEXT)];
    let start = out.len();
    let mut written = write::row_description(out, &columns);
    for hold in holds {
        let status = serde_json::to_value(hold.status).ok().and_then(|status| status.as_str().map(str::to_owned)).unwrap_or_default();
        let effect = hold.reach.as_ref().map(ToString::to_string).unwrap_or_default();
        let values = [hold.hold.to_string(), status, hold.system.to_string(), effect, hold.text.clone()];
        let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_bytes())).collect();
        written = written.and_then(|()| write::data_row(out, &values));
    }
    if written.is_err() {
        out.truncate(start);
        write::error_response(out, &[(b'S', "ERROR"), (b'V', "ERROR"), (b'C', "XX000"), (b'M', "the holds can't be shown")]);
        return;
    }
    write::command_complete(out, "SHOW");
}
