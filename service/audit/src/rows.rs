//! Rows one after the other, read page by page: a ledger need not fit into memory.

use std::collections::VecDeque;

use reprieve_store::{Reader, Row, StoreError};

const PAGE: usize = 1_024;

/// All rows from an index on, as stored: gaps are the caller's to notice.
pub(crate) struct Rows<'a> {
    reader: &'a dyn Reader,
    next: u64,
    page: VecDeque<Row>,
    ended: bool,
}

impl<'a> Rows<'a> {
    pub(crate) fn from(reader: &'a dyn Reader, next: u64) -> Self {
        Self { reader, next, page: VecDeque::new(), ended: false }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && !self.ended {
            match self.reader.rows(self.next, PAGE) {
                Ok(rows) => self.page = rows.into(),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            self.ended = self.page.len() < PAGE;
            // An index at the end of all numbers has none after it.
            match self.page.back().map(|row| row.index.checked_add(1)) {
                Some(Some(next)) => self.next = next,
                Some(None) | None => self.ended = true,
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// All stored checkpoints, smallest size first.
pub(crate) struct Checkpoints<'a> {
    reader: &'a dyn Reader,
    next: u64,
    page: VecDeque<(u64, String)>,
    ended: bool,
}

impl<'a> Checkpoints<'a> {
    pub(crate) fn all(reader: &'a dyn Reader) -> Self {
        Self { reader, next: 0, page: VecDeque::new(), ended: false }
    }

    /// The next checkpoint, without taking it.
    pub(crate) fn peek(&mut self) -> Result<Option<&(u64, String)>, StoreError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.reader.checkpoints(self.next, PAGE)?.into();
            self.ended = self.page.len() < PAGE;
            match self.page.back().map(|(size, _)| size.checked_add(1)) {
                Some(Some(next)) => self.next = next,
                Some(None) | None => self.ended = true,
            }
        }
        Ok(self.page.front())
    }

    /// Takes the next checkpoint if it is of this size or a smaller one.
    pub(crate) fn up_to(&mut self, size: u64) -> Result<Option<(u64, String)>, StoreError> {
        if self.peek()?.is_some_and(|(next, _)| *next <= size) { Ok(self.page.pop_front()) } else { Ok(None) }
    }
}
