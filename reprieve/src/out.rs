//! What the commands print, and the end of those whose reader has gone: `reprieve hold show H-1 | head -1` is no error.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
    process,
};

/// What a shell reports of a program that `SIGPIPE` ended: not a success, since not all was said.
const READER_GONE: i32 = 141;

/// Prints a line to standard output; takes what `println!` takes.
macro_rules! tell {
    ($($arguments:tt)*) => { $crate::out::line(format_args!($($arguments)*)) };
}

/// Prints a line. Ends the program where nobody reads any more, quietly, or where it can't be written, saying so.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    if let Err(error) = write(text) {
        if error.kind() == ErrorKind::BrokenPipe {
            process::exit(READER_GONE);
        }
        eprintln!("reprieve: cannot write to standard output: {error}");
        process::exit(1);
    }
}

/// Prints a line if somebody reads it: for a gateway, which goes on anyway.
pub(crate) fn line_if_read(text: &str) {
    let _ = write(format_args!("{text}"));
}

fn write(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
