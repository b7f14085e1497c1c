//! Sessions of operators in the console: short, bound to a passkey and a browser, kept in memory only.
//!
//! A restart ends them all. What was proposed in a session waits here for its passkey, and goes with it.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::SignedIn;
use reprieve_operation::{Digest, OperatorName, Timestamp};

/// A session ends then, whatever is done in it.
const LONGEST: Duration = Duration::from_secs(8 * 3_600);
/// Or when nothing is done in it.
const IDLE: Duration = Duration::from_secs(45 * 60);
const MOST: usize = 512;
const MOST_OF_ONE: usize = 8;
const MOST_PROPOSALS: usize = 16;
const PROPOSAL_LASTS: Duration = Duration::from_secs(180);

/// A command on its way to a passkey.
#[derive(Debug, Clone)]
pub(crate) struct Proposed {
    /// The command as JSON text: this and nothing else is carried out.
    pub(crate) command: String,
    pub(crate) nonce: String,
    pub(crate) issued_at: Timestamp,
}

#[derive(Debug)]
struct Session {
    operator: OperatorName,
    credential: String,
    browser: Digest,
    form_token: String,
    started: Timestamp,
    seen: Timestamp,
    proposals: VecDeque<Proposed>,
}

/// All sessions, by the digest of their secret.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: HashMap<Digest, Session>,
}

impl Sessions {
    /// Begins a session; answers its secret. An operator's oldest one makes room where they have too many.
    pub(crate) fn begin(&mut self, operator: OperatorName, credential: String, browser: &str, now: Timestamp) -> String {
        self.open.retain(|_, session| session.is_alive(now));
        let own = self.open.values().filter(|session| session.operator == operator).count();
        if own >= MOST_OF_ONE {
            self.drop_oldest(|session| session.operator == operator);
        } else if self.open.len() >= MOST {
            self.drop_oldest(|_| true);
        }
        let secret = random_text();
        let session = Session {
            operator,
            credential,
            browser: browser_digest(browser),
            form_token: random_text(),
            started: now,
            seen: now,
            proposals: VecDeque::new(),
        };
        self.open.insert(key(&secret), session);
        secret
    }

    /// Who is in, and by which passkey.
    pub(crate) fn find(&mut self, secret: &str, browser: &str, now: Timestamp) -> Option<(SignedIn, String)> {
        let id = key(secret);
        let session = self.open.get_mut(&id).filter(|session| session.is_alive(now) && session.browser == browser_digest(browser))?;
        session.seen = now;
        let operator = session.operator.clone();
        let who = SignedIn { operator, session: id, form_token: session.form_token.clone(), expires: session.started.plus(LONGEST) };
        Some((who, session.credential.clone()))
    }

    pub(crate) fn end(&mut self, session: &Digest) {
        self.open.remove(session);
    }

    /// Ends every session that a passkey began.
    pub(crate) fn end_of_passkey(&mut self, credential: &str) {
        self.open.retain(|_, session| session.credential != credential);
    }

    /// Keeps a command until its passkey agrees; the oldest makes room.
    pub(crate) fn propose(&mut self, session: &Digest, command: String, now: Timestamp) -> Option<Proposed> {
        let session = self.open.get_mut(session).filter(|session| session.is_alive(now))?;
        if session.proposals.len() >= MOST_PROPOSALS {
            session.proposals.pop_front();
        }
        let proposed = Proposed { command, nonce: random_text(), issued_at: now };
        session.proposals.push_back(proposed.clone());
        Some(proposed)
    }

    /// Takes a proposal of this session out: it can be confirmed once.
    pub(crate) fn take(&mut self, session: &Digest, nonce: &str, now: Timestamp) -> Option<Proposed> {
        let session = self.open.get_mut(session).filter(|session| session.is_alive(now))?;
        let at = session.proposals.iter().position(|proposed| proposed.nonce == nonce)?;
        session.proposals.remove(at).filter(|proposed| now.since(proposed.issued_at) <= PROPOSAL_LASTS)
    }

    fn drop_oldest(&mut self, of: impl Fn(&Session) -> bool) {
        let oldest = self.open.iter().filter(|(_, session)| of(session)).min_by_key(|(_, session)| session.seen).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.open.remove(&key);
        }
    }
}

impl Session {
    fn is_alive(&self, now: Timestamp) -> bool {
        now.since(self.started) < LONGEST && now.since(self.seen) < IDLE
    }
}

fn key(secret: &str) -> Digest {
    Digest::of(&[b"reprieve/session/v1", secret.as_bytes()])
}

fn browser_digest(browser: &str) -> Digest {
    Digest::of(&[b"reprieve/browser/v1", browser.as_bytes()])
}

/// 32 bytes of the operating system's randomness, base64url.
/// 125 random bits as people can copy them from paper: five groups of letters and digits that nobody mistakes for each other.
pub(crate) fn random_code() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut bytes = [0u8; 25];
    OsRng.fill_bytes(&mut bytes);
    let letters: Vec<char> = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    letters.chunks(5).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

pub(crate) fn random_text() -> String {
    let mut bytes = [0u8; 32];
    OsRng.fill_bytes(&mut bytes);
    BASE64URL.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn later(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    fn ana() -> OperatorName {
        "ana".parse().expect("a name of the test")
    }

    #[test]
    fn a_session_ends_when_idle_and_after_its_longest_time() {
        let mut sessions = Sessions::default();
        let secret = sessions.begin(ana(), "key".to_owned(), "browser", START);
        assert!(sessions.find(&secret, "browser", later(60)).is_some());
        assert!(sessions.find(&secret, "another browser", later(60)).is_none(), "it is bound to its browser");
        assert!(sessions.find("guess", "browser", later(60)).is_none());
        assert!(sessions.find(&secret, "browser", later(60 + 45 * 60)).is_none(), "idle");
        let secret = sessions.begin(ana(), "key".to_owned(), "browser", START);
        for minutes in (0..480).step_by(40) {
            assert!(sessions.find(&secret, "browser", later(minutes * 60)).is_some(), "{minutes}");
        }
        assert!(sessions.find(&secret, "browser", later(480 * 60)).is_none(), "too long");
    }

    #[test]
    fn what_was_proposed_is_taken_once_in_time_and_in_its_session() {
        let mut sessions = Sessions::default();
        let (one, two) = (sessions.begin(ana(), "key".to_owned(), "b", START), sessions.begin(ana(), "key".to_owned(), "b", START));
        let (one, two) = (key(&one), key(&two));
        let first = sessions.propose(&one, "a command".to_owned(), START).expect("proposed");
        assert!(sessions.take(&two, &first.nonce, START).is_none(), "another session");
        assert!(sessions.take(&one, &first.nonce, START).is_some());
        assert!(sessions.take(&one, &first.nonce, START).is_none(), "once");
        let late = sessions.propose(&one, "a command".to_owned(), START).expect("proposed");
        assert!(sessions.take(&one, &late.nonce, later(181)).is_none(), "too late");
        let pushed_out = sessions.propose(&one, "a command".to_owned(), START).expect("proposed");
        for _ in 0..MOST_PROPOSALS {
            sessions.propose(&one, "another".to_owned(), START).expect("proposed");
        }
        assert!(sessions.take(&one, &pushed_out.nonce, START).is_none(), "bounded");
    }

    #[test]
    fn an_operators_sessions_and_all_of_them_are_bounded() {
        let mut sessions = Sessions::default();
        let secrets: Vec<String> = (0..20).map(|at| sessions.begin(ana(), "key".to_owned(), "b", later(at))).collect();
        assert_eq!(sessions.open.len(), MOST_OF_ONE);
        assert!(sessions.find(&secrets[0], "b", later(20)).is_none() && sessions.find(&secrets[19], "b", later(20)).is_some());
        for number in 0..2_000 {
            sessions.begin(format!("o{number}").parse().expect("a name"), "key".to_owned(), "b", later(21));
        }
        assert_eq!(sessions.open.len(), MOST);
        sessions.end_of_passkey("key");
        assert!(sessions.open.is_empty());
    }
}
