//! Where an object is put together before it gets its name: in memory while it is small, in a temporary file beyond.
//!
//! What lies here is sealed already. A name needs the whole contents, so nothing can be written under it before the end.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{VaultError, format::HEADER, tally::Reservation};

/// The largest object that is put together in memory.
const IN_MEMORY: usize = 1024 * 1024;

/// A file that disappears unless it is given its name. It is locked while somebody owns it, which tells a file in the
/// making from one that a crash has left.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) file: File,
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        loop {
            let file = tempfile::Builder::new().prefix("new-").tempfile_in(directory)?;
            file.as_file().lock()?;
            // Whoever sweeps leftovers may have been faster than our lock.
            if file.path().exists() {
                let (file, path) = file.keep().map_err(|error| error.error)?;
                return Ok(Self { file, path, kept: false });
            }
        }
    }

    /// Gives the file its name. Its contents have to be on the disk.
    pub(crate) fn rename(mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }

    /// Gives the file a name that must not be taken.
    pub(crate) fn link(self, to: &Path) -> io::Result<()> {
        // The temporary name goes with `self`.
        std::fs::hard_link(&self.path, to)
    }

    /// Removes what crashes have left in a directory.
    pub(crate) fn sweep(directory: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"new-")) {
                continue;
            }
            match File::open(&path) {
                // Removed while we hold the lock: see `new`.
                Ok(file) if file.try_lock().is_ok() => std::fs::remove_file(&path)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // Failing leaves a locked-no-more file for the next sweep.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A sealed object without a name yet.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    memory: Vec<u8>,
    file: Option<Temporary>,
    bytes: u64,
    reservation: Reservation,
}

/// A whole sealed object.
#[derive(Debug)]
pub(crate) enum Sealed {
    Memory(Vec<u8>),
    File(Temporary),
}

impl Spool {
    pub(crate) fn new(directory: &Path, reservation: Reservation) -> Self {
        Self { directory: directory.to_owned(), memory: Vec::new(), file: None, bytes: 0, reservation }
    }

    /// Puts the header in front and gives the object away, with its size and the room that is reserved for it.
    pub(crate) fn finish(mut self, header: &[u8; HEADER]) -> Result<(Sealed, u64, Reservation), VaultError> {
        let sealed = match self.file {
            Some(mut temporary) => {
                let file = &mut temporary.file;
                file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(header)).map_err(VaultError::away("write an object"))?;
                Sealed::File(temporary)
            }
            None => {
                self.memory[..HEADER].copy_from_slice(header);
                Sealed::Memory(self.memory)
            }
        };
        Ok((sealed, self.bytes, self.reservation))
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reservation.grow(bytes.len() as u64).map_err(VaultError::into_io)?;
        self.bytes += bytes.len() as u64;
        match &mut self.file {
            Some(temporary) => temporary.file.write_all(bytes)?,
            None => {
                self.memory.extend_from_slice(bytes);
                if self.memory.len() > IN_MEMORY {
                    let mut temporary = Temporary::new(&self.directory)?;
                    temporary.file.write_all(&self.memory)?;
                    self.memory = Vec::new();
                    self.file = Some(temporary);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
