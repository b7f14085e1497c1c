//! Operators of a throw-away gateway, and the codes of their second factors.
//!
//! A code works once, those of the step before and after the present one are accepted too, and only in order: three commands
//! in quick succession, then one every thirty seconds. So whoever needs more makes more operators.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use totp_rs::{Algorithm, Secret, TOTP};

const STEP_SECONDS: u64 = 30;
/// Early in a step the code of the step before may still be used: a command takes a while to arrive.
const EARLY_SECONDS: u64 = 12;

/// The operators whose keys and second factors we have.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    seats: Vec<Seat>,
}

#[derive(Debug)]
struct Seat {
    name: String,
    factor: TOTP,
    last_step: u64,
}

impl Operators {
    /// Takes in a new operator by the base32 text of the second factor.
    pub(crate) fn add(&mut self, name: &str, secret: &str) -> Result<()> {
        let bytes = Secret::Encoded(secret.to_owned()).to_bytes().context("the second factor is not base32")?;
        let factor = TOTP::new_unchecked(Algorithm::SHA1, 6, 0, STEP_SECONDS, bytes);
        self.seats.push(Seat { name: name.to_owned(), factor, last_step: 0 });
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.seats.iter().any(|seat| seat.name == name)
    }

    /// A name nobody has.
    pub(crate) fn fresh_name(&self) -> String {
        format!("operator-{}", self.seats.len() + 1)
    }

    /// How many commands can be given at once by others than `not`.
    pub(crate) fn codes_left(&self, not: Option<&str>) -> u64 {
        let now = now_seconds();
        self.seats.iter().filter(|seat| Some(seat.name.as_str()) != not).map(|seat| seat.left(now)).sum()
    }

    /// The next code of whoever has one, except `not`; waits for the clock if nobody has.
    pub(crate) fn code(&mut self, not: Option<&str>) -> Result<(String, String)> {
        loop {
            let now = now_seconds();
            let others = self.seats.iter_mut().filter(|seat| Some(seat.name.as_str()) != not);
            let seat = others.max_by_key(|seat| seat.left(now)).context("there is no other operator")?;
            if let Some(code) = seat.take(now) {
                return Ok((seat.name.clone(), code));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The next code of one operator; waits for the clock if need be.
    pub(crate) fn code_of(&mut self, name: &str) -> Result<String> {
        let seat = self.seats.iter_mut().find(|seat| seat.name == name).with_context(|| format!("there is no operator `{name}`"))?;
        loop {
            if let Some(code) = seat.take(now_seconds()) {
                return Ok(code);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Seat {
    fn next(&self, now: u64) -> u64 {
        let present = now / STEP_SECONDS;
        let earliest = if now % STEP_SECONDS < EARLY_SECONDS { present - 1 } else { present };
        earliest.max(self.last_step + 1)
    }

    fn left(&self, now: u64) -> u64 {
        (now / STEP_SECONDS + 2).saturating_sub(self.next(now))
    }

    fn take(&mut self, now: u64) -> Option<String> {
        let step = self.next(now);
        (self.left(now) > 0).then(|| {
            self.last_step = step;
            self.factor.generate(step * STEP_SECONDS)
        })
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{Operators, STEP_SECONDS};

    #[test]
    fn codes_are_those_of_the_standard_and_work_in_order() {
        let mut operators = Operators::default();
        operators.add("ana", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").expect("the secret of RFC 6238");
        let seat = &mut operators.seats[0];
        // RFC 6238, appendix B, the last six of eight digits.
        assert_eq!(seat.factor.generate(1_111_111_109), "081804");
        let late = 50_000 * STEP_SECONDS + 20;
        assert_eq!(seat.left(late), 2);
        let early = 50_000 * STEP_SECONDS + 1;
        assert_eq!(seat.left(early), 3);
        let expected: Vec<String> = (49_999..50_002).map(|step| seat.factor.generate(step * STEP_SECONDS)).collect();
        let taken: Vec<String> = std::iter::from_fn(|| seat.take(early)).collect();
        assert_eq!(taken, expected);
    }
}
