//! What the server's command tags say of a client's transaction: how many of its rows were changed by which statement.
//!
//! The measurement at COMMIT knows a transaction's rows as a whole. Rows that tags ascribe to other statements than the largest one
//! are not the largest one's; all others may be. So a tag that can't be believed, or that is not there yet, only makes the largest
//! statement look larger (PostgreSQL 15, chapter 55.7, "CommandComplete").

/// Rows by statement, as far as they can be told apart.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Rows of statements that are believed: in all, and of the largest.
    rows: u64,
    largest: u64,
    /// The same of what ran since the last time that nothing was on its way.
    fresh: (u64, u64),
    /// Whether all of that is believed.
    believed: bool,
}

impl Tally {
    /// Begins with a statement that is about to be sent. `is_exact`: its tag is the number of rows that it itself changed in ordinary
    /// tables. `is_idle`: every earlier statement was answered.
    pub(crate) fn expect(&mut self, is_exact: bool, is_idle: bool) {
        if is_idle {
            self.settle();
            self.believed = is_exact;
        } else {
            self.believed &= is_exact;
        }
    }

    /// Takes in a tag.
    pub(crate) fn complete(&mut self, tag: &str) {
        let mut words = tag.split(' ');
        match words.next() {
            Some("INSERT" | "UPDATE" | "DELETE" | "MERGE") => {
                let rows = words.next_back().and_then(|rows| rows.parse().ok()).unwrap_or(0);
                self.fresh = (self.fresh.0.saturating_add(rows), self.fresh.1.max(rows));
            }
            // Also of a part: what was counted may be taken back.
            Some("ROLLBACK") => *self = Self::default(),
            _ => {}
        }
    }

    /// Rows that are known to be of other statements than the largest one, and ends the transaction's tally.
    pub(crate) fn apart(&mut self, is_idle: bool) -> u64 {
        if is_idle {
            self.settle();
        }
        let apart = self.rows.saturating_sub(self.largest);
        *self = Self::default();
        apart
    }

    fn settle(&mut self) {
        let (rows, largest) = std::mem::take(&mut self.fresh);
        if std::mem::take(&mut self.believed) {
            self.rows = self.rows.saturating_add(rows);
            self.largest = self.largest.max(largest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_believed_is_told_apart() {
        let check = |steps: &[(bool, &str)], expected: u64| {
            let mut tally = Tally::default();
            for (is_exact, tag) in steps {
                tally.expect(*is_exact, true);
                tally.complete(tag);
            }
            assert_eq!(tally.apart(true), expected, "{steps:?}");
            assert_eq!(tally.apart(true), 0, "it is over");
        };
        check(&[], 0);
        check(&[(true, "DELETE 900")], 0);
        check(&[(true, "INSERT 0 40"), (true, "UPDATE 60"), (true, "SELECT 7"), (true, "MERGE 50")], 90);
        check(&[(true, "INSERT 0 40"), (false, "UPDATE 60"), (true, "DELETE 50")], 40);
        check(&[(true, "DELETE 40"), (true, "DELETE 40"), (true, "ROLLBACK"), (true, "DELETE 40")], 0);
        check(&[(true, "DELETE many"), (true, "DELETE"), (true, "COPY 50"), (true, "DELETE 5")], 0);
    }

    #[test]
    fn a_tag_that_comes_late_is_not_taken_for_a_later_statement_s() {
        let mut tally = Tally::default();
        tally.expect(false, true);
        tally.expect(true, false);
        tally.complete("INSERT 0 500");
        tally.complete("INSERT 0 500");
        assert_eq!(tally.apart(true), 0);
        tally.expect(true, true);
        tally.complete("INSERT 0 5");
        tally.expect(true, false);
        assert_eq!(tally.apart(false), 0, "an answer is still missing");
    }
}
