//! A headless Chromium with a virtual authenticator, driven over the DevTools protocol.
//!
//! The protocol runs over two pipes (`--remote-debugging-pipe`): messages are JSON, each ended by a zero byte. A shell puts our pipes
//! where Chromium looks for them. Certificates are not checked: the gateway of a test has one of its own.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use tempfile::TempDir;

/// No answer and no page takes longer.
const PATIENCE: Duration = Duration::from_secs(45);

const START: &str = r#"exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
  --disable-extensions --disable-background-networking --disable-component-update --ignore-certificate-errors --hide-scrollbars \
  --force-color-profile=srgb --remote-debugging-pipe --user-data-dir="$1" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// One page of one browser, which ends with its value.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    pipe: ChildStdin,
    messages: Receiver<Value>,
    next: u64,
    session: Option<String>,
    /// Requests that the page sent, in order.
    requests: Vec<String>,
    /// What the page complained about: refused by its security policy, or failed.
    complaints: Vec<String>,
    _folder: TempDir,
}

impl Browser {
    /// Starts Chromium with an empty profile and a passkey device that always agrees.
    pub fn start() -> Result<Browser> {
        let folder = tempfile::Builder::new().prefix("reprieve-browser-").tempdir().context("cannot make a folder")?;
        let mut child = Command::new("sh")
            .args(["-c", START, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Chromium; `make setup` installs it")?;
        let pipe = child.stdin.take().context("no pipe to Chromium")?;
        let output = child.stdout.take().context("no pipe from Chromium")?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let read = serde_json::from_slice(&message);
                message.clear();
                if read.is_ok_and(|value: Value| sender.send(value).is_err()) {
                    break;
                }
            }
        });
        let mut browser =
            Browser { child, pipe, messages, next: 0, session: None, requests: Vec::new(), complaints: Vec::new(), _folder: folder };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log", "WebAuthn"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.call(
            "WebAuthn.addVirtualAuthenticator",
            json!({ "options": { "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
                                 "isUserVerified": true, "automaticPresenceSimulation": true } }),
        )?;
        Ok(browser)
    }

    /// Calls a method of the protocol and waits for its answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.pipe.write_all(message.to_string().as_bytes()).and_then(|()| self.pipe.write_all(&[0])).context("Chromium is gone")?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = match self.messages.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("Chromium did not answer `{method}`"),
                Err(RecvTimeoutError::Disconnected) => bail!("Chromium has ended"),
            };
            if message["id"] == json!(id) {
                ensure!(message.get("error").is_none(), "`{method}` failed: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.extend(message["params"]["request"]["url"].as_str().map(str::to_owned));
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(message["params"]["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                self.complaints.push(message["params"]["entry"]["text"].to_string());
            }
            _ => {}
        }
    }

    /// Opens a page and waits until it is there.
    pub fn open(&mut self, url: &str) -> Result<()> {
        // A change of the fragment alone would load nothing.
        self.call("Page.navigate", json!({ "url": "about:blank" }))?;
        self.call("Page.navigate", json!({ "url": url }))?;
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
    }

    /// What an expression comes to; promises are awaited.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let result = self.call("Runtime.evaluate", parameters)?;
        ensure!(result.get("exceptionDetails").is_none(), "`{expression}` threw {}", result["exceptionDetails"]);
        Ok(result["result"]["value"].clone())
    }

    /// Waits until an expression is true. While a page is replaced there is nothing to ask, which is no failure.
    pub fn wait_for(&mut self, expression: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.evaluate(expression).is_ok_and(|value| value == json!(true)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(40));
        }
        let seen = self.text().unwrap_or_default();
        bail!("`{expression}` did not become true; the page says:\n{seen}\n{:?}", self.complaints)
    }

    /// The page's text.
    pub fn text(&mut self) -> Result<String> {
        Ok(self.evaluate("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks what a selector finds, as a person would.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        let selector = json!(selector);
        self.wait_for(&format!("!!document.querySelector({selector}) && !document.querySelector({selector}).disabled"))?;
        self.evaluate(&format!("document.querySelector({selector}).click()")).map(drop)
    }

    /// Writes into a field.
    pub fn fill(&mut self, selector: &str, text: &str) -> Result<()> {
        let (selector, text) = (json!(selector), json!(text));
        self.wait_for(&format!("!!document.querySelector({selector})"))?;
        let script = format!(
            "{{ const field = document.querySelector({selector}); field.value = {text}; field.dispatchEvent(new Event('input', {{ bubbles: true }})) }}"
        );
        self.evaluate(&script).map(drop)
    }

    /// Takes the screen's size and theme.
    pub fn screen(&mut self, width: u32, height: u32, phone: bool, dark: bool) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let theme = if dark { "dark" } else { "light" };
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] })).map(drop)
    }

    /// Writes the whole page to a PNG file, also what lies below the screen.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let size = self.call("Page.getLayoutMetrics", json!({}))?["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        self.picture(file, json!({ "format": "png", "captureBeyondViewport": true, "clip": clip }))
    }

    /// Writes what the screen shows to a PNG file.
    pub fn screenful(&mut self, file: &Path) -> Result<()> {
        self.picture(file, json!({ "format": "png" }))
    }

    fn picture(&mut self, file: &Path, how: Value) -> Result<()> {
        let taken = self.call("Page.captureScreenshot", how)?;
        let bytes = BASE64.decode(taken["data"].as_str().unwrap_or_default()).context("no picture")?;
        std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Requests so far.
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Complaints so far: errors of scripts, and what the page's security policy refused.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
