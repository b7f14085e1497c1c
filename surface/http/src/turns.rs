//! Turns: changes of one thing come one after another, from the look before to the look after.
//!
//! Two requests of an agent side by side would otherwise each keep a state that the other is about to change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::timeout};

/// How long a change waits for its turn.
const WAIT: Duration = Duration::from_secs(60);

/// Who changes what at the moment.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

/// A turn. It ends when dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits until nobody else changes `what`. An error: that took too long.
    pub(crate) async fn take(&self, what: &str) -> Result<Turn, String> {
        let lock = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(what).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    turns.insert(what.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        timeout(WAIT, lock.lock_owned()).await.map_err(|_| format!("`{what}` is being changed by others all the time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_stays() {
        let turns = Turns::default();
        let first = turns.take("a").await.expect("free");
        let _other = turns.take("b").await.expect("another thing");
        assert!(timeout(Duration::from_millis(20), turns.take("a")).await.is_err(), "two at a time");
        drop(first);
        drop(turns.take("a").await.expect("free again"));
        drop(turns.take("c").await.expect("free"));
        assert_eq!(turns.0.lock().expect("a lock").len(), 2);
    }
}
