//! A stand-in for a service at a socket of this machine, such as the Docker Engine: it keeps what it is asked, and can make a
//! conversation of a connection.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use reprieve_testkit::Received;

/// A running stand-in. Its threads end with the test's process.
pub struct Local {
    path: PathBuf,
    received: Arc<Mutex<Vec<Received>>>,
    folder: PathBuf,
}

impl Local {
    /// Starts one. It answers its request's first line; where it is asked to become something else, it answers each line in capitals.
    pub fn start() -> Result<Local> {
        let folder = std::env::temp_dir().join(format!("reprieve-local-{}-{:?}", std::process::id(), thread::current().id()));
        std::fs::create_dir_all(&folder).context("cannot make a folder")?;
        let path = folder.join("engine.sock");
        // Left by an earlier run of the same number.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).context("cannot listen")?;
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kept = received.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let kept = kept.clone();
                thread::spawn(move || serve(socket, &kept));
            }
        });
        Ok(Local { path, received, folder })
    }

    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Everything it was asked so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same as first lines.
    pub fn lines(&self) -> Vec<String> {
        self.received().iter().map(|received| format!("{} {}", received.method, received.target)).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Who still uses it hears so.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Serves one connection until it ends; nothing to report where it breaks.
fn serve(socket: UnixStream, kept: &Mutex<Vec<Received>>) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut writer = socket;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut received = Received { method, target, headers, body: Vec::new() };
        let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        received.body = vec![0; length];
        reader.read_exact(&mut received.body).ok()?;
        let text = format!("{} {}", received.method, received.target);
        let upgrade = received.header("upgrade").map(str::to_owned);
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        if let Some(upgrade) = upgrade {
            write!(writer, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\nready\n").ok()?;
            let mut said = String::new();
            while reader.read_line(&mut said).ok().filter(|count| *count > 0).is_some() {
                writer.write_all(said.to_uppercase().as_bytes()).ok()?;
                said.clear();
            }
            return None;
        }
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).ok()?;
    }
}
