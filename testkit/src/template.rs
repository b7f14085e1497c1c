//! Templates: `initdb` takes about a second, a copy of its result a tenth of it, so it runs once per version.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::account::Account;
use crate::binaries::Binaries;
use crate::workshop::{Workshop, make_folder};

/// Raised whenever the way templates are made changes.
const REVISION: u32 = 1;

/// A database cluster that was never started, and its superuser's password.
#[derive(Debug)]
pub(crate) struct Template {
    folder: PathBuf,
    password: String,
}

impl Template {
    /// Finds the template of this PostgreSQL version, or makes it.
    pub(crate) fn find(workshop: &Workshop, binaries: &Binaries, account: Account, segment_mb: Option<u32>) -> Result<Template> {
        let owner = match account {
            Account::Own => "own".to_owned(),
            Account::Lent { user, .. } => user.to_string(),
        };
        let segments = segment_mb.map(|mb| format!("-{mb}mb")).unwrap_or_default();
        let name = format!("template-{}-{REVISION}-{owner}{segments}", binaries.version());
        let folder = workshop.kept(&name);
        let lock = File::create(workshop.kept(&format!("{name}.lock"))).context("cannot make the template's lock")?;
        lock.lock().context("cannot lock the template")?;
        if !folder.exists() {
            make(workshop, binaries, account, segment_mb, &folder)?;
        }
        let password = fs::read_to_string(folder.join("password")).context("cannot read the template's password")?;
        Ok(Template { folder, password: password.trim().to_owned() })
    }

    /// The superuser's password; drawn at random, because loopback is shared by everybody on the machine.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Copies the cluster to `data`, owners and modes included.
    pub(crate) fn copy_to(&self, account: Account, data: &Path) -> Result<()> {
        let output = account
            .command("cp")
            .args(["-a", "--reflink=auto"])
            .arg(self.folder.join("data"))
            .arg(data)
            .output()
            .context("cannot run `cp`")?;
        ensure!(output.status.success(), "cannot copy the template: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

fn make(workshop: &Workshop, binaries: &Binaries, account: Account, segment_mb: Option<u32>, folder: &Path) -> Result<()> {
    // Made elsewhere and moved when complete: a template that exists is a whole one.
    let draft = workshop.bench(account)?;
    let inner = draft.folder().join("template");
    make_folder(&inner, 0o700)?;
    account.give(&inner)?;
    let password = inner.join("password");
    fs::write(&password, random_word()?).context("cannot write the template's password")?;
    account.give(&password)?;
    let output = account
        .command(binaries.program("initdb"))
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
        .args(segment_mb.map(|mb| format!("--wal-segsize={mb}")))
        .arg("--pwfile")
        .arg(&password)
        .arg("-D")
        .arg(inner.join("data"))
        .output()
        .context("cannot run `initdb`")?;
    ensure!(output.status.success(), "`initdb` failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&inner, folder).context("cannot put the template in its place")
}

fn random_word() -> Result<String> {
    use std::fmt::Write;
    use std::io::Read;

    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().fold(String::new(), |mut word, byte| {
        // Writing to a String cannot fail.
        let _ = write!(word, "{byte:02x}");
        word
    }))
}
