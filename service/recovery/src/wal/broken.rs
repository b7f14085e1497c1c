//! A log that can't go on: the server went back, was replaced, or has removed what it was to keep.
//!
//! What was received is stored as far as it came and set aside, never taken away, and the log begins anew from where the server is.
//! That is recorded and people are told: no copy there is yet is followed by what comes from now on.

use std::{fs, path::PathBuf, thread};

use reprieve_operation::Event;
use reprieve_vault::Vault;
use tokio::runtime::Handle;

use super::{
    ASK, LOOK_EVERY, WalKeeper,
    index::Stored,
    received_cluster,
    standing::{Standing, history},
};
use crate::{Lsn, RecoveryError, Tools};

impl WalKeeper {
    /// Why what the server has now does not go on from what was received; none if it may.
    pub(super) fn why_not(&self, asked: &Standing, tools: &Tools) -> Result<Option<String>, RecoveryError> {
        let folder = &self.options.folder;
        if let Some(known) = received_cluster(folder)?.filter(|known| *known != asked.cluster) {
            return Ok(Some(format!("another cluster answers at {}: {} in the place of {known}", self.source.address(), asked.cluster)));
        }
        asked.why_not(asked.reached(folder)?, |timeline| history(&self.source, tools, timeline))
    }

    /// Begins with an empty folder, once everything else is safe and recorded. What fails on the way is tried again from the beginning.
    pub(super) fn begin_anew(&self, vault: &Vault, handle: &Handle, tools: &Tools, reason: &str) -> Result<(), RecoveryError> {
        let folder = &self.options.folder;
        // First of all the server keeps what comes from now on.
        let asked = Standing::ask(&self.source, tools, &self.slot())?;
        if asked.has_lost_its_slot() {
            self.drop_slot(tools)?;
        }
        self.make_slot(tools)?;
        let now = Standing::ask(&self.source, tools, &self.slot())?;
        let known = received_cluster(folder)?.unwrap_or_else(|| now.cluster.clone());
        let mut stored = Stored::open(folder)?;
        self.store(vault, handle, &known, &mut stored)?;
        while stored.is_behind {
            thread::sleep(LOOK_EVERY);
            self.store(vault, handle, &known, &mut stored)?;
        }

        let place = |cluster: &str, timeline: u32, at: Lsn| format!("{at} on timeline {timeline} of cluster {cluster}");
        let received = now.reached(folder)?.map_or_else(|| "nothing".to_owned(), |(timeline, at)| place(&known, timeline, at));
        let resumed = place(&now.cluster, now.timeline(), now.slot.as_ref().and_then(|slot| slot.from).unwrap_or(now.flushed));
        let aside = self.aside();
        let system = &self.options.system;
        let what = format!(
            "the log of `{system}` does not go on from {received}: {reason}. It begins anew at {resumed}, and what lies between is lost. \
             No copy there is can be brought further: make one now, `reprieve backup now {system}`"
        );
        tracing::error!(%system, %received, %resumed, %reason, "the write-ahead log begins anew");
        let broken =
            Event::LogBroken { system: system.clone(), reason: reason.to_owned(), received, resumed, aside: aside.display().to_string() };
        let recorded = handle.block_on(self.audit.append(broken));
        recorded.map_err(|error| RecoveryError::Ledger(error.to_string()))?;
        drop(self.audit.append(Event::Alarm { what, agent: None }));
        self.note(|coverage| (coverage.until, coverage.lsn) = (None, None));
        fs::rename(folder, &aside).map_err(RecoveryError::file(format!("set `{}` aside", folder.display())))?;
        fs::create_dir_all(folder).map_err(RecoveryError::file(format!("make `{}`", folder.display())))
    }

    pub(super) fn drop_slot(&self, tools: &Tools) -> Result<(), RecoveryError> {
        let sql = format!("SELECT FROM pg_catalog.pg_drop_replication_slot('{}')", self.slot());
        self.source.sql(tools, &sql, ASK).map(drop)
    }

    /// Where what was received goes when it can't go on.
    fn aside(&self) -> PathBuf {
        self.options.folder.with_extension(format!("aside-{}", self.clock.now().0))
    }

    /// Of which cluster the files are.
    pub(super) fn mark(&self, cluster: &str) -> Result<(), RecoveryError> {
        let mark = self.options.folder.join("cluster");
        match received_cluster(&self.options.folder)? {
            Some(_) => Ok(()),
            None => fs::write(&mark, cluster).map_err(RecoveryError::file(format!("write `{}`", mark.display()))),
        }
    }
}
