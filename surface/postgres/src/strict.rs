//! Strict systems: what a transaction replaced is taken from its own session, and is in the vault before the COMMIT is sent.
//!
//! While the vault takes it the transaction stays open, with its locks, for a bounded time; then it is rolled back. How the vault gets
//! it is behind [`reprieve_gate::Strict`].

use reprieve_gate::{Permit, Room};
use reprieve_operation::Refusal;

use crate::{guard::Measured, session::Ends, wire::Captured};

/// What most changes replace is smaller, and asked for at once.
const AT_ONCE: u64 = 1024 * 1024;

/// What a reach says of a change that can't wait for the vault.
const TOO_LARGE: &str = "what this replaces is too large to be in the vault before it is final";

/// What a transaction replaced, on its way.
#[derive(Debug)]
pub(crate) struct Images {
    transaction: u64,
    rows: Vec<u8>,
    room: Room,
}

impl Ends {
    /// Takes what the open transaction replaced, once it is measured. What is too large for that has no way back that is kept in time.
    pub(crate) async fn take_images(&mut self, measured: &mut Measured) -> Result<(), Refusal> {
        let system = self.system.clone();
        self.secured.images = None;
        let (Some(strict), Some(transaction)) = (system.strict(), measured.xid) else { return Ok(()) };
        // A trial only asks how much it is.
        let mut most = if self.secured.on_trial.is_some() { 0 } else { AT_ONCE.min(strict.most()) };
        loop {
            let room = strict.room(most).await.map_err(away)?;
            let question = strict.question(transaction, most).map_err(away)?;
            let answer = self.ask_within(&question).await?;
            if let Some(error) = answer.error {
                let why = error.message().unwrap_or_default().to_owned();
                return Err(away(format!("what this replaced could not be read: {why}")));
            }
            match only_counted(&answer) {
                Some(bytes) if bytes > strict.most() => {
                    measured.reach.lasting.push(TOO_LARGE.to_owned());
                    return Ok(());
                }
                Some(_) if self.secured.on_trial.is_some() => return Ok(()),
                Some(bytes) if bytes > most => most = bytes,
                Some(_) => return Err(away("what this replaced could not be read".to_owned())),
                None => {
                    let rows = answer.copied;
                    self.secured.images = (!rows.is_empty()).then_some(Images { transaction, rows, room });
                    return Ok(());
                }
            }
        }
    }

    /// Sees to it that what has to be known after a crash is recorded, and that a strict system's images are in the vault. After this
    /// the COMMIT may be sent. `approved`: people agreed to it.
    pub(crate) async fn secure_before_final(
        &mut self,
        permit: &mut Permit<'_>,
        measured: &Measured,
        approved: bool,
    ) -> Result<(), Refusal> {
        let reach = &measured.reach;
        let defines = reach.touches_catalogs() || !reach.dropped.is_empty() || !reach.rewritten.is_empty();
        if let Some(xid) = measured.xid.filter(|_| defines) {
            permit.note_measured(xid, reach).await?;
        }
        let system = self.system.clone();
        let Some(strict) = system.strict() else { return Ok(()) };
        let is_agreed = approved && !reach.lasting.is_empty();
        if reach.lasting.iter().any(|reason| reason == TOO_LARGE) && !is_agreed {
            return Err(Refusal::refused("strict", TOO_LARGE, "split it into smaller changes, or ask a person for it"));
        }
        let Some(Images { transaction, rows, room }) = self.secured.images.take() else { return Ok(()) };
        match strict.secure(transaction, rows, room).await {
            Ok(()) => {}
            // People were told that there is no way back from it, and agreed.
            Err(reason) if is_agreed => {
                tracing::warn!(system = %system.name, reason, "an approved change is final before the vault has it")
            }
            Err(reason) => return Err(away(reason)),
        }
        // Meanwhile somebody may have frozen the agent.
        let _clearance = self.within_ceiling(permit).await?;
        Ok(())
    }
}

/// What can't be in the vault in time doesn't become final.
fn away(reason: String) -> Refusal {
    Refusal::unavailable("strict", format!("what this replaces has to be in the vault before it is final, so it was rolled back: {reason}"))
}

/// How many bytes it would have been, if they were only counted.
fn only_counted(answer: &Captured) -> Option<u64> {
    let line = std::str::from_utf8(answer.copied.strip_suffix(b"\n")?).ok()?;
    let mut fields = line.split('\t');
    let (Some(_), Some("0"), Some("0"), Some(bytes)) = (fields.next(), fields.next(), fields.next(), fields.next()) else { return None };
    // What can't be read is more than there is room for.
    Some(bytes.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_from_rows() {
        let check = |copied: &str, expected: Option<u64>| {
            assert_eq!(only_counted(&Captured { copied: copied.into(), ..Captured::default() }), expected, "{copied:?}");
        };
        check("", None);
        check("700\t0\t0\t1234\t\\N\n", Some(1234));
        check("700\t0\t0\tmany\t\\N\n", Some(u64::MAX));
        check("700\t4194405\t16400\t(1,a)\t\\N\n", None);
        check("700\t-4194405\t0\t(1,a)\t\\N\n", None);
        check("700\t4194405\t16400\t(1,a)\t\\N\n700\t4194406\t16400\t(2,a)\t\\N\n", None);
    }
}
