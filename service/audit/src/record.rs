//! Records: an event as the bytes that are hashed and stored, and back.
//!
//! The bytes are the JSON of [`Recorded`], without white space, fields in the order of their definition: one event, one text.

use reprieve_ledger::{ENTRY_BYTES_MAX, leaf_hash};
use reprieve_operation::{Event, Recorded, Timestamp};
use reprieve_store::Row;
use thiserror::Error;

/// Room for `{"index":…,"at":…,"event":…}` around the event.
const FRAME_BYTES: usize = 80;

/// An event's JSON, made before its place in the ledger is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventText(String);

/// Why an event can't be a record, or bytes are none.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It is too long for a transparency log's entry.
    #[error("an event of {bytes} bytes is too long for the ledger, which takes {ENTRY_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It can't be written as JSON, or is not the JSON of an event.
    #[error("not an event's JSON")]
    Json(#[from] serde_json::Error),
}

impl EventText {
    pub(crate) fn of(event: &Event) -> Result<Self, RecordError> {
        let text = serde_json::to_string(event)?;
        if text.len() + FRAME_BYTES > ENTRY_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: text.len() });
        }
        Ok(Self(text))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, index: u64, at: Timestamp) -> Vec<u8> {
        format!(r#"{{"index":{index},"at":{},"event":{}}}"#, at.0, self.0).into_bytes()
    }
}

/// The row of `event` at its place.
pub(crate) fn row(index: u64, at: Timestamp, event: &Event, text: &EventText) -> Row {
    row_with_body(index, at, event, text.at(index, at))
}

/// The row that belongs to `recorded`, to compare a stored one with.
pub(crate) fn row_of(recorded: &Recorded, body: Vec<u8>) -> Row {
    row_with_body(recorded.index, recorded.at, &recorded.event, body)
}

fn row_with_body(index: u64, at: Timestamp, event: &Event, body: Vec<u8>) -> Row {
    Row {
        index,
        at_ms: at.0,
        kind: event.kind().to_owned(),
        agent: event.agent().map(|agent| agent.as_str().to_owned()),
        hold: event.hold().map(|hold| hold.0),
        unique_key: event.unique_key(),
        leaf_hash: leaf_hash(&body),
        body,
    }
}

/// Reads a record's bytes.
pub fn decode(body: &[u8]) -> Result<Recorded, RecordError> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use reprieve_operation::{Digest, HoldId, IntentId, Outcome, Reach, TableReach};

    use super::*;

    fn events() -> Vec<Event> {
        let tables = [("public.a".to_owned(), TableReach { deleted: 3, ..TableReach::default() })].into();
        let agent = "cursor".parse().expect("a name");
        vec![
            Event::Stopped,
            Event::Started { version: "1.0 \"x\"\n\u{e9}\u{2028}".to_owned() },
            Event::PolicyActivated { digest: Digest([7; 32]), profile: "guard".to_owned() },
            Event::Concluded {
                intent: IntentId(u64::MAX),
                agent,
                outcome: Outcome::Done { tag: "DELETE 3".to_owned(), reach: Reach { tables, ..Reach::default() }, xid: Some(1 << 60) },
                statements: vec!["DELETE FROM a".to_owned()],
            },
            Event::HoldExpired { hold: HoldId(4) },
        ]
    }

    #[test]
    fn a_record_is_the_json_of_recorded_and_comes_back() {
        for (index, event) in events().into_iter().enumerate() {
            let recorded = Recorded { index: index as u64, at: Timestamp(1_700_000_000_000), event };
            let text = EventText::of(&recorded.event).expect("short enough");
            let row = row(recorded.index, recorded.at, &recorded.event, &text);
            assert_eq!(row.body, serde_json::to_vec(&recorded).expect("JSON"));
            assert_eq!(row.leaf_hash, leaf_hash(&row.body));
            assert_eq!(decode(&row.body).expect("our own bytes"), recorded);
        }
    }

    #[test]
    fn other_bytes_are_not_records() {
        let good = r#"{"index":0,"at":5,"event":{"event":"stopped"}}"#;
        assert!(decode(good.as_bytes()).is_ok());
        for bad in ["", "{}", "null", &good.replace("stopped", "stoppd"), &good.replace('}', ""), &format!("{good}x")] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(decode(&[0xff; 9]).is_err());
    }

    #[test]
    fn the_longest_event_still_fits_an_entry_bundle() {
        let event = |bytes| Event::Alarm { what: "x".repeat(bytes), agent: None };
        let frame = serde_json::to_string(&event(0)).expect("JSON").len();
        let longest = event(ENTRY_BYTES_MAX - FRAME_BYTES - frame);
        let text = EventText::of(&longest).expect("just short enough");
        assert!(row(u64::MAX, Timestamp(u64::MAX), &longest, &text).body.len() <= ENTRY_BYTES_MAX);
        assert!(matches!(EventText::of(&event(ENTRY_BYTES_MAX - FRAME_BYTES - frame + 1)), Err(RecordError::TooLong { .. })));
    }
}
