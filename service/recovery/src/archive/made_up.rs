//! Streams that somebody made up, for tests.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{Attributes, Extended, Frame, Inside, PIECE, Record, check, fingerprint::Blocks, write::Writer};
use crate::RecoveryError;

pub(super) fn inside(text: &str) -> Inside {
    Inside::parse(text.as_bytes().to_vec()).expect("a path")
}

/// Attributes of something that is ours.
pub(super) fn attributes(mode: u32) -> Attributes {
    let own = fs::metadata("/proc/self").expect("own");
    Attributes { mode, user: own.uid(), group: own.gid(), seconds: 1_000_000_000, nanos: 5 }
}

pub(super) fn folder(path: &str) -> Record {
    Record::Folder { path: inside(path), attributes: attributes(0o755), extended: Extended::default() }
}

pub(super) fn link(path: &str, to: &str) -> Record {
    Record::Link { path: inside(path), attributes: attributes(0o777), to: to.as_bytes().to_vec() }
}

/// A file's record and frames.
pub(super) fn file(path: &str, text: &str) -> Vec<u8> {
    let record =
        Record::File { path: inside(path), attributes: attributes(0o640), extended: Extended::default(), bytes: text.len() as u64 };
    with_frames(&record, &[Ok(text.as_bytes())])
}

/// A file's record, data, holes, and the fingerprint of that.
pub(super) fn with_frames(record: &Record, parts: &[Result<&[u8], u64>]) -> Vec<u8> {
    let (mut all, mut blocks) = (bytes(record), Blocks::new());
    let nothing = |_: u64, _: &[u8]| Ok::<(), RecoveryError>(());
    for part in parts {
        match part {
            Ok(data) => data.chunks(PIECE).for_each(|piece| {
                Frame::Data(piece.len()).write(&mut all).expect("written");
                all.extend(piece);
                blocks.data(piece, nothing).expect("counted");
            }),
            Err(zeros) => {
                Frame::Hole(*zeros).write(&mut all).expect("written");
                blocks.hole(*zeros, nothing).expect("counted");
            }
        }
    }
    Frame::Whole(blocks.end(nothing).expect("a fingerprint")).write(&mut all).expect("written");
    all
}

pub(super) fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.write(&mut bytes).expect("written");
    bytes
}

/// Records, and the end that says how many.
pub(super) fn stream(parts: &[Vec<u8>]) -> Vec<u8> {
    let end = bytes(&Record::End { records: parts.len() as u64 });
    [parts.concat(), end].concat()
}

/// Brings a stream into a folder, and compares the folder with it.
pub(super) fn bring(stream: &[u8], to: &Path) -> Result<String, RecoveryError> {
    let mut writer = Writer::begin(to)?;
    let written = writer.all(&mut &stream[..]);
    let index = writer.end(written.is_ok());
    written?;
    check(&index?, to).map(|(said, _)| said)
}
