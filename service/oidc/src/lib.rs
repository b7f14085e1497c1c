//! OpenID Connect: operators come into the console by their organisation's sign-in, where that is configured.
//!
//! The library speaks the protocol; here is who is let in: somebody whom the settings name, by an e-mail address that the provider says is
//! verified, or by the provider's own name for them. Nobody becomes an operator by signing in, and a session that began here approves
//! nothing without a passkey (`docs/decisions/021`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use openidconnect::{
    AdditionalProviderMetadata, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, Scope, TokenResponse as _,
    core::{
        CoreAuthDisplay, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod, CoreGrantType,
        CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode,
        CoreResponseType, CoreSubjectIdentifierType, CoreUserInfoClaims,
    },
};
use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::{Answering, DeskError, Provider, ProviderAnswer, Redirect, Vouched};
use reprieve_operation::{OperatorName, VOUCHED};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};

/// Somebody who was sent to the provider has so long to come back.
const COME_BACK: Duration = Duration::from_secs(600);
/// How many may be on their way at once; the oldest makes room.
const MOST_ON_THEIR_WAY: usize = 4_096;
/// Questions to the provider at once; whoever can't be served is told to try again.
const MOST_QUESTIONS: usize = 4;
/// What the provider says of itself is asked for again after this, before anybody is sent there. Who comes back meets it as it is.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// One question to the provider.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: u64 = 256 * 1024;
const LONGEST_CODE: usize = 4_096;
/// The longest name for somebody that the protocol allows.
const LONGEST_SUBJECT: usize = 255;

/// How the provider is asked, and whom its answer lets in.
#[derive(Debug, Clone)]
pub struct OidcOptions {
    /// The provider, as it names itself.
    pub issuer: String,
    /// What it calls us.
    pub client: String,
    /// Our secret there; none for a public client.
    pub secret: Option<String>,
    /// The console's own address, `https://HOST`.
    pub origin: String,
    /// Operators by verified e-mail address, or by `sub:` and the provider's name for them.
    pub operators: BTreeMap<String, OperatorName>,
}

/// Why options are not right.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OptionsError {
    /// The provider would be asked in the clear.
    #[error("the issuer `{0}` is not `https://…` (in the clear only on this machine)")]
    Issuer(String),
    /// The origin is none.
    #[error("the console's origin is no address")]
    Origin,
    /// Nobody would be let in.
    #[error("nobody is named in `operators`")]
    Nobody,
    /// A key of the table is neither.
    #[error("`{0}` is neither an e-mail address nor `sub:` with the provider's name for somebody")]
    Key(String),
}

/// Where browsers come back to.
pub const CALLBACK: &str = "/signin/oidc/callback";

/// What a provider says of itself beyond the library's fields.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Extra {
    /// RFC 9207, section 3.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Extra {}

type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// The provider's name for somebody, and their address where it is verified.
type Who = (String, Option<String>);

struct OnTheirWay {
    since: Instant,
    state: String,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
}

/// A provider of sign-ins.
pub struct Oidc {
    options: Options,
    on_their_way: Mutex<HashMap<[u8; 32], OnTheirWay>>,
    known: Mutex<Option<(Instant, Metadata)>>,
    questions: Arc<Semaphore>,
}

#[derive(Clone)]
struct Options {
    issuer: IssuerUrl,
    client: ClientId,
    secret: Option<ClientSecret>,
    redirect: RedirectUrl,
    operators: BTreeMap<String, OperatorName>,
}

impl Oidc {
    /// A provider that has not been asked yet.
    pub fn new(options: OidcOptions) -> Result<Self, OptionsError> {
        let OidcOptions { issuer, client, secret, origin, operators } = options;
        let wrong = || OptionsError::Issuer(issuer.clone());
        let url = IssuerUrl::new(issuer.clone()).map_err(|_| wrong())?;
        if url.url().scheme() != "https" && !(url.url().scheme() == "http" && is_here(url.url().host_str())) {
            return Err(wrong());
        }
        if operators.is_empty() {
            return Err(OptionsError::Nobody);
        }
        if let Some(key) = operators.keys().find(|key| !key.contains('@') && !key.starts_with("sub:")) {
            return Err(OptionsError::Key(key.clone()));
        }
        let redirect = RedirectUrl::new(format!("{origin}{CALLBACK}")).map_err(|_| OptionsError::Origin)?;
        // Addresses differ by case in nothing that matters; the provider's own names do.
        let operators =
            operators.into_iter().map(|(key, name)| (if key.starts_with("sub:") { key } else { key.to_lowercase() }, name)).collect();
        let (client, secret) = (ClientId::new(client), secret.map(ClientSecret::new));
        Ok(Self {
            options: Options { issuer: url, client, secret, redirect, operators },
            on_their_way: Mutex::default(),
            known: Mutex::default(),
            questions: Arc::new(Semaphore::new(MOST_QUESTIONS)),
        })
    }

    fn on_their_way(&self) -> MutexGuard<'_, HashMap<[u8; 32], OnTheirWay>> {
        self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the provider says of itself. Its keys are in it, which change.
    async fn metadata(&self, fresh: bool) -> Result<Metadata, DeskError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, metadata)) = known.filter(|(since, _)| !fresh && since.elapsed() < KNOWN_FOR) {
            return Ok(metadata);
        }
        let issuer = self.options.issuer.clone();
        let asked = self.asking(move || Metadata::discover(&issuer, &ask)).await?;
        let metadata = asked.map_err(|error| unavailable(&error))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), metadata.clone()));
        Ok(metadata)
    }

    async fn send_there(&self) -> Result<Redirect, DeskError> {
        let Options { client, secret, redirect, .. } = self.options.clone();
        let client = CoreClient::from_provider_metadata(self.metadata(false).await?, client, secret).set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
            .add_scope(Scope::new("email".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        let secret = random_text();
        let mut on_their_way = self.on_their_way();
        on_their_way.retain(|_, one| one.since.elapsed() < COME_BACK);
        if on_their_way.len() >= MOST_ON_THEIR_WAY
            && let Some(oldest) = on_their_way.iter().min_by_key(|(_, one)| one.since).map(|(key, _)| *key)
        {
            on_their_way.remove(&oldest);
        }
        let one = OnTheirWay { since: Instant::now(), state: state.secret().clone(), nonce, verifier };
        on_their_way.insert(digest(&secret), one);
        Ok(Redirect { url: url.to_string(), secret })
    }

    /// What came back is worth something once, for the browser that was sent, and under our own provider's name.
    async fn take_back(&self, secret: String, answer: ProviderAnswer) -> Result<Vouched, DeskError> {
        let sent = self.on_their_way().remove(&digest(&secret)).filter(|one| one.since.elapsed() < COME_BACK);
        let no = |why: &'static str| {
            tracing::info!(why, "a sign-in by the provider was not taken");
            DeskError::NotAuthenticated
        };
        let OnTheirWay { state, nonce, verifier, .. } = sent.ok_or_else(|| no("nobody was sent there"))?;
        if !bool::from(state.as_bytes().ct_eq(answer.state.as_bytes())) {
            return Err(no("another state"));
        }
        if answer.code.is_empty() || answer.code.len() > LONGEST_CODE {
            return Err(no("no code"));
        }
        // Keys may have been changed since somebody was sent there.
        let metadata = self.metadata(true).await?;
        // RFC 9207: an answer of another provider, which ours was mixed up with. Who says that they always tell has to tell.
        let is_told = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match &answer.issuer {
            Some(issuer) if issuer != self.options.issuer.as_str() => return Err(no("another issuer")),
            None if is_told => return Err(no("no issuer")),
            Some(_) | None => {}
        }
        let Options { client, secret, redirect, .. } = self.options.clone();
        let client = CoreClient::from_provider_metadata(metadata, client, secret).set_redirect_uri(redirect);
        let who = self.asking(move || -> Result<Who, &'static str> {
            let request = client.exchange_code(AuthorizationCode::new(answer.code)).map_err(|_| "it has no token endpoint")?;
            let tokens = request.set_pkce_verifier(verifier).request(&ask).map_err(|error| {
                tracing::info!(%error, "the provider gave no token");
                "no token"
            })?;
            let token = tokens.id_token().ok_or("no ID token")?;
            let asymmetric = [
                CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
                CoreJwsSigningAlgorithm::RsaSsaPssSha256,
                CoreJwsSigningAlgorithm::EcdsaP256Sha256,
                CoreJwsSigningAlgorithm::EcdsaP384Sha384,
                CoreJwsSigningAlgorithm::EdDsa,
            ];
            let verifier = client.id_token_verifier().set_allowed_algs(asymmetric).set_other_audience_verifier_fn(|_| false);
            let claims = token.claims(&verifier, &nonce).map_err(|error| {
                tracing::info!(%error, "the provider's ID token was not taken");
                "its ID token is not good"
            })?;
            let subject = claims.subject().as_str().to_owned();
            if subject.is_empty() || subject.len() > LONGEST_SUBJECT {
                return Err("its name for somebody is none");
            }
            let mut address = claims.email().map(|email| (email.as_str().to_lowercase(), claims.email_verified()));
            // Some providers tell addresses only where one asks for them, about the same person.
            if address.is_none()
                && let Ok(question) = client.user_info(tokens.access_token().clone(), Some(claims.subject().clone()))
            {
                let told: CoreUserInfoClaims = question.request(&ask).map_err(|error| {
                    tracing::info!(%error, "the provider did not tell an address");
                    "no address"
                })?;
                address = told.email().map(|email| (email.as_str().to_lowercase(), told.email_verified()));
            }
            Ok((subject, address.filter(|(_, verified)| *verified == Some(true)).map(|(address, _)| address)))
        });
        let (subject, verified) = who.await?.map_err(no)?;
        let by_subject = self.options.operators.get(&format!("sub:{subject}"));
        let operator = by_subject.or_else(|| verified.and_then(|email| self.options.operators.get(&email)));
        let operator = operator.cloned().ok_or_else(|| no("nobody of that name is let in"))?;
        let evidence = format!("{VOUCHED}{}#{subject}", self.options.issuer.as_str());
        Ok(Vouched { operator, evidence, is_named: by_subject.is_some() })
    }

    /// Asks the provider on a thread that may wait; a few at once.
    async fn asking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, DeskError> {
        let turn = timeout(PATIENCE, self.questions.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(DeskError::TooMany { seconds: PATIENCE.as_secs() }) };
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        asked.await.map_err(|error| unavailable(&error))
    }
}

impl Provider for Oidc {
    fn begin(&self) -> Answering<'_, Redirect> {
        Box::pin(self.send_there())
    }

    fn finish(&self, secret: String, answer: ProviderAnswer) -> Answering<'_, Vouched> {
        Box::pin(self.take_back(secret, answer))
    }

    fn name(&self) -> &str {
        self.options.issuer.url().host_str().unwrap_or("the provider")
    }
}

/// On the same machine nobody listens in between.
fn is_here(host: Option<&str>) -> bool {
    matches!(host, Some("127.0.0.1" | "localhost" | "[::1]"))
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn random_text() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    BASE64URL.encode(bytes)
}

fn unavailable(error: &dyn std::error::Error) -> DeskError {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let text = causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"));
    tracing::warn!(because = text, "the provider of sign-ins can't be used");
    DeskError::Unavailable("the provider of sign-ins can’t be used at this moment".to_owned())
}

#[derive(Debug, Error)]
enum AskError {
    #[error("the provider can't be asked")]
    Ask(#[from] ureq::Error),
    #[error("its answer is none")]
    Answer(#[from] openidconnect::http::Error),
    #[error("`{0}` is not `https://…`")]
    InTheClear(String),
}

/// Asks the provider. It sends nobody elsewhere, and its answers are bounded.
fn ask(request: HttpRequest) -> Result<HttpResponse, AskError> {
    let (scheme, host) = (request.uri().scheme_str(), request.uri().host());
    if scheme != Some("https") && !(scheme == Some("http") && is_here(host)) {
        return Err(AskError::InTheClear(request.uri().to_string()));
    }
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0).http_status_as_error(false).build().new_agent();
    let mut answer = agent.run(request)?;
    let body = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec()?;
    let mut made = openidconnect::http::Response::builder().status(answer.status());
    if let Some(headers) = made.headers_mut() {
        headers.extend(answer.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(made.body(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(issuer: &str, key: &str) -> OidcOptions {
        let operators = [(key.to_owned(), "ana".parse().expect("a name"))].into();
        let origin = "https://console.example".to_owned();
        OidcOptions { issuer: issuer.to_owned(), client: "reprieve".to_owned(), secret: None, origin, operators }
    }

    #[test]
    fn only_a_provider_that_can_be_trusted_and_people_who_are_named() {
        for (issuer, key, right) in [
            ("https://id.example", "ana@pocket.example", true),
            ("https://id.example/realm", "sub:24", true),
            ("http://127.0.0.1:3000", "ana@pocket.example", true),
            ("http://id.example", "ana@pocket.example", false),
            ("http://127.0.0.1.evil.example", "ana@pocket.example", false),
            ("ftp://id.example", "ana@pocket.example", false),
            ("id.example", "ana@pocket.example", false),
            ("https://id.example", "ana", false),
        ] {
            assert_eq!(Oidc::new(options(issuer, key)).is_ok(), right, "{issuer} {key}");
        }
        let nobody = OidcOptions { operators: BTreeMap::new(), ..options("https://id.example", "sub:1") };
        assert_eq!(Oidc::new(nobody).err(), Some(OptionsError::Nobody));
    }

    #[tokio::test]
    async fn nobody_comes_back_who_was_not_sent() {
        let oidc = Oidc::new(options("https://id.example", "sub:1")).expect("options");
        let answer = ProviderAnswer { code: "code".to_owned(), state: "state".to_owned(), issuer: None };
        assert_eq!(oidc.finish("guess".to_owned(), answer).await, Err(DeskError::NotAuthenticated));
    }
}
