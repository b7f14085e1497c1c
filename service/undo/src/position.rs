//! Positions: up to where a database's journal lies in the vault.
//!
//! A position is a snapshot of PostgreSQL's (`pg_current_snapshot()`): transactions that are visible in it are in the vault, all
//! others are not. What was selected between two of them is selected exactly once, in whatever order transactions end.

use std::str::FromStr;

/// A snapshot: `xmin:xmax:xip,xip,…` (PostgreSQL 15, table 9.75).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// Every transaction below had ended.
    pub(crate) lowest_open: u64,
    /// None from here on had ended.
    pub(crate) end: u64,
    /// Those in between that had not ended.
    pub(crate) open: Vec<u64>,
}

impl Position {
    /// Before every transaction.
    pub(crate) const START: Self = Self { lowest_open: 0, end: 0, open: Vec::new() };

    /// Whether a transaction is in the vault at this position, if it has rows.
    pub(crate) fn holds(&self, xid: u64) -> bool {
        xid < self.end && !self.open.contains(&xid)
    }

    /// Conditions, of which at most one holds, under which a journal's row is not in the vault at this position. Together with the
    /// snapshot of whoever asks. Each is answered by the journal's index alone, however long some transaction stays open.
    pub(crate) fn beyond(&self) -> Vec<String> {
        let mut conditions = Vec::new();
        if !self.open.is_empty() {
            let open: Vec<String> = self.open.iter().map(u64::to_string).collect();
            conditions.push(format!("j.xid = ANY ('{{{}}}'::pg_catalog.xid8[])", open.join(",")));
        }
        conditions.push(format!("j.xid >= '{}'::pg_catalog.xid8", self.end));
        conditions
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (lowest_open, end) = number().zip(number()).ok_or(())?;
        let open = parts.next().ok_or(())?;
        let open = open.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().map_err(drop));
        let position = Self { lowest_open, end, open: open.collect::<Result<_, ()>>()? };
        let makes_sense = position.lowest_open <= position.end && parts.next().is_none();
        if makes_sense { Ok(position) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_are_read_or_refused() {
        assert_eq!("10:20:10,14,15".parse(), Ok(Position { lowest_open: 10, end: 20, open: vec![10, 14, 15] }));
        assert_eq!("10:10:".parse(), Ok(Position { lowest_open: 10, end: 10, open: Vec::new() }));
        for wrong in ["", "10", "10:20", "20:10:", "10:20:x", "10:20:11:12", "10:20:11'", "-1:2:"] {
            assert_eq!(wrong.parse::<Position>(), Err(()), "{wrong:?}");
        }
    }

    proptest! {
        /// Transactions begin and end in any order, and looks come in between: each is selected by exactly one look after its end.
        #[test]
        fn every_transaction_is_selected_once(ends in prop::collection::vec(1usize..12, 1..40), looks in prop::collection::vec(any::<bool>(), 60)) {
            // Transaction `100 + n` begins at time `n` and ends `ends[n]` later.
            let ended = |xid: u64, now: usize| { let n = (xid - 100) as usize; n + ends[n] <= now };
            let mut position = Position::START;
            let mut selected: Vec<u64> = Vec::new();
            for (now, _) in looks.iter().enumerate().filter(|(now, look)| **look || *now == 59) {
                let begun = 100 + now.min(ends.len()) as u64;
                let open: Vec<u64> = (100..begun).filter(|xid| !ended(*xid, now)).collect();
                // As PostgreSQL: the end is just behind the newest transaction that has ended.
                let end = (100..begun).rev().find(|xid| ended(*xid, now)).map_or(100, |xid| xid + 1);
                let open: Vec<u64> = open.into_iter().filter(|xid| *xid < end).collect();
                let next = Position { lowest_open: open.first().copied().unwrap_or(end), end, open };
                let beyond = |xid: u64| xid >= position.end || position.open.contains(&xid);
                for xid in 100..begun {
                    prop_assert_eq!(beyond(xid), !position.holds(xid));
                    if ended(xid, now) && beyond(xid) {
                        selected.push(xid);
                    }
                }
                position = next;
            }
            selected.sort_unstable();
            prop_assert_eq!(selected, (100..100 + ends.len() as u64).collect::<Vec<_>>());
        }
    }
}
