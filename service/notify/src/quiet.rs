//! Quiet hours: when nobody is woken. UTC, like everything else in the ledger.

use std::{str::FromStr, time::Duration};

use reprieve_operation::Timestamp;
use thiserror::Error;

const DAY_MIN: u64 = 24 * 60;

/// A span of every day, in minutes from midnight; it may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    from_min: u64,
    to_min: u64,
}

/// Why a text is no span of the day.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no span of the day: write `22:00-06:00`, in UTC")]
pub struct QuietError(String);

impl QuietHours {
    /// How long it stays quiet; nothing if it is not.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let (minute, into_ms) = (now.0 / 60_000 % DAY_MIN, now.0 % 60_000);
        let since = (minute + DAY_MIN - self.from_min) % DAY_MIN;
        let length = (self.to_min + DAY_MIN - self.from_min) % DAY_MIN;
        (since < length).then(|| Duration::from_millis((length - since) * 60_000 - into_ms))
    }
}

impl FromStr for QuietHours {
    type Err = QuietError;

    fn from_str(text: &str) -> Result<Self, QuietError> {
        let wrong = || QuietError(text.chars().take(40).collect());
        let minute = |text: &str| -> Option<u64> {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute): (u64, u64) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let (from_min, to_min) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
        // The whole day would be a channel that never tells anything.
        if from_min == to_min { Err(wrong()) } else { Ok(Self { from_min, to_min }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nights_go_over_midnight() {
        let at = |hour: u64, minute: u64| Timestamp(86_400_000 * 20_000 + (hour * 60 + minute) * 60_000);
        let check = |span: &str, hour, minute, expected: Option<u64>| {
            let quiet: QuietHours = span.parse().expect("a span");
            assert_eq!(
                quiet.left(at(hour, minute)),
                expected.map(|minutes| Duration::from_secs(minutes * 60)),
                "{span} at {hour}:{minute}"
            );
        };
        check("22:00-06:00", 21, 59, None);
        check("22:00-06:00", 22, 0, Some(480));
        check("22:00-06:00", 5, 59, Some(1));
        check("22:00-06:00", 6, 0, None);
        check("12:00-13:30", 13, 0, Some(30));
        for bad in ["", "22-6", "22:00", "25:00-06:00", "22:60-06:00", "22:00-22:00", "a:b-c:d"] {
            assert!(bad.parse::<QuietHours>().is_err(), "{bad}");
        }
    }
}
