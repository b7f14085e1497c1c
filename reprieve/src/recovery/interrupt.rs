//! Interruptions: a drill or a restore that is stopped by a signal is told as such, and one that was killed is told by the next.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process, thread,
};

use anyhow::Context as _;
use reprieve_operation::SystemName;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::settings::Settings;

/// How the reason of what was stopped begins.
pub(super) const INTERRUPTED: &str = "interrupted";
/// A mark in the making.
const DRAFT: &str = "new-";

/// Does the work. At a signal, `tell` is done instead and the process ends; what it held open goes by the watchdogs.
pub(super) fn guarded<T>(runtime: &Runtime, work: impl FnOnce() -> T, tell: impl FnOnce() + Send) -> T {
    let (done, ended) = oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            if runtime.block_on(is_interrupted(ended)) {
                tell();
                process::exit(1);
            }
        });
        let result = work();
        // A signal reaches the programs that we wait for, too: what they failed with is not what happened.
        while done.is_closed() {
            thread::park();
        }
        let _ended = done.send(());
        result
    })
}

async fn is_interrupted(ended: oneshot::Receiver<()>) -> bool {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
        let _ended = ended.await;
        return false;
    };
    tokio::select! {
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
        _ = hangup.recv() => true,
        _ = ended => false,
    }
}

/// The mark of a drill that has begun. It goes with its end; one that is there and locked by nobody has none.
pub(super) struct Mark {
    path: PathBuf,
    _lock: File,
}

impl Mark {
    pub(super) fn set(settings: &Settings, system: &SystemName, drill: &str, point: &str) -> anyhow::Result<Self> {
        let folder = marks(settings, system);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (draft, path) = (folder.join(format!("{DRAFT}{drill}")), folder.join(drill));
        let mark = || -> std::io::Result<File> {
            let mut file = File::create(&draft)?;
            file.lock()?;
            file.write_all(point.as_bytes())?;
            // Locked before anybody can find it.
            fs::rename(&draft, &path)?;
            Ok(file)
        };
        let lock = mark().with_context(|| format!("cannot mark the drill's beginning in {}", folder.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Its end is recorded.
    pub(super) fn remove(self) {
        let _gone = fs::remove_file(&self.path);
    }
}

/// Drills of a system that have begun here and never ended, with what they were to try.
pub(super) fn never_ended(settings: &Settings, system: &SystemName) -> Vec<(PathBuf, String, String)> {
    let entries = fs::read_dir(marks(settings, system)).into_iter().flatten().flatten();
    let left = |path: &Path| File::open(path).is_ok_and(|file| file.try_lock().is_ok());
    entries
        .filter_map(|entry| {
            let (path, drill) = (entry.path(), entry.file_name().into_string().ok()?);
            let point = (!drill.starts_with(DRAFT) && left(&path)).then(|| fs::read_to_string(&path).unwrap_or_default())?;
            Some((path, drill, point))
        })
        .collect()
}

fn marks(settings: &Settings, system: &SystemName) -> PathBuf {
    settings.path(&PathBuf::from("recovery")).join(system.as_str()).join("drills")
}
