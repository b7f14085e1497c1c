//! The gateway's own keys, made once by `reprieve init`, in files of mode 0600.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_audit::SystemClock;
use reprieve_gate::Clock as _;
use reprieve_ledger::Signer;
use reprieve_recovery::{DrillKey, Recipients};
use reprieve_secrets::{MasterKey, SecretsStore};
use reprieve_surface_http::Authority;
use reprieve_vault::VaultKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use crate::settings::Settings;

/// The keys' folder.
pub(crate) struct Keys {
    folder: PathBuf,
    secrets: PathBuf,
}

impl Keys {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self { folder: settings.path(&settings.keys.directory), secrets: settings.path(&settings.keys.secrets) }
    }

    /// Makes what is missing.
    pub(crate) fn create(&self, host: &str) -> anyhow::Result<()> {
        for folder in [&self.folder, &self.secrets, &self.folder.join("operators")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        if !self.file("master.key").exists() {
            MasterKey::generate().save(&self.file("master.key"))?;
        }
        if !self.file("ledger.key").exists() {
            let signer = Signer::from_seed("reprieve", rand::random())?;
            write_new(&self.file("ledger.key"), signer.reveal().as_bytes())?;
            write_new(&self.file("ledger.pub"), signer.verifier().to_string().as_bytes())?;
        }
        if !self.file("scram.salt").exists() {
            write_new(&self.file("scram.salt"), BASE64.encode(rand::random::<[u8; 16]>()).as_bytes())?;
        }
        if !self.file("freeze.key").exists() {
            write_new(&self.file("freeze.key"), BASE64.encode(rand::random::<[u8; 24]>()).as_bytes())?;
        }
        if !self.file("vault.key").exists() {
            write_new(&self.file("vault.key"), BASE64.encode(rand::random::<[u8; 32]>()).as_bytes())?;
        }
        self.authority()?;
        if !self.file("tls.crt").exists() {
            let names = vec![host.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
            write_new(&self.file("tls.crt"), made.cert.pem().as_bytes())?;
            write_new(&self.file("tls.key"), made.signing_key.serialize_pem().as_bytes())?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}; `reprieve init` makes it", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// The master key: from `REPRIEVE_MASTER_KEY` if that is set.
    pub(crate) fn master(&self) -> anyhow::Result<MasterKey> {
        if let Ok(text) = std::env::var("REPRIEVE_MASTER_KEY") {
            return Ok(MasterKey::from_text(&text)?);
        }
        Ok(MasterKey::from_file(&self.file("master.key"))?)
    }

    pub(crate) fn secrets(&self) -> anyhow::Result<SecretsStore> {
        Ok(SecretsStore::open(&self.secrets, self.master()?)?)
    }

    pub(crate) fn signer(&self) -> anyhow::Result<Signer> {
        Ok(Signer::parse(&self.text("ledger.key")?)?)
    }

    pub(crate) fn verifier(&self) -> anyhow::Result<reprieve_ledger::Verifier> {
        Ok(reprieve_ledger::Verifier::parse(&self.text("ledger.pub")?)?)
    }

    pub(crate) fn scram_salt(&self) -> anyhow::Result<Vec<u8>> {
        BASE64.decode(self.text("scram.salt")?).context("scram.salt is not base64")
    }

    pub(crate) fn freeze_key(&self) -> anyhow::Result<String> {
        self.text("freeze.key")
    }

    /// What opens the vault. Made where it is missing: older folders don't have one.
    pub(crate) fn vault(&self) -> anyhow::Result<VaultKey> {
        if !self.file("vault.key").exists() {
            let made = write_new(&self.file("vault.key"), BASE64.encode(rand::random::<[u8; 32]>()).as_bytes());
            // Another process may have been first.
            made.or_else(|error| if self.file("vault.key").exists() { Ok(()) } else { Err(error) })?;
        }
        let bytes = BASE64.decode(self.text("vault.key")?).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Ok(VaultKey::from_bytes(&bytes.context("vault.key is not 32 bytes in base64")?))
    }

    /// The same as text, for the kit that is kept elsewhere.
    pub(crate) fn vault_text(&self) -> anyhow::Result<String> {
        self.vault()?;
        self.text("vault.key")
    }

    /// A signing key of ours, made where it is missing; its public half lies beside it.
    fn signing(&self, name: &str, path: &Path) -> anyhow::Result<Signer> {
        if !path.exists() {
            let signer = Signer::from_seed(&format!("reprieve-{name}"), rand::random())?;
            let made = write_new(path, signer.reveal().as_bytes());
            // Another process may have been first.
            made.or_else(|error| if path.exists() { Ok(()) } else { Err(error) })?;
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let signer = Signer::parse(text.trim())?;
        let public = self.file(&format!("{name}.pub"));
        if !public.exists() {
            let made = write_new(&public, signer.verifier().to_string().as_bytes());
            made.or_else(|error| if public.exists() { Ok(()) } else { Err(error) })?;
        }
        Ok(signer)
    }

    /// What copies' manifests are signed with.
    pub(crate) fn copyist(&self) -> anyhow::Result<Signer> {
        self.signing("copies", &self.file("copies.key"))
    }

    /// What drills' results are signed with: the verifier's alone.
    pub(crate) fn drill_signer(&self, settings: &Settings) -> anyhow::Result<Signer> {
        let path = settings.recovery.verifier_key.as_ref().map_or_else(|| self.file("verifier.key"), |path| settings.path(path));
        self.signing("verifier", &path)
    }

    /// What is known of the key with a name, which is not read itself.
    pub(crate) fn public(&self, name: &str) -> anyhow::Result<reprieve_ledger::Verifier> {
        Ok(reprieve_ledger::Verifier::parse(&self.text(&format!("{name}.pub"))?)?)
    }

    /// What opens copies: for drills and restores alone.
    pub(crate) fn identity(&self, settings: &Settings) -> anyhow::Result<DrillKey> {
        let path = settings.recovery.identity.as_ref().map_or_else(|| self.file("recovery.identity"), |path| settings.path(path));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read the identity that opens copies, {}", path.display()))?;
        Ok(DrillKey::parse(&text)?)
    }

    /// Makes what recovery needs and is missing. Where the identity or the verifier's key lies elsewhere, it is never made here.
    pub(crate) fn prepare_recovery(&self, settings: &Settings) -> anyhow::Result<()> {
        self.copyist()?;
        if settings.recovery.verifier_key.is_none() {
            self.drill_signer(settings)?;
        }
        let (identity, recipient) = (self.file("recovery.identity"), self.file("recovery.recipient"));
        if settings.recovery.identity.is_none() && !recipient.exists() {
            let key = DrillKey::generate();
            let made = write_new(&identity, key.reveal().as_bytes()).and_then(|()| write_new(&recipient, key.recipient().as_bytes()));
            made.or_else(|error| if recipient.exists() { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    /// Whom copies are sealed to. Needs no private key.
    pub(crate) fn recipients(&self, settings: &Settings) -> anyhow::Result<Recipients> {
        let mut keys = settings.recovery.recipients.clone();
        if settings.recovery.identity.is_none() {
            keys.push(self.text("recovery.recipient")?);
        }
        Recipients::parse(&keys).context("`recovery.identity` lies elsewhere, so `recovery.recipients` has to name its public half")
    }

    /// The local certificate authority, whose certificate agents' tools trust. Made where it is missing: older folders have none.
    pub(crate) fn authority(&self) -> anyhow::Result<Authority> {
        if !self.file("ca.key").exists() {
            let (certificate, key) = Authority::make(SystemClock.now())?;
            let made =
                write_new(&self.file("ca.key"), key.as_bytes()).and_then(|()| write_new(&self.file("ca.crt"), certificate.as_bytes()));
            // Another process may have been first.
            made.or_else(|error| if self.file("ca.key").exists() { Ok(()) } else { Err(error) })?;
        }
        Ok(Authority::open(&self.text("ca.crt")?, &self.text("ca.key")?)?)
    }

    /// The authority's certificate.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.file("ca.crt")
    }

    pub(crate) fn operator_key(&self, operator: &str) -> PathBuf {
        self.folder.join("operators").join(format!("{operator}.key"))
    }

    /// The one operator who has a key here, if there is just one.
    pub(crate) fn only_operator(&self) -> Option<String> {
        let entries = fs::read_dir(self.folder.join("operators")).ok()?;
        let names: Vec<String> =
            entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".key")?.to_owned())).collect();
        match names.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    pub(crate) fn certificate(&self) -> anyhow::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_file(self.file("tls.crt")).context("cannot read tls.crt")
    }

    /// TLS for both listeners.
    pub(crate) fn tls(&self) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let certificates = CertificateDer::pem_file_iter(self.file("tls.crt")).context("cannot read tls.crt")?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().context("tls.crt is not a certificate")?;
        let key = PrivateKeyDer::from_pem_file(self.file("tls.key")).context("cannot read tls.key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Arc::new(config.with_no_client_auth().with_single_cert(certificates, key)?))
    }

    /// The `tls-server-end-point` of our certificate (RFC 5929 section 4): SHA-256, which it is signed with.
    pub(crate) fn channel_binding(&self) -> anyhow::Result<Vec<u8>> {
        Ok(Sha256::digest(self.certificate()?.as_ref()).to_vec())
    }
}

/// Writes a new file that only its owner reads. Never replaces one.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}
