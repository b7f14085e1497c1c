//! Sockets of one service on this machine: one for each agent, in a folder of the gateway's own.
//!
//! Whoever can open a socket is its agent, without a token. So a socket is its owner's only (mode 0600), and the folder lets nobody else
//! look (0700), or only pass (0711) where sockets are given to other accounts. The gateway's account and root can open each; two agents
//! under one account can take each other's part. Sockets come and go with agents' tokens.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reprieve_operation::{AgentName, Event};
use tokio::{net::UnixListener, sync::watch, task::JoinHandle, time::sleep};

use crate::{
    listener::Surface,
    reverse::{Front, Known},
    system::System,
};

/// How often agents are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The longest path of a socket (unix(7)).
const LONGEST: usize = 107;

/// Where the sockets of one service are.
#[derive(Debug, Clone)]
pub struct SocketFolder {
    path: PathBuf,
    /// Accounts that sockets are given to.
    users: BTreeMap<AgentName, u32>,
    /// The gateway's own account.
    own: u32,
}

/// Why sockets can't be there.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Of the folder.
    #[error("the folder {path} for sockets can't be used")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could put sockets of their own there.
    #[error("the folder {0} for sockets is not the gateway's alone: it has to be its own, with mode 0700")]
    Shared(PathBuf),
    /// Too long for the system.
    #[error("a socket in {0} would have too long a path")]
    Long(PathBuf),
}

impl SocketFolder {
    /// Makes the folder, or takes one that is the gateway's alone. `users`: accounts that agents' sockets are given to.
    pub fn open(path: &Path, users: BTreeMap<AgentName, u32>) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Folder { path: path.to_owned(), source };
        // An agent's name has 63 characters at most, and there is a moment's `.new` besides.
        if path.as_os_str().len() + 1 + 63 + ".sock.new".len() > LONGEST {
            return Err(SocketError::Long(path.to_owned()));
        }
        let mode = if users.is_empty() { 0o700 } else { 0o711 };
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let found = fs::symlink_metadata(path).map_err(failed)?;
        if !found.is_dir() || found.mode() & 0o066 != 0 {
            return Err(SocketError::Shared(path.to_owned()));
        }
        // What we make belongs to us: that tells who we are.
        let made = path.join(".own");
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&made).map_err(failed)?;
        let own = fs::symlink_metadata(&made).map_err(failed)?.uid();
        fs::remove_dir(&made).map_err(failed)?;
        if found.uid() != own {
            return Err(SocketError::Shared(path.to_owned()));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), users, own })
    }

    /// The socket of one agent.
    #[must_use]
    pub fn socket(&self, agent: &AgentName) -> PathBuf {
        self.path.join(format!("{agent}.sock"))
    }

    fn bind(&self, agent: &AgentName) -> io::Result<UnixListener> {
        let (path, made) = (self.socket(agent), self.path.join(format!("{agent}.sock.new")));
        for old in [&path, &made] {
            match fs::symlink_metadata(old) {
                // Left by an earlier run.
                Ok(found) if found.file_type().is_socket() => fs::remove_file(old)?,
                Ok(_) => return Err(io::Error::other("something else is in its place")),
                Err(_) => {}
            }
        }
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
        if let Some(user) = self.users.get(agent) {
            std::os::unix::fs::chown(&made, Some(*user), None)?;
        }
        // Under its name it has its mode and owner from the beginning.
        fs::rename(&made, &path)?;
        Ok(listener)
    }

    /// Whether this account may use that agent's socket. Its file says so already; this holds where a socket was passed on.
    fn admits(&self, agent: &AgentName, user: u32) -> bool {
        user == 0 || user == self.own || self.users.get(agent) == Some(&user)
    }
}

impl Surface {
    /// Keeps a socket in `folder` for every agent whose token covers the service, until `stop` says so.
    pub async fn listen_at(self: Arc<Self>, system: Arc<System>, folder: SocketFolder, mut stop: watch::Receiver<bool>) {
        let mut open: BTreeMap<AgentName, JoinHandle<()>> = BTreeMap::new();
        let mut failed: BTreeMap<AgentName, String> = BTreeMap::new();
        loop {
            let wanted = self.agents_of(&system);
            open.retain(|agent, listening| {
                let stays = wanted.contains(agent);
                if !stays {
                    listening.abort();
                    let _gone = fs::remove_file(folder.socket(agent));
                }
                stays
            });
            for agent in wanted {
                if open.contains_key(&agent) {
                    continue;
                }
                match folder.bind(&agent) {
                    Ok(listener) => {
                        failed.remove(&agent);
                        let task = tokio::spawn(accept(self.clone(), system.clone(), folder.clone(), agent.clone(), listener));
                        open.insert(agent, task);
                    }
                    Err(error) if failed.get(&agent) != Some(&error.to_string()) => {
                        tracing::error!(%agent, system = %system.name, %error, "its socket can't be made");
                        failed.insert(agent, error.to_string());
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = stop.changed() => break,
            }
        }
        for (agent, listening) in open {
            listening.abort();
            let _gone = fs::remove_file(folder.socket(&agent));
        }
    }

    /// Agents whose tokens hold and cover the service.
    fn agents_of(&self, system: &System) -> Vec<AgentName> {
        let now = self.gate.now();
        let state = self.gate.audit().state();
        let covered = state.agents.values().filter(|agent| {
            let scope = &agent.scope;
            !agent.decoy
                && !agent.revoked
                && agent.expires > now
                && scope.systems.contains(&system.name)
                && scope.environments.contains(&system.environment)
        });
        covered.map(|agent| agent.agent.clone()).collect()
    }
}

async fn accept(surface: Arc<Surface>, system: Arc<System>, folder: SocketFolder, agent: AgentName, listener: UnixListener) {
    let Some(home) = system.home() else { return };
    let front = Front { surface, system, home, known: Known::BySocket(agent.clone()) };
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let Some(place) = front.surface.place() else { continue };
                let Ok(peer) = socket.peer_cred() else { continue };
                let process = peer.pid().map_or_else(|| "?".to_owned(), |process| process.to_string());
                let peer_name = format!("user {} process {process}", peer.uid());
                if !folder.admits(&agent, peer.uid()) {
                    front.surface.gate.note(Event::SessionRefused {
                        claimed: agent.to_string(),
                        system: front.system.name.to_string(),
                        peer: peer_name,
                        reason: "another account's socket".to_owned(),
                    });
                    continue;
                }
                let front = front.clone();
                tokio::spawn(async move {
                    front.serve(socket, peer_name).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docker");
        let sockets = SocketFolder::open(&path, BTreeMap::new()).expect("opened");
        let agent: AgentName = "cursor".parse().expect("a name");
        let _listener = sockets.bind(&agent).expect("bound");
        let mode = |path: &Path| fs::symlink_metadata(path).expect("there").mode() & 0o777;
        assert_eq!((mode(&path), mode(&sockets.socket(&agent))), (0o700, 0o600));
        // One that was left is replaced; something else is not.
        let _again = sockets.bind(&agent).expect("bound again");
        let other: AgentName = "other".parse().expect("a name");
        fs::write(sockets.socket(&other), "mine").expect("written");
        assert!(sockets.bind(&other).is_err());
        assert!(!sockets.admits(&agent, 12_345));
        let given = SocketFolder::open(&path, BTreeMap::from([(agent.clone(), 12_345)])).expect("opened");
        assert!(given.admits(&agent, 12_345) && !given.admits(&other, 12_345));
        assert_eq!(mode(&path), 0o711);
    }

    #[test]
    fn a_folder_that_others_write_to_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shared");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("set");
        assert!(matches!(SocketFolder::open(&path, BTreeMap::new()), Err(SocketError::Shared(_))));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("linked");
        assert!(matches!(SocketFolder::open(&link, BTreeMap::new()), Err(SocketError::Shared(_))));
        assert!(matches!(SocketFolder::open(Path::new(&"x".repeat(80)), BTreeMap::new()), Err(SocketError::Long(_))));
    }
}
