//! Archives: a folder as one stream, and back. What a name or a link says is never followed.
//!
//! `read.rs` makes the stream, `write.rs` brings it back, `check.rs` compares a folder with it; `walk.rs` goes through a folder by
//! handles, so that nobody who moves things about meanwhile leads it elsewhere; `extended.rs` has what an entry has besides its mode and
//! owner. A stream is records, one after the other: the length of
//! a JSON header, the header, and after a file's its contents in frames. Frames are short, so that the same contents make the same bytes.
//! A file counts once it is followed by its fingerprint, and the stream once its end says how many entries it has; of two entries with the
//! same path the later one counts.

mod check;
mod extended;
mod fingerprint;
#[cfg(any(test, fuzzing))]
pub(crate) mod made_up;
mod read;
mod walk;
mod write;

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::RecoveryError;

pub(crate) use check::check;
pub(crate) use extended::Extended;
pub(crate) use fingerprint::BLOCK;
pub(crate) use read::Reading;
pub(crate) use walk::{Folder, look};
pub(crate) use write::unpack;

/// The longest name, path, and way down.
const NAME_BYTES: usize = 255;
const PATH_BYTES: usize = 4_000;
const DEPTH: usize = 100;
/// The longest that a link points to.
const LINK_BYTES: usize = 4_096;
/// The longest header: a path and either a link or extended attributes, each byte written out.
const HEADER_BYTES: usize = 512 << 10;
/// The longest piece of a file in one frame.
pub(crate) const PIECE: usize = 64 << 10;
/// Entries of one folder that is copied, and in all.
const ENTRIES: u64 = 5_000_000;

/// A path in the folder: no way out of it, whoever wrote it. The folder itself is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Inside(Vec<u8>);

impl Inside {
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, RecoveryError> {
        let wrong = |why: &str| Err(RecoveryError::Damaged(format!("the path `{}` {why}", escape(&bytes))));
        if bytes.is_empty() {
            return Ok(Self(bytes));
        }
        if bytes.len() > PATH_BYTES {
            return wrong("is too long");
        }
        let mut names = 0;
        for name in bytes.split(|byte| *byte == b'/') {
            names += 1;
            match name {
                b"" | b"." | b".." => return wrong("leads elsewhere"),
                name if name.contains(&0) => return wrong("has a zero byte"),
                name if name.len() > NAME_BYTES => return wrong("has a name that is too long"),
                _ => {}
            }
        }
        if names > DEPTH { wrong("goes too deep") } else { Ok(Self(bytes)) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names on the way.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// What is called `name` in this folder.
    pub(crate) fn join(&self, name: &[u8]) -> Result<Self, RecoveryError> {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self::parse(path)
    }

    /// The folder that it is in, and its name there.
    pub(crate) fn split(&self) -> (Self, &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (Self(self.0[..at].to_vec()), &self.0[at + 1..]),
            None => (Self::default(), &self.0),
        }
    }

    /// Whether it is this or in it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(other.0.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// For people: nothing in it acts on a terminal.
    pub(crate) fn in_words(&self) -> String {
        if self.is_root() { ".".to_owned() } else { escape(&self.0) }
    }
}

impl Serialize for Inside {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        escaped::serialize(&self.0, to)
    }
}

impl<'de> Deserialize<'de> for Inside {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(escaped::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// Bytes as text that says them all: what is no printable text is written as `\xFF`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Also what turns the direction of text around.
            if character == '\\'
                || character.is_control()
                || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
            {
                let mut room = [0; 4];
                text.extend(character.encode_utf8(&mut room).bytes().map(|byte| format!("\\x{byte:02x}")));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest[at..].strip_prefix("\\x")?.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

mod escaped {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::escape(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        super::unescape(&text).ok_or_else(|| D::Error::custom("a name is not written as names are"))
    }
}

/// Whose an entry is, and what may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// One entry, or the stream's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Record {
    /// A folder; its entries follow in their own records.
    Folder {
        path: Inside,
        attributes: Attributes,
        // Older copies have none.
        #[serde(default, skip_serializing_if = "Extended::is_empty")]
        extended: Extended,
    },
    /// A file; frames follow.
    File {
        path: Inside,
        attributes: Attributes,
        #[serde(default, skip_serializing_if = "Extended::is_empty")]
        extended: Extended,
        bytes: u64,
    },
    /// A symbolic link.
    Link {
        path: Inside,
        attributes: Attributes,
        #[serde(with = "escaped")]
        to: Vec<u8>,
    },
    /// Another name of a file that came before.
    Name { path: Inside, of: Inside },
    /// All records came.
    End { records: u64 },
}

/// A part of a file's contents, or what is said about them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// So many bytes follow.
    Data(usize),
    /// So many zeros.
    Hole(u64),
    /// That was all; it is whole.
    Whole([u8; 32]),
    /// It changed while it was read: what came of it does not count.
    Withdrawn,
}

impl Record {
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let header = serde_json::to_vec(self)?;
        if header.len() > HEADER_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a header that could not be read again"));
        }
        let length = u32::try_from(header.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(&header)
    }

    pub(crate) fn read(from: &mut dyn Read) -> Result<Self, RecoveryError> {
        let length = u32::from_le_bytes(exactly(from)?) as usize;
        if length > HEADER_BYTES {
            return Err(RecoveryError::Damaged("a header in the copy is too long".to_owned()));
        }
        let mut header = vec![0; length];
        from.read_exact(&mut header).map_err(cut)?;
        let record: Self =
            serde_json::from_slice(&header).map_err(|error| RecoveryError::Damaged(format!("a header in the copy is not one: {error}")))?;
        match &record {
            // To the kernel that is nobody: whoever has the file keeps it.
            Self::Folder { attributes, .. } | Self::File { attributes, .. } | Self::Link { attributes, .. }
                if attributes.user == u32::MAX || attributes.group == u32::MAX =>
            {
                Err(RecoveryError::Damaged("an entry in the copy has an owner that nobody can be".to_owned()))
            }
            Self::Link { to, .. } if to.is_empty() || to.len() > LINK_BYTES || to.contains(&0) => {
                Err(RecoveryError::Damaged("a link in the copy points to what nothing can point to".to_owned()))
            }
            _ => Ok(record),
        }
    }
}

impl Frame {
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Data(bytes) => {
                to.write_all(&[0])?;
                to.write_all(&u32::try_from(*bytes).map_err(|_| io::ErrorKind::InvalidData)?.to_le_bytes())
            }
            Self::Hole(bytes) => {
                to.write_all(&[1])?;
                to.write_all(&bytes.to_le_bytes())
            }
            Self::Whole(fingerprint) => {
                to.write_all(&[2])?;
                to.write_all(fingerprint)
            }
            Self::Withdrawn => to.write_all(&[3]),
        }
    }

    pub(crate) fn read(from: &mut dyn Read) -> Result<Self, RecoveryError> {
        match exactly::<1>(from)? {
            [0] => match u32::from_le_bytes(exactly(from)?) as usize {
                bytes if bytes <= PIECE => Ok(Self::Data(bytes)),
                _ => Err(RecoveryError::Damaged("a piece of a file in the copy is too long".to_owned())),
            },
            [1] => Ok(Self::Hole(u64::from_le_bytes(exactly(from)?))),
            [2] => Ok(Self::Whole(exactly(from)?)),
            [3] => Ok(Self::Withdrawn),
            _ => Err(RecoveryError::Damaged("something in the copy is no part of a file".to_owned())),
        }
    }
}

fn exactly<const N: usize>(from: &mut dyn Read) -> Result<[u8; N], RecoveryError> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

fn cut(error: io::Error) -> RecoveryError {
    RecoveryError::Damaged(format!("the copy ends too early: {error}"))
}

/// Paths of the settings, as paths in the folder.
pub(crate) fn parse_all(paths: &[PathBuf]) -> Result<Vec<Inside>, RecoveryError> {
    use std::os::unix::ffi::OsStrExt as _;
    let one = |path: &PathBuf| match Inside::parse(path.as_os_str().as_bytes().to_vec()) {
        Ok(inside) if !inside.is_root() => Ok(inside),
        _ => Err(RecoveryError::Refused(format!("`{}` is no path in a folder: write it from there, without `..`", path.display()))),
    };
    paths.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
