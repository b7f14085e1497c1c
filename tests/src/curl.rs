//! curl as an agent would use it: through the proxy, trusting the gateway's authority.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How an agent's curl is set up.
#[derive(Clone, Debug)]
pub struct Curl {
    /// The proxy with the agent's name and token.
    pub proxy: String,
    /// The authority it trusts.
    pub authority: PathBuf,
}

/// What curl got.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// What curl said besides.
    pub said: String,
}

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// A curl with more arguments.
pub struct With<'a>(&'a Curl, Vec<String>);

impl Curl {
    /// Posts JSON.
    pub fn post(&self, url: &str, body: &str) -> Result<Answer> {
        self.run(url, &["--data-binary", body, "-H", "content-type: application/json"])
    }

    /// Any request.
    pub fn run(&self, url: &str, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new("curl");
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "CURL_CA_BUNDLE"] {
            command.env_remove(name);
        }
        command.args(["-sS", "-D", "-", "--suppress-connect-headers", "--max-time", "60", "--proxy"]).arg(&self.proxy);
        command.arg("--cacert").arg(&self.authority).args(arguments).arg(url);
        let output = command.output().context("cannot run curl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // An interim answer may come before the real one.
        let mut rest = text.as_str();
        let (mut head, mut body) = ("", "");
        while rest.starts_with("HTTP/") {
            (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
            rest = body;
            if !head.split(' ').nth(1).is_some_and(|status| status.starts_with('1')) {
                break;
            }
        }
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).unwrap_or(0);
        let headers =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        ensure!(status != 0 || !said.is_empty(), "curl said nothing");
        Ok(Answer { status, headers: headers.collect(), body: body.to_owned(), said })
    }

    /// The same with more arguments each time.
    pub fn with(&self, arguments: &[&str]) -> With<'_> {
        With(self, arguments.iter().map(|argument| (*argument).to_owned()).collect())
    }
}

impl With<'_> {
    /// Any request.
    pub fn run(&self, url: &str, arguments: &[&str]) -> Result<Answer> {
        let mut all: Vec<&str> = self.1.iter().map(String::as_str).collect();
        all.extend(arguments);
        self.0.run(url, &all)
    }
}
