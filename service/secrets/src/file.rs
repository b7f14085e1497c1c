//! Files with secrets: read only when no stranger can, written whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use zeroize::Zeroizing;

use crate::SecretsError;

/// The largest file that is read as a secret. Sealing adds a few hundred bytes to the largest value.
pub(crate) const LARGEST_FILE: usize = 128 * 1024;

/// Reads a file. `forbidden` are permission bits that it must not have, `wanted` a mode to propose instead.
pub(crate) fn read(path: &Path, forbidden: u32, wanted: u32) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
    // Asked before opening too: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(SecretsError::file("read", path))?.is_file() {
        return Err(SecretsError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(SecretsError::file("read", path))?;
    let facts = file.metadata().map_err(SecretsError::file("read", path))?;
    if !facts.is_file() {
        return Err(SecretsError::NotAFile(path.to_owned()));
    }
    let mode = facts.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(SecretsError::Exposed { path: path.to_owned(), mode, wanted });
    }
    // Room for everything at once: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_FILE + 1));
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes).map_err(SecretsError::file("read", path))?;
    if bytes.len() > LARGEST_FILE {
        return Err(SecretsError::TooLarge { limit: LARGEST_FILE });
    }
    Ok(bytes)
}

/// Writes a file of mode 600 whole: a reader, or a crash, sees the old contents or the new.
/// Without `replace`, an existing file is left alone and is an error.
pub(crate) fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<(), SecretsError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let written = SecretsError::file("write", path);
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(0o600)).tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        if replace {
            file.persist(path).map_err(|error| error.error)?
        } else {
            file.persist_noclobber(path).map_err(|error| error.error)?
        };
        File::open(directory)?.sync_all()
    };
    attempt().map_err(written)
}
