//! Progress: which step has begun, and how much of it is done.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// How often is told how much is done.
const EVERY: Duration = Duration::from_secs(5);

/// What can be told.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A step begins.
    Step(&'a str),
    /// So much of it is done.
    Bytes {
        /// Of the copy, unpacked.
        done: u64,
        /// Of them in all; 0: that is not known.
        all: u64,
    },
    /// So many files of the log are there.
    Files {
        /// Here.
        done: usize,
        /// In all.
        all: usize,
    },
}

/// Whom it is told.
pub type Tell = fn(Progress<'_>);

/// A stream that tells how far it was read.
pub(crate) struct Counted<'a> {
    from: &'a mut dyn Read,
    done: u64,
    all: u64,
    pace: Pace,
    tell: Tell,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(from: &'a mut dyn Read, all: u64, tell: Tell) -> Self {
        Self { from, done: 0, all, pace: Pace::default(), tell }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.done += read as u64;
        if self.pace.is_due() {
            (self.tell)(Progress::Bytes { done: self.done, all: self.all });
        }
        Ok(read)
    }
}

/// Says when it is time to tell again.
pub(crate) struct Pace(Instant);

impl Default for Pace {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Pace {
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.0.elapsed() >= EVERY;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}
