//! The machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use reprieve_gate::Clock;
use reprieve_operation::Timestamp;

/// The real time. The one place that asks the machine for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Before 1970 counts as 1970: the ledger sees to it that time never goes backwards.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
