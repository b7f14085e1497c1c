//! A local receiver of webhooks: plain HTTP on a free port, answering with the statuses it was told to, remembering what came.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// One request.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// When it had come whole.
    pub at: Instant,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Delivery {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

/// A receiver; its thread ends with the test.
#[derive(Debug)]
pub struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Delivery>>>,
}

impl Receiver {
    /// Answers with `statuses` in order, then always with 200.
    pub fn start(statuses: &[u16]) -> Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let got: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let (kept, statuses) = (got.clone(), statuses.to_vec());
        thread::spawn(move || {
            let mut statuses = statuses.into_iter();
            for stream in listener.incoming().flatten() {
                if let Ok(delivery) = read(&stream) {
                    let status = statuses.next().unwrap_or(200);
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
                    let _ = write!(&stream, "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
            }
        });
        Ok(Receiver { url, got })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What came so far.
    pub fn got(&self) -> Vec<Delivery> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so much has come.
    pub fn wait_for(&self, count: usize) -> Result<Vec<Delivery>> {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            let got = self.got();
            if got.len() >= count {
                return Ok(got);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("{count} were expected, and these came: {:?}", self.got())
    }
}

fn read(stream: &TcpStream) -> Result<Delivery> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut headers = Vec::new();
    let mut line = String::new();
    reader.read_line(&mut line)?;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(Ok(0), |(_, value)| value.parse())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Delivery { at: Instant::now(), headers, body: String::from_utf8_lossy(&body).into_owned() })
}
