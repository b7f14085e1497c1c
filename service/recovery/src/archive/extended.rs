//! What an entry has besides its mode and owner: attributes of its users, access lists, capabilities.
//!
//! All of it is read and given by handle, never by path. A link has none of these: only what is not kept can be on one. Not kept are
//! `security.selinux` (the policy of the machine that it comes back on labels files), `security.ima` and `security.evm` (signed for one
//! machine), `trusted.*` (notes of that machine's kernel and root) and what single filesystems have, such as NFS's own access lists.

use std::os::fd::AsFd;

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr},
    io::Errno,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Inside, NAME_BYTES, escape, unescape, walk::doing};
use crate::RecoveryError;

/// How many an entry may have.
const COUNT: usize = 100;
/// The longest value, and the longest list of names, that Linux has.
const VALUE_BYTES: usize = 64 << 10;
/// Names and values of one entry: the longest value there can be, and some more. Each byte written out fits in a header.
const ALL_BYTES: usize = 72 << 10;

const CAPABILITY: &[u8] = b"security.capability";

/// Names and values, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extended(Vec<(Vec<u8>, Vec<u8>)>);

impl Extended {
    /// What is kept of one entry, or in words why that can't be all.
    pub(super) fn parse(all: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, String> {
        let bytes: usize = all.iter().map(|(name, value)| name.len() + value.len()).sum();
        if all.len() > COUNT || bytes > ALL_BYTES {
            return Err(too_many());
        }
        for (name, value) in &all {
            if !is_kept(name) || name.len() > NAME_BYTES || name.contains(&0) || value.len() > VALUE_BYTES {
                return Err(format!("has `{}`, which is no extended attribute that a copy keeps", escape(name)));
            }
        }
        if !all.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err("has an extended attribute twice, or not in order".to_owned());
        }
        Ok(Self(all))
    }

    /// What something has now.
    pub(super) fn of(handle: impl AsFd, path: &Inside) -> Result<Self, RecoveryError> {
        let refused = |why: String| RecoveryError::Refused(format!("`{}` {why}: take some of them away, or leave it out", path.in_words()));
        let (mut all, names) = (Vec::new(), names(&handle, path)?);
        // Before they are read: each may be long.
        if names.len() > COUNT {
            return Err(refused(too_many()));
        }
        for name in names {
            match value(&handle, &name) {
                Ok(value) => all.push((name, value)),
                // It went since it was listed; whoever looks again sees that.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(doing(&format!("read `{}` of", escape(&name)), path)(error.into())),
            }
        }
        all.sort_unstable();
        Self::parse(all).map_err(refused)
    }

    /// What can be given to what comes back: only root gives rights to programs, like owners and set-user-id.
    pub(super) fn as_given(&self, root: bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| root || name != CAPABILITY).cloned().collect())
    }

    /// Makes this all that something has. To be called once the owner is set, which takes capabilities away, and before the mode is:
    /// an access list has a part in that.
    pub(super) fn give(&self, handle: impl AsFd, path: &Inside) -> Result<(), RecoveryError> {
        let failed = |name: &[u8], error: Errno| match error {
            Errno::OPNOTSUPP => RecoveryError::Refused(format!(
                "the filesystem that it comes back on does not keep `{}` of `{}`: choose another one",
                escape(name),
                path.in_words()
            )),
            error => doing(&format!("give `{}` to", escape(name)), path)(error.into()),
        };
        // What comes from the folder around, which may have an access list for all that is made in it.
        for name in names(&handle, path)? {
            if !self.0.iter().any(|(kept, _)| *kept == name) {
                fremovexattr(&handle, name.as_slice()).map_err(|error| failed(&name, error))?;
            }
        }
        for (name, value) in &self.0 {
            fsetxattr(&handle, name.as_slice(), value, XattrFlags::empty()).map_err(|error| failed(name, error))?;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// In words that people can read: most values are text.
impl Serialize for Extended {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|(name, value)| (escape(name), escape(value))))
    }
}

impl<'de> Deserialize<'de> for Extended {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = Vec::<(String, String)>::deserialize(from)?;
        let all: Option<Vec<_>> = written.iter().map(|(name, value)| Some((unescape(name)?, unescape(value)?))).collect();
        let all = all.ok_or_else(|| D::Error::custom("an extended attribute is not written as they are"))?;
        Self::parse(all).map_err(|why| D::Error::custom(format!("an entry {why}")))
    }
}

fn too_many() -> String {
    format!("has more extended attributes than the {COUNT}, of {ALL_BYTES} bytes in all, that a copy keeps")
}

fn is_kept(name: &[u8]) -> bool {
    name == CAPABILITY
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
        || name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty())
}

/// The names of what is kept.
fn names(handle: &impl AsFd, path: &Inside) -> Result<Vec<Vec<u8>>, RecoveryError> {
    let names = match with_room(|room| flistxattr(handle, room)) {
        Ok(names) => names,
        // This filesystem has none.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::TOOBIG | Errno::RANGE) => {
            let why = format!("`{}` has more extended attributes than can be listed", path.in_words());
            return Err(RecoveryError::Refused(why));
        }
        Err(error) => return Err(doing("list the extended attributes of", path)(error.into())),
    };
    Ok(names.split(|byte| *byte == 0).filter(|name| is_kept(name)).map(<[u8]>::to_vec).collect())
}

fn value(handle: &impl AsFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    with_room(|room| fgetxattr(handle, name, room))
}

/// With little room, which nearly always does, and else with as much as Linux ever fills.
fn with_room(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut little = [0; 256];
    match read(&mut little) {
        Ok(length) => Ok(little[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut room = vec![0; VALUE_BYTES];
            let length = read(&mut room)?;
            room.truncate(length);
            Ok(room)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
