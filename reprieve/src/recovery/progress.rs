//! What is being done, while it is done: a restore may take hours.

use reprieve_recovery::{Progress, Tell};

use crate::args::Cli;

/// Tells people, on standard error; a program that reads JSON waits for the end.
pub(super) fn of(cli: &Cli) -> Tell {
    if cli.json { |_| {} } else { tell }
}

fn tell(progress: Progress<'_>) {
    match progress {
        Progress::Step(step) => eprintln!("reprieve: {step} …"),
        Progress::Bytes { done, all: 0 } => eprintln!("reprieve:   {} MB", done >> 20),
        Progress::Bytes { done, all } => eprintln!("reprieve:   {} of {} MB", done >> 20, all >> 20),
        Progress::Files { done, all } => eprintln!("reprieve:   {done} of {all} files"),
    }
}
