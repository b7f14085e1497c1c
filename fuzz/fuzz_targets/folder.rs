//! A copied folder's stream, any bytes: bringing it into a folder and comparing that with it never panics and touches nothing outside.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use reprieve_recovery::Arena;

thread_local! {
    static ARENA: LazyCell<Arena> = LazyCell::new(|| Arena::open().expect("a temporary folder"));
}

fuzz_target!(|input: &[u8]| {
    let Some((way, bytes)) = input.split_first() else { return };
    ARENA.with(|arena| {
        // As they are, or as choices of what a stream says, which gets further.
        let _ = if way.is_multiple_of(2) { arena.bring(bytes) } else { arena.bring(&arena.make_up(bytes)) };
    });
});
