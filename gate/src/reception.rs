//! The reception: how operators come into the console, and what they may do once they are in.
//!
//! A passkey's assertion signs a challenge. To come in, that is a number of ours; to do something that takes a decision, it is the
//! digest of exactly that command, so that an assertion is worth nothing for anything else.

use std::{future::Future, net::IpAddr, pin::Pin};

use reprieve_operation::{Digest, OperatorName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Command, DeskAnswer, DeskError};

/// What the evidence of an answer begins with that nobody signed: a denial out of a session, which the record only says was given.
pub const UNSIGNED: &str = "session:";

/// What a browser shows when a person's passkey agreed (WebAuthn, `AuthenticatorAssertionResponse`), each part base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The credential's id.
    pub credential: String,
    /// What the browser says it asked, as JSON text; the challenge is in it.
    pub client_data: String,
    /// What the authenticator says about itself and the person.
    pub authenticator_data: String,
    /// Its signature over both.
    pub signature: String,
}

/// A passkey to be enrolled (WebAuthn, `AuthenticatorAttestationResponse`), each part base64url but the label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPasskey {
    /// The credential's id.
    pub credential: String,
    /// Its `SubjectPublicKeyInfo`.
    pub public_key: String,
    /// What the browser says it asked.
    pub client_data: String,
    /// What the authenticator says.
    pub authenticator_data: String,
    /// What its owner calls it.
    pub label: String,
}

/// Whom an invitation is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invited {
    /// The operator.
    pub operator: OperatorName,
    /// Whether a code of their second factor is needed besides.
    pub needs_code: bool,
    /// The challenge of the new passkey, base64url.
    pub challenge: String,
    /// Passkeys they have already, which an authenticator must not make again.
    pub exclude: Vec<String>,
    /// When the invitation ends.
    pub expires: Timestamp,
}

/// An assertion with the challenge it answers, from who wants to come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The challenge as it was handed out.
    pub challenge: String,
    /// The passkey's answer.
    pub assertion: Assertion,
}

/// A new session. The secret is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOn {
    /// What the browser keeps in its cookie.
    pub secret: String,
    /// Who.
    pub operator: OperatorName,
}

/// Who is in, by their session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// Who.
    pub operator: OperatorName,
    /// The session, without its secret.
    pub session: Digest,
    /// What every form of this session has to bring along.
    pub form_token: String,
    /// When the session ends, whatever is done in it.
    pub expires: Timestamp,
}

/// A command that waits for its passkey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// What it is confirmed by.
    pub proposal: String,
    /// The digest of the command, base64url.
    pub challenge: String,
    /// The passkeys that may confirm it.
    pub credentials: Vec<String>,
}

/// Where a browser is sent to sign in, and what it has to bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The provider's page.
    pub url: String,
    /// What the browser keeps in a cookie until then.
    pub secret: String,
}

/// What a browser brings back from the provider, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderAnswer {
    /// What the provider gives a token for.
    pub code: String,
    /// What was sent along.
    pub state: String,
    /// Who the answer says it is from.
    pub issuer: Option<String>,
}

/// An operator whom a provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// Who.
    pub operator: OperatorName,
    /// By whom and under what name there: [`reprieve_operation::VOUCHED`], the issuer, `#`, the name.
    pub evidence: String,
    /// Whether the settings name them by that name; otherwise by an address, which the provider may give to somebody else one day.
    pub is_named: bool,
}

/// Somebody else's sign-in, such as an organisation's. It opens the console, and approves nothing.
pub trait Provider: Send + Sync {
    /// Sends a browser there.
    fn begin(&self) -> Answering<'_, Redirect>;

    /// Who came back. The secret is used up, whatever becomes of it.
    fn finish(&self, secret: String, answer: ProviderAnswer) -> Answering<'_, Vouched>;

    /// Its name, for people.
    fn name(&self) -> &str;
}

/// Lets operators in.
pub trait Reception: Send + Sync {
    /// Whom an invitation is for.
    fn invited(&self, secret: &str) -> Result<Invited, DeskError>;

    /// Enrols a passkey and uses the invitation up.
    fn enrol<'a>(&'a self, secret: &'a str, code: Option<&'a str>, passkey: NewPasskey) -> Answering<'a, OperatorName>;

    /// A challenge to sign in with, good for minutes and once.
    fn challenge(&self) -> String;

    /// Begins a session, bound to the browser.
    fn sign_in<'a>(&'a self, sign_in: SignIn, browser: &'a str, peer: IpAddr) -> Answering<'a, SignedOn>;

    /// Begins a session of somebody whom a provider vouches for, if they are an operator.
    fn admit<'a>(&'a self, vouched: Vouched, browser: &'a str, peer: IpAddr) -> Answering<'a, SignedOn>;

    /// Who is in.
    fn session(&self, secret: &str, browser: &str) -> Option<SignedIn>;

    /// Ends a session.
    fn sign_out(&self, session: &Digest);
}

/// What who is in may do.
pub trait Counter: Send + Sync {
    /// Carries out what is safe without a passkey: denying and freezing.
    fn act(&self, who: SignedIn, command: Command) -> DeskAnswer<'_>;

    /// Checks a command as far as possible, and keeps it until its passkey agrees.
    fn propose(&self, who: &SignedIn, command: Command) -> Result<Proposal, DeskError>;

    /// Carries out what was proposed in the same session, and nothing else.
    fn confirm(&self, who: SignedIn, proposal: String, assertion: Assertion) -> DeskAnswer<'_>;
}

/// An answer on its way.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, DeskError>> + Send + 'a>>;
