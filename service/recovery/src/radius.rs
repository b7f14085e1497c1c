//! The blast radius: whether what destroys a system may destroy its copies, too.

use std::{fs, net::ToSocketAddrs as _, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use reprieve_vault::Location;

/// Where copies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In words.
    pub name: String,
    /// Why that is the same blast radius as the system's; none if nothing says so.
    pub same_because: Option<String>,
    /// Until when nobody can delete them, in words.
    pub locked: String,
    /// Whether each copy is looked at for a lock that nobody can take away.
    pub is_locked: bool,
}

/// Where a vault is, seen from a server, or from a folder or file of this machine. `endpoint`: a bucket's, where it is not AWS's.
/// Not knowing is the same blast radius.
#[must_use]
pub fn place_of(vault: &Location, endpoint: Option<&str>, server: &str, locked_for: Option<Duration>) -> Place {
    match vault {
        Location::File(path) => {
            let on_this_machine = is_local(server);
            let same_because = match on_this_machine {
                Some(true) => Some(match same_device(path, server) {
                    true => "the vault is a folder on the system's own disk".to_owned(),
                    false => "the vault is a folder on the system's own machine".to_owned(),
                }),
                Some(false) => None,
                None => Some(format!("whether `{server}` is this machine can't be told")),
            };
            let locked = "not locked: whoever can write the folder can delete them".to_owned();
            Place { name: format!("folder {}", path.display()), same_because, locked, is_locked: false }
        }
        Location::S3 { bucket, prefix } => Place {
            name: format!("bucket {bucket}/{prefix}"),
            same_because: endpoint.and_then(|endpoint| same_machine(endpoint, server)),
            is_locked: locked_for.is_some(),
            locked: match locked_for {
                Some(time) => {
                    format!("nobody can delete them for {} after they are stored: read when they are, and in each drill", days(time))
                }
                None => "nobody looks whether the bucket locks them: set `recovery.locked`".to_owned(),
            },
        },
        Location::Memory => Place {
            name: "memory".to_owned(),
            same_because: Some("the vault goes with the process".to_owned()),
            locked: "not locked".to_owned(),
            is_locked: false,
        },
    }
}

/// Why what serves a bucket is the system's own machine, if nothing says that it is another.
fn same_machine(endpoint: &str, server: &str) -> Option<String> {
    let host = host_of(endpoint);
    let addresses = |host: &str| (host, 0u16).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect::<Vec<_>>());
    match (is_local(host), is_local(server)) {
        (Some(true), Some(true)) => Some("the bucket is served by the system's own machine".to_owned()),
        (Some(false), Some(false)) => match (addresses(host), addresses(server)) {
            (Ok(ours), Ok(theirs)) if ours.iter().any(|address| theirs.contains(address)) => {
                Some("the bucket is served by the system's own machine".to_owned())
            }
            _ => None,
        },
        (Some(_), Some(_)) => None,
        (None, _) => Some(format!("whether `{host}` is the system's own machine can't be told")),
        (_, None) => Some(format!("whether `{server}` is this machine can't be told")),
    }
}

/// The machine in `https://HOST:PORT/`, of which all but the host may be missing.
pub(crate) fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let rest = rest.split_once('/').map_or(rest, |(host, _)| host);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None if rest.matches(':').count() == 1 => rest.split_once(':').map_or(rest, |(host, _)| host),
        None => rest,
    }
}

fn days(time: Duration) -> String {
    let hours = time.as_secs() / 3_600;
    if hours.is_multiple_of(24) { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}

/// Whether a server runs on this machine; none if that can't be told.
pub(crate) fn is_local(server: &str) -> Option<bool> {
    if server.starts_with('/') {
        return Some(true);
    }
    let addresses: Vec<_> = (server, 0u16).to_socket_addrs().ok()?.collect();
    if addresses.iter().any(|address| address.ip().is_loopback()) {
        return Some(true);
    }
    // An address that can be bound is ours.
    Some(addresses.iter().any(|address| std::net::UdpSocket::bind((address.ip(), 0)).is_ok()))
}

/// Whether the folder is on the device of a server's socket, or of a folder or file, as far as that tells.
pub(crate) fn same_device(path: &Path, server: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    server.starts_with('/') && device(path).is_some_and(|own| device(Path::new(server)) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_beside_the_server_is_the_same_blast_radius() {
        let folder = Location::File("/tmp".into());
        for server in ["127.0.0.1", "localhost", "/tmp", "::1"] {
            assert!(place_of(&folder, None, server, None).same_because.is_some(), "{server}");
        }
        // RFC 5737: nobody's address.
        assert!(place_of(&folder, None, "192.0.2.1", None).same_because.is_none());
        assert!(place_of(&folder, None, "no such name.invalid", None).same_because.is_some(), "not knowing counts as the same");
    }

    #[test]
    fn a_bucket_that_the_server_itself_serves_is_the_same_blast_radius() {
        let bucket = Location::S3 { bucket: "copies".to_owned(), prefix: String::new() };
        for (endpoint, server, same) in [
            (None, "127.0.0.1", false),
            (Some("http://127.0.0.1:9000"), "localhost", true),
            (Some("http://[::1]:9000/x"), "/run/postgresql", true),
            (Some("https://192.0.2.7"), "192.0.2.7", true),
            (Some("https://key@192.0.2.7:443/"), "192.0.2.7", true),
            (Some("https://192.0.2.8"), "192.0.2.7", false),
            (Some("https://192.0.2.8"), "127.0.0.1", false),
            (Some("https://no such name.invalid"), "192.0.2.7", true),
        ] {
            assert_eq!(place_of(&bucket, endpoint, server, None).same_because.is_some(), same, "{endpoint:?} {server}");
        }
    }

    #[test]
    fn a_store_is_known_by_its_machine() {
        for (server, host) in [
            ("s3.eu-central-1.amazonaws.com", "s3.eu-central-1.amazonaws.com"),
            ("https://store.example:9000/", "store.example"),
            ("store.example:9000", "store.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]:9000", "::1"),
            ("::1", "::1"),
            ("http://[::1]/x", "::1"),
            ("https://key:word@store.example:9000/x", "store.example"),
            ("", ""),
        ] {
            assert_eq!(host_of(server), host, "{server}");
        }
    }
}
