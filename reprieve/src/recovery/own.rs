//! The gateway itself comes back: copies of its ledger, keys and settings, and what a ledger that came back is held against.
//!
//! A ledger that knows less than its vault does is not served: it would give numbers a second time that were given already. An
//! operator on the machine decides that it goes on, with a reason; that is its next event, and everything is frozen.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_audit::{AuditLog, AuditOptions, SystemClock, decode, prove_consistency, verify};
use reprieve_gate::{Audit as _, Clock as _};
use reprieve_ledger::{Checkpoint, Signer, Verifier};
use reprieve_operation::{Digest, Event, Timestamp};
use reprieve_recovery::{DrillKey, OwnCopy, anchor, copy_own, find_anchors, newest_own, restore_own};
use reprieve_store::{Query, SqliteStore};
use reprieve_vault::{Location, Vault, VaultKey, VaultOptions};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::runtime;
use crate::{args::Cli, keys::Keys, settings::Settings, wire};

/// How often the ledger's head is put into the vault, if it is another one.
const ANCHOR_EVERY: Duration = Duration::from_secs(60);
/// How long a start waits for the vault to say what it knows.
const LOOK: Duration = Duration::from_secs(10);
/// Clocks differ: a head may look this much older than it is.
const SKEW: Duration = Duration::from_secs(86_400);
/// Lies in a folder that came back, until an operator has decided that it goes on.
const MARK: &str = "reprieve.restored";

/// What has to be kept elsewhere to come back when all of the gateway is lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kit {
    store: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    vault_key: String,
    copies: String,
    ledger: String,
    /// Missing where it is kept elsewhere already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

/// Prints the kit.
pub(crate) fn kit(settings: &Settings) -> anyhow::Result<u8> {
    let keys = Keys::of(settings);
    keys.prepare_recovery(settings)?;
    let mut location: Location = settings.vault.store.parse()?;
    let store = match &mut location {
        Location::File(path) => format!("file:{}", std::path::absolute(settings.path(path))?.display()),
        _ => settings.vault.store.clone(),
    };
    let identity = if settings.recovery.identity.is_none() { Some(keys.identity(settings)?.reveal()) } else { None };
    let kit = Kit {
        store,
        endpoint: settings.vault.endpoint.clone(),
        region: settings.vault.region.clone(),
        vault_key: keys.vault_text()?,
        copies: keys.public("copies")?.to_string(),
        ledger: keys.verifier()?.to_string(),
        identity,
    };
    tell!("# What brings this gateway back when its machine is lost. It opens the vault: keep it elsewhere, on paper or sealed.");
    tell!("{}", toml::to_string(&kit)?.trim_end());
    Ok(0)
}

/// Makes a copy of the gateway's own state.
pub(crate) fn copy(
    settings: &Settings,
    keys: &Keys,
    signer: &Signer,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<(OwnCopy, Digest)> {
    let recipients = keys.recipients(settings)?;
    let access = wire::vault(settings, keys)?;
    let vault = runtime.block_on(access.vault())?;
    // On the gateway's own disk, which nobody else reads.
    let staged =
        tempfile::Builder::new().prefix(".reprieve-own-").tempdir_in(settings.path(Path::new("."))).context("cannot make a folder")?;
    let ledger = staged.path().join("reprieve.db");
    SqliteStore::copy(&settings.ledger_file()?, &ledger).context("cannot copy the ledger")?;
    let size = SqliteStore::open_to_read(&ledger)?.head()?.map_or(0, |head| head.size);
    fs::copy(&settings.file, staged.path().join("reprieve.toml")).context("cannot copy the settings")?;
    let folders = [(&settings.keys.directory, "keys"), (&settings.keys.secrets, "secrets"), (&settings.policy.directory, "policies")];
    for (from, to) in folders {
        copy_folder(&settings.path(from), &staged.path().join(to))?;
    }
    // What opens copies does not travel in one.
    let identity = staged.path().join("keys/recovery.identity");
    if identity.exists() {
        fs::remove_file(identity)?;
    }
    Ok(copy_own(vault, runtime.handle(), &recipients, signer, staged.path(), size, SystemClock.now())?)
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    if !from.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Makes the copy and says so.
pub(crate) fn copy_now(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let keys = Keys::of(settings);
    keys.prepare_recovery(settings)?;
    let (copy, object) = copy(settings, &keys, &keys.copyist()?, &runtime()?)?;
    if cli.json {
        tell!("{}", json!({ "manifest": object, "events": copy.size, "plain_bytes": copy.plain_bytes }));
    } else {
        tell!(
            "The gateway's ledger ({} events), keys and settings are in the vault. `reprieve recovery kit` is what opens them.",
            copy.size
        );
    }
    Ok(0)
}

/// Brings the gateway back into a new folder. It does not serve before `reprieve ledger resume`.
pub(crate) fn restore(cli: &Cli, kit: &Path, identity: Option<&Path>, to: &Path) -> anyhow::Result<u8> {
    let text = fs::read_to_string(kit).with_context(|| format!("cannot read {}", kit.display()))?;
    let kit: Kit = toml::from_str(&text).context("this is not a kit of `reprieve recovery kit`")?;
    let identity = match (identity, &kit.identity) {
        (Some(path), _) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        (None, Some(text)) => text.clone(),
        (None, None) => bail!("the identity that opens copies is kept elsewhere: --identity FILE"),
    };
    let (key, ledger) = (Verifier::parse(kit.copies.trim())?, Verifier::parse(kit.ledger.trim())?);
    let bytes = BASE64.decode(kit.vault_key.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let mut options = VaultOptions::new(&kit.store, VaultKey::from_bytes(&bytes.context("the kit's vault key is not one")?))?;
    options.s3.endpoint.clone_from(&kit.endpoint);
    options.s3.region.clone_from(&kit.region);
    if let Location::File(path) = &options.store {
        ensure!(path.is_dir(), "there is no vault in {}", path.display());
    }
    ensure!(
        !to.exists() || fs::read_dir(to)?.next().is_none(),
        "{} is not empty: a gateway comes back into a new place only",
        to.display()
    );
    let (vault, runtime) = (Vault::open(&options)?, runtime()?);
    let copy = runtime.block_on(newest_own(&vault, &key))?.context("there is no copy of this gateway in the vault")?;
    let anchors = runtime.block_on(find_anchors(&vault, &ledger, Timestamp(0)))?;
    make_private(to)?;
    restore_own(&vault, runtime.handle(), &copy, &DrillKey::parse(&identity)?, to)?;
    let reader = SqliteStore::open_to_read(&to.join("reprieve.db"))?;
    let report = verify(reader.as_ref(), &ledger, None)?;
    ensure!(report.is_good() && report.size == copy.size, "the ledger that came back does not verify: {:?}", report.fault);
    let known = anchors.last().map_or(copy.size, |(checkpoint, ..)| checkpoint.size.max(copy.size));
    // The newest that is known, wherever it is from: what came back is held against it at every start.
    let head = match anchors.last().filter(|(checkpoint, ..)| checkpoint.size >= copy.size) {
        Some((_, note, _)) => note.clone(),
        None => reader.head()?.context("the ledger that came back has no head")?.checkpoint,
    };
    drop(reader);
    fs::write(to.join("reprieve.head"), head)?;
    fs::write(to.join(MARK), "An operator has to decide that this gateway goes on: reprieve ledger resume --reason …\n")?;
    let own = to.join("keys/recovery.identity");
    if kit.identity.is_some() && !own.exists() {
        crate::keys::write_new(&own, identity.as_bytes())?;
    }
    let settings = Settings::read(&to.join("reprieve.toml"))?;
    // A vault beside the settings would be a new and empty one.
    if let (Ok(Location::File(named)), Location::File(real)) = (settings.vault.store.parse::<Location>(), &options.store) {
        let beside = settings.path(&named);
        if named.is_relative() && !beside.exists() {
            std::os::unix::fs::symlink(real, &beside).with_context(|| format!("cannot link {}", beside.display()))?;
        }
    }
    if cli.json {
        tell!("{}", json!({ "events": copy.size, "known": known, "lost": known - copy.size, "copied": copy.at, "to": to }));
    } else {
        tell!("The gateway of {} UTC is back in {}: {} of {known} events.", crate::people::time(copy.at), to.display(), copy.size);
        tell!("It does not serve yet: look at its settings, then `reprieve ledger resume --reason …`.");
    }
    Ok(0)
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?)
}

fn mark(settings: &Settings) -> PathBuf {
    settings.path(Path::new(MARK))
}

/// What the vault knows of the ledger: the newest head, the ledger's own size, and the time before which heads do not count.
fn look(settings: &Settings, keys: &Keys, runtime: &tokio::runtime::Handle) -> anyhow::Result<(Option<(Checkpoint, String)>, u64)> {
    let path = settings.ledger_file()?;
    if !path.exists() {
        return Ok((None, 0));
    }
    let reader = SqliteStore::open_as_of_now(&path)?;
    let size = reader.head()?.map_or(0, |head| head.size);
    let last = match size.checked_sub(1) {
        Some(last) => reader.rows(last, 1)?.first().map(|row| decode(&row.body)).transpose()?.map(|recorded| recorded.at),
        None => None,
    };
    let resumed = reader.search(&Query { kind: Some("ledger_resumed".to_owned()), limit: 1, ..Query::default() })?;
    let resumed = resumed.first().map(|row| decode(&row.body)).transpose()?.map(|recorded| recorded.at);
    // Heads from before an operator decided are the ones that were decided about.
    let since = Timestamp(last.unwrap_or_default().0.saturating_sub(u64::try_from(SKEW.as_millis())?)).max(resumed.unwrap_or_default());
    let access = wire::vault(settings, keys)?;
    let key = keys.verifier()?;
    let found = runtime.block_on(async {
        let look = async { anyhow::Ok(find_anchors(access.vault().await?, &key, since).await?) };
        tokio::time::timeout(LOOK, look).await.context("the vault takes too long")?
    })?;
    let newest = found.into_iter().next_back().map(|(checkpoint, note, _)| (checkpoint, note));
    if let Some((checkpoint, note)) = newest.as_ref().filter(|(checkpoint, _)| checkpoint.size <= size && checkpoint.size > 0) {
        let head = reader.head()?.context("the ledger has no head")?.checkpoint;
        prove_consistency(reader.as_ref(), &key, note, &head).with_context(|| {
            format!("the ledger was rewritten: its first {} events are not those that its vault knows", checkpoint.size)
        })?;
    }
    Ok((newest, size))
}

/// Before anything is opened to be written: whether this ledger may go on.
pub(crate) fn may_serve(settings: &Settings, keys: &Keys, runtime: &tokio::runtime::Handle) -> anyhow::Result<()> {
    if mark(settings).exists() {
        bail!("this gateway came back from a copy: `reprieve ledger resume --reason …` decides that it goes on");
    }
    match look(settings, keys, runtime) {
        Ok((Some((newest, _)), size)) if newest.size > size => bail!(
            "the ledger was rolled back: its vault knows {} events, its store has {size}. If they are lost for good: reprieve ledger resume --reason …",
            newest.size
        ),
        Ok(_) => Ok(()),
        Err(error) if format!("{error:#}").contains("was rewritten") => Err(error),
        // Changes are held without the vault in any case; the head file beside the ledger is still looked at.
        Err(error) => {
            tracing::warn!(error = %format!("{error:#}"), "the ledger can't be held against what its vault knows");
            Ok(())
        }
    }
}

/// An operator on the machine decides that the ledger goes on. Everything is frozen then.
pub(crate) fn resume(cli: &Cli, settings: &Settings, reason: &str) -> anyhow::Result<u8> {
    ensure!(!reason.trim().is_empty(), "say why: --reason");
    let (keys, runtime) = (Keys::of(settings), runtime()?);
    // Without the vault nobody can say what is lost.
    let (newest, stored) = look(settings, &keys, runtime.handle())?;
    let head_file = settings.path(&settings.ledger.head);
    let kept = if head_file.exists() { Some(fs::read_to_string(&head_file)?) } else { None };
    let beside = kept.as_deref().and_then(|note| Some((Checkpoint::open(note, &keys.verifier().ok()?).ok()?, note.to_owned())));
    let newest = newest.into_iter().chain(beside).max_by_key(|(checkpoint, _)| checkpoint.size);
    let known = newest.as_ref().map_or(stored, |(checkpoint, _)| checkpoint.size.max(stored));
    ensure!(known > stored || mark(settings).exists(), "nothing is lost: the ledger has all {stored} events that its vault knows of");
    if head_file.exists() {
        fs::rename(&head_file, head_file.with_extension("before-resume"))?;
    }
    let options = AuditOptions { adopt_missing_head: true, ..AuditOptions::new(keys.signer()?).with_head_file(&head_file) };
    let audit = AuditLog::open(Box::new(SqliteStore::open(&settings.ledger_file()?)?), options, Arc::new(SystemClock))?;
    let resumed = Event::LedgerResumed { known, stored, checkpoint: newest.map(|(_, note)| note), reason: reason.to_owned() };
    let appended = runtime.block_on(async {
        audit.append(resumed).await?;
        audit.append(Event::Frozen { agent: None, by: "ledger resume".to_owned(), reason: reason.to_owned() }).await
    });
    audit.close();
    appended?;
    if mark(settings).exists() {
        fs::remove_file(mark(settings))?;
    }
    if cli.json {
        tell!("{}", json!({ "known": known, "stored": stored, "lost": known - stored }));
    } else {
        tell!(
            "The ledger goes on after {stored} events; {} are lost. Everything is frozen: `reprieve thaw --all` once you have looked.",
            known - stored
        );
    }
    Ok(0)
}

/// Puts the ledger's head into the vault, as long as it runs, and once more when it stops.
pub(crate) struct Anchors {
    audit: Arc<AuditLog>,
    access: reprieve_undo::VaultAccess,
    last: Mutex<Option<(String, Digest)>>,
    /// Where the last one's name lies from one start to the next.
    file: PathBuf,
}

impl Anchors {
    pub(crate) fn new(settings: &Settings, keys: &Keys, audit: Arc<AuditLog>) -> anyhow::Result<Arc<Self>> {
        let folder = settings.path(Path::new("recovery"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("head");
        // Of a head that can't be found any more nothing is lost but its room.
        let name = fs::read_to_string(&file).ok().and_then(|name| Digest::try_from(name.trim().to_owned()).ok());
        let last = Mutex::new(name.map(|name| (String::new(), name)));
        Ok(Arc::new(Self { audit, access: wire::vault(settings, keys)?, last, file }))
    }

    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            if let Err(error) = self.put().await {
                tracing::debug!(error = %format!("{error:#}"), "the ledger's head did not reach the vault");
            }
            tokio::time::sleep(ANCHOR_EVERY).await;
        }
    }

    pub(crate) async fn put(&self) -> anyhow::Result<()> {
        let Some(checkpoint) = self.audit.checkpoint()? else { return Ok(()) };
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if before.as_ref().is_some_and(|(known, _)| *known == checkpoint) {
            return Ok(());
        }
        let vault = self.access.vault().await?;
        let digest = anchor(vault, &checkpoint).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((checkpoint, digest));
        fs::write(&self.file, format!("{digest}\n")).with_context(|| format!("cannot write {}", self.file.display()))?;
        // The newer one says all that the older did; where objects are locked it stays.
        if let Some((_, older)) = before.filter(|(_, older)| *older != digest) {
            let _kept = vault.delete(older).await;
        }
        Ok(())
    }
}
