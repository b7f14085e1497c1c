//! A folder, file by file; see `archive.rs`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::{Copying, Ended, Engine, EngineKind, Origin};
use crate::{
    RecoveryError,
    archive::{Folder, Reading, look},
    survey::Survey,
};

/// What the one part of a folder's survey is called.
pub(crate) const FILES: &str = "files";

/// A folder that is to be copied.
pub(super) struct Files(Folder);

impl Files {
    pub(super) fn open(folder: &Path, leave_out: &[PathBuf]) -> Result<Self, RecoveryError> {
        Ok(Self(Folder::open(folder, leave_out)?))
    }
}

impl Engine for Files {
    fn origin(&self) -> Origin {
        Origin {
            kind: EngineKind::Files,
            version: String::new(),
            major: 0,
            cluster: String::new(),
            address: self.0.path().display().to_string(),
            superuser: String::new(),
            database: FILES.to_owned(),
            segment_bytes: 0,
        }
    }

    fn survey(&mut self) -> Result<Survey, RecoveryError> {
        let found = look(&self.0)?;
        if found.left_out > 0 {
            tracing::warn!(folder = %self.0.path().display(), count = found.left_out, "sockets, pipes and devices are in no copy");
        }
        Ok(Survey::from([(FILES.to_owned(), found)]))
    }

    fn emptiness(&self, survey: &Survey) -> Option<String> {
        let files = survey.get(FILES).and_then(|found| found.rows.get("files")).copied().unwrap_or(0);
        (files == 0).then(|| format!("there is not a single file in `{}`", self.0.path().display()))
    }

    fn start(&mut self) -> Result<Box<dyn Copying>, RecoveryError> {
        Ok(Box::new(Reading::start(self.0.again()?)?))
    }
}

impl Copying for Reading {
    fn stream(&mut self) -> Result<Box<dyn Read>, RecoveryError> {
        Reading::stream(self)
    }

    fn end(self: Box<Self>) -> Result<Ended, RecoveryError> {
        Reading::end(*self).map(|()| Ended::default())
    }
}
