//! The two connections of one session, and the pump that moves bytes between them.
//!
//! Replies go to the client as they come, unless their message was ours; see `replies.rs`. While a change is not final, what the
//! client would hear of it is withheld here.

use std::{collections::HashMap, future::poll_fn, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use reprieve_pgwire::{
    Limits,
    backend::{BackendChunk, BackendScanner, ServerError, command_tag, data_row, function_result, parameter_status, ready_status},
    frontend::{ClientScanner, FrontendFrame},
    write,
};

use crate::{
    duplex::{Duplex, HIGH_WATER},
    guard::Guard,
    known::Known,
    replies::{Asked, Replies, Route},
    tally::Tally,
};

/// Bytes of withheld replies. A larger result is passed on while it comes, and its statement can't wait for an approval.
const WITHHOLD: usize = 256 * 1024;

/// Notices kept of what we ask.
const CAPTURE_NOTICES: usize = 100;

/// Rows kept of a captured result.
const CAPTURE_ROWS: usize = 100_000;

/// One of the two connections is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gone {
    /// The client.
    #[error("the client went away")]
    Client,
    /// The server.
    #[error("the server went away")]
    Server,
    /// One of them broke the protocol.
    #[error("the protocol was broken")]
    Protocol,
}

/// What the client does not hear yet.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    bytes: BytesMut,
    /// Where the last CommandComplete begins.
    end: Option<usize>,
    /// Whether something was passed on already.
    pub(crate) passed: bool,
}

/// What becomes of notices that something of ours raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notices {
    /// The client doesn't hear them.
    Ours,
    /// The client hears them after what is withheld.
    Last,
    /// The client hears them before the end of the last result, as what a COMMIT within a simple query raises.
    BeforeEnd,
}

/// What our own messages brought back.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) error: Option<ServerError>,
    /// Notices, as they came.
    pub(crate) notices: Vec<Bytes>,
    /// What was copied out. Whoever asks for that bounds it.
    pub(crate) copied: Vec<u8>,
    /// The beginning of a message whose end has not come.
    pub(crate) part: Vec<u8>,
}

/// Both connections of a session.
pub(crate) struct Wire {
    pub(crate) client: Duplex,
    pub(crate) server: Duplex,
    pub(crate) replies: Replies,
    pub(crate) captured: Captured,
    pub(crate) withheld: Option<Withheld>,
    /// The server's last word on its transaction: `I`, `T` or `E`.
    pub(crate) status: u8,
    /// The last CommandComplete that went to the client.
    pub(crate) tag: String,
    /// Rows by statement, as such tags have them.
    pub(crate) tally: Tally,
    /// The SQLSTATE of the last error that went to the client.
    pub(crate) code: Option<String>,
    /// Whether the server reads CopyData.
    pub(crate) copying: bool,
    /// Named and unnamed statements and portals, as the server confirmed them.
    pub(crate) statements: HashMap<String, Arc<Known>>,
    pub(crate) portals: HashMap<String, Arc<Known>>,
    /// `standard_conforming_strings` is off: what a backslash does to a text is not ours to read.
    pub(crate) lax_strings: bool,
    /// `client_encoding` is not UTF-8: what a byte outside ASCII means is not ours to read.
    pub(crate) other_encoding: bool,
    /// What the client knows of the server's settings, and what has changed since.
    pub(crate) settings: Vec<(String, String)>,
    changed: Vec<(String, String)>,
    /// Bytes cut off the front of the text that runs, for the positions in its errors.
    pub(crate) offset: usize,
    /// Rows that went to the client.
    pub(crate) rows: u64,
    /// ReadyForQuery is ours to send.
    pub(crate) hide_ready: bool,
    /// Where notices go that are raised by what we ask.
    pub(crate) notices: Notices,
    scanner: BackendScanner,
    frames: ClientScanner,
}

impl Wire {
    pub(crate) fn new(client: Duplex, server: Duplex, limits: Limits) -> Self {
        Self {
            client,
            server,
            replies: Replies::default(),
            captured: Captured::default(),
            withheld: None,
            status: b'I',
            tag: String::new(),
            tally: Tally::default(),
            code: None,
            copying: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            lax_strings: false,
            other_encoding: false,
            settings: Vec::new(),
            changed: Vec::new(),
            offset: 0,
            rows: 0,
            hide_ready: false,
            notices: Notices::Ours,
            scanner: BackendScanner::new(limits),
            frames: ClientScanner::new(limits),
        }
    }

    /// The client's next message. Replies keep flowing while it is waited for.
    pub(crate) async fn next_frame(&mut self) -> Result<FrontendFrame, Gone> {
        loop {
            if let Some(frame) = self.frames.next(&mut self.client.input).map_err(|error| self.broken(&error))? {
                return Ok(frame);
            }
            if self.client.ended {
                return Err(Gone::Client);
            }
            let before = self.client.input.len();
            self.pump(|wire| wire.client.input.len() != before || wire.client.ended, true).await?;
        }
    }

    fn broken(&mut self, error: &reprieve_pgwire::ProtocolError) -> Gone {
        tracing::warn!(%error, "protocol error");
        let message = error.to_string();
        write::error_response(&mut self.client.output, &[(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "08P01"), (b'M', &message)]);
        Gone::Protocol
    }

    /// Waits until the server owes nothing.
    pub(crate) async fn settle(&mut self) -> Result<(), Gone> {
        self.pump(|wire| wire.replies.is_empty(), false).await
    }

    /// Waits for the replies to what was sent without a Sync, which the server gives when it is asked to.
    pub(crate) async fn settle_sent(&mut self) -> Result<(), Gone> {
        if !self.replies.is_empty() {
            write::flush(&mut self.server.output);
        }
        self.settle().await
    }

    /// Waits until the server owes nothing, or asks for CopyData.
    pub(crate) async fn settle_or_copy(&mut self) -> Result<(), Gone> {
        self.pump(|wire| wire.replies.is_empty() || wire.copying, false).await
    }

    /// Moves bytes both ways until `done`. `idle`: nothing is asked of the server, so that a client that leaves ends it.
    async fn pump(&mut self, done: impl Fn(&Self) -> bool, idle: bool) -> Result<(), Gone> {
        let pumped = poll_fn(|context| {
            loop {
                let mut progress = false;
                if !self.server.output.is_empty() && self.server.poll_drain(context).is_ready() {
                    progress = true;
                }
                if !self.client.output.is_empty() {
                    let _written = self.client.poll_drain(context);
                }
                if self.client.output.len() < HIGH_WATER && self.server.poll_fill(context).is_ready() {
                    progress = true;
                    if let Err(gone) = self.route_replies() {
                        return Poll::Ready(Err(gone));
                    }
                    if !self.client.output.is_empty() {
                        let _written = self.client.poll_drain(context);
                    }
                }
                if done(self) {
                    return Poll::Ready(Ok(()));
                }
                if self.server.ended {
                    return Poll::Ready(Err(Gone::Server));
                }
                if self.client.ended && idle {
                    return Poll::Ready(Err(Gone::Client));
                }
                // A client's next message is read whole, however long it may be; only what comes ahead of its turn waits.
                if (idle || self.client.input.len() < HIGH_WATER)
                    && self.server.output.len() < HIGH_WATER
                    && self.client.poll_fill(context).is_ready()
                {
                    progress = true;
                }
                if self.copying
                    && let Err(gone) = self.forward_copy()
                {
                    return Poll::Ready(Err(gone));
                }
                if done(self) {
                    return Poll::Ready(Ok(()));
                }
                if !progress {
                    return Poll::Pending;
                }
            }
        });
        pumped.await
    }

    /// Passes CopyData of the client on, up to its end.
    fn forward_copy(&mut self) -> Result<(), Gone> {
        if self.client.ended {
            // The server must not take a torn copy for a whole one.
            let _fits = write::copy_fail(&mut self.server.output, "the client went away");
            write::sync(&mut self.server.output);
            self.copying = false;
            return Ok(());
        }
        while self.copying && self.server.output.len() < HIGH_WATER {
            let next = self.client.input.first().copied();
            if !self.frames.is_inside_message() && !matches!(next, Some(b'd' | b'c' | b'f' | b'H' | b'S')) {
                return if next.is_none() { Ok(()) } else { Err(Gone::Protocol) };
            }
            let Some(frame) = self.frames.next(&mut self.client.input).map_err(|error| self.broken(&error))? else { return Ok(()) };
            match frame.tag {
                b'd' => self.server.output.extend_from_slice(&frame.bytes),
                b'c' | b'f' => {
                    self.server.output.extend_from_slice(&frame.bytes);
                    self.copying = false;
                }
                _ => {} // Flush and Sync are ignored during a copy, as the server does.
            }
        }
        Ok(())
    }

    fn route_replies(&mut self) -> Result<(), Gone> {
        while let Some(chunk) = self.scanner.next(&mut self.server.input).map_err(|error| self.broken(&error))? {
            match chunk {
                BackendChunk::Rows { bytes, rows } => self.route_rows(&bytes, rows),
                BackendChunk::Frame { tag, bytes } => self.route_frame(tag, &bytes),
            }
        }
        Ok(())
    }

    fn route_rows(&mut self, bytes: &Bytes, rows: u64) {
        match self.replies.route() {
            Route::Client => {
                self.rows += rows;
                match &mut self.withheld {
                    Some(withheld) if !withheld.passed && withheld.bytes.len() + bytes.len() <= WITHHOLD => {
                        withheld.bytes.extend_from_slice(bytes)
                    }
                    Some(withheld) => {
                        withheld.passed = true;
                        withheld.end = None;
                        self.client.output.extend_from_slice(&withheld.bytes.split());
                        self.client.output.extend_from_slice(bytes);
                    }
                    None => self.client.output.extend_from_slice(bytes),
                }
            }
            Route::Swallow => {}
            Route::Capture => self.capture_rows(bytes),
        }
    }

    /// Takes in rows and copied data. A long message comes in parts.
    fn capture_rows(&mut self, bytes: &[u8]) {
        self.captured.part.extend_from_slice(bytes);
        let part = std::mem::take(&mut self.captured.part);
        let mut bytes = part.as_slice();
        while let Some((header, rest)) = bytes.split_at_checked(5) {
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            let Some((body, next)) = length.checked_sub(4).and_then(|size| rest.split_at_checked(size)) else { break };
            if header[0] == b'd' {
                self.captured.copied.extend_from_slice(body);
            } else if let Ok(row) = data_row(body)
                && self.captured.rows.len() < CAPTURE_ROWS
            {
                let text = |value: Result<Option<&[u8]>, _>| value.ok().flatten().map(|value| String::from_utf8_lossy(value).into_owned());
                self.captured.rows.push(row.map(text).collect());
            }
            bytes = next;
        }
        self.captured.part.extend_from_slice(bytes);
    }

    fn route_frame(&mut self, tag: u8, bytes: &Bytes) {
        let body = bytes.get(5..).unwrap_or_default();
        let routed = match tag {
            b'N' if self.replies.route() != Route::Client && self.notices == Notices::Ours => {
                if self.captured.notices.len() < CAPTURE_NOTICES {
                    self.captured.notices.push(bytes.clone());
                }
                return;
            }
            // Our own SET CONSTRAINTS warns in an implicit transaction.
            b'N' if self.replies.route() != Route::Client && is_outside_block(body) => return,
            b'S' => {
                self.watch_setting(body);
                return;
            }
            b'N' | b'A' => None,
            _ => {
                let routed = self.replies.take(tag);
                if let Some((name, known)) = routed.statement {
                    self.statements.insert(name, known);
                }
                if let Some((name, known)) = routed.portal {
                    self.portals.insert(name, known);
                }
                routed.route
            }
        };
        match tag {
            b'Z' => self.status = ready_status(body).unwrap_or(b'E'),
            b'G' => self.copying = true,
            b'C' | b'E' => self.copying = false,
            _ => {}
        }
        match routed {
            Some(Route::Swallow) => {}
            Some(Route::Capture) => {
                if tag == b'E' {
                    self.captured.error = ServerError::parse(body).ok();
                } else if tag == b'V' {
                    // Its value has the shape of a row's: a length, then bytes.
                    let text = function_result(body).map(|value| String::from_utf8_lossy(value).into_owned());
                    self.captured.rows.push(vec![text]);
                }
            }
            Some(Route::Client) if tag == b'Z' && self.hide_ready => {}
            Some(Route::Client) | None => {
                if tag == b'Z' {
                    self.report_settings();
                }
                match tag {
                    b'C' => {
                        command_tag(body).clone_into(&mut self.tag);
                        self.tally.complete(&self.tag);
                    }
                    b'E' => {
                        self.code =
                            Some(ServerError::parse(body).ok().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default())
                    }
                    _ => {}
                }
                self.tell_client(tag, bytes);
            }
        }
    }

    fn tell_client(&mut self, tag: u8, bytes: &Bytes) {
        let shifted = (tag == b'E' && self.offset > 0).then(|| shift_position(bytes, self.offset)).flatten();
        let bytes: &[u8] = shifted.as_deref().unwrap_or(bytes);
        let ends = matches!(tag, b'C' | b'Z' | b'E' | b'I');
        match &mut self.withheld {
            Some(Withheld { bytes: withheld, end: Some(end), .. }) if tag == b'N' && self.notices == Notices::BeforeEnd => {
                let tail = withheld.split_off(*end);
                withheld.extend_from_slice(bytes);
                *end = withheld.len();
                withheld.unsplit(tail);
            }
            Some(withheld) if !withheld.passed || ends => {
                withheld.end = (tag == b'C').then_some(withheld.bytes.len()).or(withheld.end);
                withheld.bytes.extend_from_slice(bytes);
            }
            Some(withheld) => {
                withheld.end = None;
                // The end of an earlier result of the same text comes before this.
                self.client.output.extend_from_slice(&withheld.bytes.split());
                self.client.output.extend_from_slice(bytes);
            }
            None => self.client.output.extend_from_slice(bytes),
        }
        if tag == b'G' || tag == b'W' || tag == b'H' {
            // A copy can't start while its client doesn't hear of it.
            self.pass_on();
        }
    }

    /// Whether we read this text as the server does.
    pub(crate) fn reads_alike(&self, text: &str) -> bool {
        !(self.lax_strings && text.contains('\\') || self.other_encoding && !text.is_ascii())
    }

    fn watch_setting(&mut self, body: &[u8]) {
        let Some((name, value)) = parameter_status(body) else { return };
        match self.changed.iter_mut().find(|(known, _)| known == name) {
            Some((_, last)) => value.clone_into(last),
            None => self.changed.push((name.to_owned(), value.to_owned())),
        }
        match name {
            "standard_conforming_strings" => self.lax_strings = value != "on",
            "client_encoding" => self.other_encoding = !value.eq_ignore_ascii_case("utf8"),
            _ => {}
        }
    }

    /// Tells the client which settings have another value than when it last heard of them. The server does so before each ReadyForQuery; a
    /// text of the client's may be several queries of ours.
    fn report_settings(&mut self) {
        for (name, value) in std::mem::take(&mut self.changed) {
            match self.settings.iter_mut().find(|(known, _)| *known == name) {
                Some((_, told)) if *told == value => continue,
                Some((_, told)) => told.clone_from(&value),
                None => self.settings.push((name.clone(), value.clone())),
            }
            let mut frame = BytesMut::new();
            if write::parameter_status(&mut frame, &name, &value).is_ok() {
                self.deliver(&frame);
            }
        }
    }

    /// From now on the client hears nothing of what goes its way.
    pub(crate) fn withhold(&mut self) {
        self.withheld = Some(Withheld::default());
    }

    /// Lets the client hear what was withheld so far, while withholding goes on for ends of results.
    pub(crate) fn pass_on(&mut self) {
        if let Some(withheld) = &mut self.withheld {
            withheld.passed = true;
            withheld.end = None;
            self.client.output.extend_from_slice(&withheld.bytes.split());
        }
    }

    /// Lets the client hear everything that was withheld.
    pub(crate) fn release(&mut self) {
        if let Some(withheld) = self.withheld.take() {
            self.client.output.extend_from_slice(&withheld.bytes);
        }
    }

    /// Forgets what was withheld; answers it, for a result that is kept. `true`: the client heard a part of it.
    pub(crate) fn discard(&mut self) -> (BytesMut, bool) {
        self.withheld.take().map_or_else(Default::default, |withheld| (withheld.bytes, withheld.passed))
    }

    /// Whether the client heard a part of what is withheld.
    pub(crate) fn has_passed(&self) -> bool {
        self.withheld.as_ref().is_some_and(|withheld| withheld.passed)
    }

    /// Sends the client something that stands for the server's answer.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        match &mut self.withheld {
            Some(withheld) => withheld.bytes.extend_from_slice(bytes),
            None => self.client.output.extend_from_slice(bytes),
        }
    }

    /// Tells the client that it may go on.
    pub(crate) fn ready(&mut self) {
        self.hide_ready = false;
        self.report_settings();
        write::ready_for_query(&mut self.client.output, self.status);
    }

    /// Asks the server something of ours by the simple protocol, and answers what it said.
    pub(crate) async fn ask(&mut self, text: &str) -> Result<Captured, Gone> {
        self.send_query(text, Route::Capture, 0);
        self.settle().await?;
        Ok(std::mem::take(&mut self.captured))
    }

    /// Sends a text by the simple protocol. `shown` results take the route, the rest is captured.
    pub(crate) fn send_query(&mut self, text: &str, route: Route, shown: usize) {
        if write::query(&mut self.server.output, text).is_err() {
            // A text of ours has no zero byte, and a client's was cut at its own; closed by default all the same.
            self.server.ended = true;
        }
        self.replies.push(Asked::Query { shown, seen: 0 }, route);
    }

    /// Sends a Sync.
    pub(crate) fn send_sync(&mut self, route: Route) {
        write::sync(&mut self.server.output);
        self.replies.push(Asked::Sync, route);
    }

    /// Runs a text of ours by the extended protocol under a name that is used once, leaving the client's unnamed statement and
    /// portal alone.
    pub(crate) fn send_extended(&mut self, name: &str, text: &str) {
        let out = &mut self.server.output;
        let written = write::parse(out, name, text, &[])
            .and_then(|()| write::bind(out, name, name, &[], &[], &[]))
            .and_then(|()| write::execute(out, name, 0))
            .and_then(|()| write::close(out, b'P', name))
            .and_then(|()| write::close(out, b'S', name));
        self.server.ended |= written.is_err();
        for asked in [Asked::Parse(None), Asked::Bind(None), Asked::Execute, Asked::Close, Asked::Close] {
            self.replies.push(asked, Route::Capture);
        }
    }

    /// Sends the guard; what it says is captured. A call ends an implicit transaction by itself, once its own ReadyForQuery comes.
    pub(crate) fn send_guard(&mut self, guard: &Guard, name: &str) {
        match guard {
            Guard::Select(text) => self.send_extended(name, text),
            Guard::Call(call) => {
                let written = write::function_call(&mut self.server.output, call.oid, &[], &call.arguments(), 0);
                self.server.ended |= written.is_err();
                self.replies.push(Asked::FunctionCall, Route::Capture);
            }
        }
    }

    /// Waits for the client to leave, without taking anything it sends.
    pub(crate) async fn client_gone(&mut self) {
        poll_fn(|context| {
            let _written = self.client.poll_drain(context);
            while self.client.input.len() < HIGH_WATER && self.client.poll_fill(context).is_ready() {}
            if self.client.ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Whether a notice says that a command belongs into a transaction block.
fn is_outside_block(body: &[u8]) -> bool {
    ServerError::parse(body).is_ok_and(|notice| notice.code() == Some("25P01"))
}

/// Moves the position field of an error by the characters that stand before the text that the server saw.
fn shift_position(bytes: &[u8], offset: usize) -> Option<BytesMut> {
    let mut error = ServerError::parse(bytes.get(5..)?).ok()?;
    let position = error.position()? as usize + offset;
    error.fields.iter_mut().filter(|(code, _)| *code == b'P').for_each(|(_, text)| *text = position.to_string());
    Some(error.to_bytes(b'E'))
}
