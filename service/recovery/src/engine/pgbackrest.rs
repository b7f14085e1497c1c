//! A PostgreSQL server, copied by pgBackRest into its own repository. What goes into the vault is the list of the copy's files: what
//! comes back has to be what was listed.

use std::{
    io::{Cursor, Read},
    time::Duration,
};

use reprieve_operation::Timestamp;

use super::{Copying, Ended, Engine, EngineChoice, EngineKind, Origin, postgres::Postgres};
use crate::{
    RecoveryError, Source, Stanza, Tools,
    pgbackrest::{Elsewhere, Kept},
    survey::Survey,
};

/// A copy's longest.
const COPY: Duration = Duration::from_secs(48 * 3_600);
/// How long copies may rest on the same full one: retention counts those, and a chain is as good as its first link.
const FULL_EVERY: Duration = Duration::from_secs(7 * 86_400);

/// A server, and the stanza that it is copied to.
pub(super) struct PgBackRest {
    server: Postgres,
    stanza: Stanza,
    tools: Tools,
    anew: bool,
    now: Timestamp,
}

impl PgBackRest {
    pub(super) fn open(source: &Source, stanza: &Stanza, anew: bool, now: Timestamp) -> Result<Self, RecoveryError> {
        let server = Postgres::open(source, EngineChoice::Pgbackrest)?;
        Ok(Self { server, stanza: stanza.clone(), tools: Tools::find(None)?, anew, now })
    }
}

impl Engine for PgBackRest {
    fn origin(&self) -> Origin {
        Origin { kind: EngineKind::Pgbackrest, ..self.server.origin() }
    }

    fn survey(&mut self) -> Result<Survey, RecoveryError> {
        self.server.survey()
    }

    fn emptiness(&self, survey: &Survey) -> Option<String> {
        self.server.emptiness(survey)
    }

    fn start(&mut self) -> Result<Box<dyn Copying>, RecoveryError> {
        self.server.has_no_tablespaces()?;
        let before = self.stanza.info(&self.tools)?;
        self.stanza.has_to_be_of(&before.cluster, &self.origin().cluster)?;
        let newest_full = before.kept.iter().rfind(|kept| kept.full && kept.wrong.is_none());
        let full = self.anew || newest_full.is_none_or(|kept| self.now.since(kept.began) >= FULL_EVERY);
        let written = self.server.written()?;
        let label = self.stanza.backup(&self.tools, full, COPY)?;
        let kept = self.stanza.info(&self.tools)?.find(&label)?.clone();
        // A clone of a server has its number: but not its log.
        let since = written..=self.server.written()?;
        if kept.wal.is_none_or(|(_, from, to)| !since.contains(&from) || !since.contains(&to)) {
            return Err(RecoveryError::Refused(format!(
                "pgBackRest's stanza `{}` copies another server than the one that `url` leads to: {label} is of another place in the log",
                self.stanza.name
            )));
        }
        let list = self.stanza.list(&self.tools, &label)?;
        Ok(Box::new(Made { list: Some(list), elsewhere: Elsewhere { stanza: self.stanza.name.clone(), label }, kept }))
    }
}

/// A copy that was made.
struct Made {
    list: Option<String>,
    elsewhere: Elsewhere,
    kept: Kept,
}

impl Copying for Made {
    fn stream(&mut self) -> Result<Box<dyn Read>, RecoveryError> {
        Ok(Box::new(Cursor::new(self.list.take().unwrap_or_default().into_bytes())))
    }

    fn end(self: Box<Self>) -> Result<Ended, RecoveryError> {
        let sizes = (self.kept.plain_bytes, self.kept.stored_bytes, self.kept.added_bytes);
        Ok(Ended { wal: self.kept.wal, elsewhere: Some((self.elsewhere, sizes)) })
    }
}
