//! Signatures of AWS, version 4: an agent signs with keys that are worth nothing, and the gateway signs anew with the real ones.
//!
//! What of the agent's signature counts is whom it is for, region and service: a service reads the same request in another way under
//! another name. The rest is taken off, and with it dates and digests that only belong to it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use reprieve_gate::Clock;

/// How a signature of this version begins.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Headers of a signature: an agent's own are never sent on.
const OF_A_SIGNATURE: [&str; 3] = ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token"];

/// Signs requests anew.
#[derive(Clone)]
pub(crate) struct Signer {
    credentials: Credentials,
    clock: Arc<dyn Clock>,
}

/// Whom a signature is for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    region: String,
    service: String,
}

impl Signer {
    /// A signer with `ID:SECRET` or `ID:SECRET:SESSION`. `None`: the keys are none.
    pub(crate) fn new(keys: &str, clock: Arc<dyn Clock>) -> Option<Self> {
        let mut parts = keys.splitn(3, ':');
        let (id, secret) = (parts.next()?, parts.next()?);
        let session = parts.next();
        let is_key = |text: &str, shortest: usize| text.len() >= shortest && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_key(id, 1) || !is_key(secret, 8) || session.is_some_and(|session| !is_key(session, 8)) {
            return None;
        }
        Some(Self { credentials: Credentials::new(id, secret, session.map(str::to_owned), None, "reprieve"), clock })
    }

    /// What must never reach an agent.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let session = self.credentials.session_token().map(str::to_owned);
        std::iter::once(self.credentials.secret_access_key().to_owned()).chain(session).collect()
    }

    /// Puts the real signature on, over exactly what is sent.
    pub(crate) fn sign(&self, method: &Method, uri: &str, headers: &mut HeaderMap, body: SignableBody<'_>) -> Result<(), String> {
        let scope = headers.remove(AUTHORIZATION).and_then(|value| Scope::of(value.to_str().ok()?));
        let Scope { region, service } = scope.ok_or("it is not signed for a service of AWS")?;
        OF_A_SIGNATURE.iter().for_each(|name| drop(headers.remove(*name)));
        let mut settings = SigningSettings::default();
        if matches!(service.as_str(), "s3" | "s3express" | "s3-object-lambda" | "s3-outposts") {
            // S3 takes paths as they are, and wants the body's digest in a header.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let identity = self.credentials.clone().into();
        let time: SystemTime = UNIX_EPOCH + Duration::from_millis(self.clock.now().0);
        let parameters =
            v4::SigningParams::builder().identity(&identity).region(&region).name(&service).time(time).settings(settings).build();
        let parameters = parameters.map_err(|error| error.to_string())?.into();
        let texts: Vec<(&str, &str)> = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        let request = SignableRequest::new(method.as_str(), uri, texts.into_iter(), body);
        let signed = request.and_then(|request| sign(request, &parameters)).map_err(|error| error.to_string())?;
        let (instructions, _signature) = signed.into_parts();
        let (new, _parameters) = instructions.into_parts();
        for header in new {
            let name = header.name().parse::<HeaderName>().map_err(|error| error.to_string())?;
            let mut value = HeaderValue::from_str(header.value()).map_err(|error| error.to_string())?;
            value.set_sensitive(header.sensitive());
            headers.insert(name, value);
        }
        Ok(())
    }
}

/// What stays of an agent's signature: whom it is for, in a form that is the same each time. `None`: nothing of that can be read.
pub(crate) fn scope_alone(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let Scope { region, service } = Scope::of(value.to_str().ok()?)?;
    HeaderValue::from_str(&format!("{ALGORITHM} Credential=-/-/{region}/{service}/aws4_request")).ok()
}

/// Whether the address carries a signature, which would count instead of the gateway's.
pub(crate) fn is_presigned(query: &str) -> bool {
    let name = |pair: &str| crate::credential::decoded(pair.split('=').next().unwrap_or_default()).to_ascii_lowercase();
    query.split('&').any(|pair| ["x-amz-signature", "x-amz-credential", "x-amz-algorithm", "awsaccesskeyid"].contains(&name(pair).as_str()))
}

impl Scope {
    fn of(authorization: &str) -> Option<Self> {
        let rest = authorization.strip_prefix(ALGORITHM)?;
        let mut credentials = rest.split([',', ' ']).filter_map(|part| part.trim().strip_prefix("Credential="));
        let (credential, None) = (credentials.next()?, credentials.next()) else { return None };
        let parts: Vec<&str> = credential.split('/').collect();
        let [.., region, service, "aws4_request"] = parts.as_slice() else { return None };
        let is_name = |text: &str| {
            (1..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        (is_name(region) && is_name(service)).then(|| Self { region: (*region).to_owned(), service: (*service).to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use reprieve_operation::Timestamp;

    use super::*;

    struct Then;

    impl Clock for Then {
        fn now(&self) -> Timestamp {
            Timestamp(1_440_938_160_000)
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    /// The example in AWS's documentation of version 4, "Create a signed request": `iam:ListUsers`.
    #[test]
    fn signatures_are_the_documented_ones() {
        let signer = Signer::new("AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Arc::new(Then)).expect("keys");
        let mut sent = headers(&[
            ("authorization", "AWS4-HMAC-SHA256 Credential=-/-/us-east-1/iam/aws4_request"),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "19700101T000000Z"),
        ]);
        signer
            .sign(&Method::GET, "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", &mut sent, SignableBody::Bytes(b""))
            .expect("signed");
        assert_eq!(
            sent.get(AUTHORIZATION).and_then(|value| value.to_str().ok()),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, \
                 Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
            )
        );
        assert_eq!(sent.get("x-amz-date").and_then(|value| value.to_str().ok()), Some("20150830T123600Z"));
        assert!(
            signer.sign(&Method::GET, "https://iam.amazonaws.com/", &mut headers(&[]), SignableBody::Bytes(b"")).is_err(),
            "signed for nobody"
        );
    }

    #[test]
    fn whom_a_signature_is_for_is_all_that_stays_of_it() {
        let check =
            |value: &str| scope_alone(&headers(&[("authorization", value)])).map(|value| value.to_str().unwrap_or_default().to_owned());
        let plain = Some("AWS4-HMAC-SHA256 Credential=-/-/eu-west-1/s3/aws4_request".to_owned());
        assert_eq!(check("AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=ab"), plain);
        assert_eq!(check("AWS4-HMAC-SHA256 SignedHeaders=host,Credential=A/B/20260101/eu-west-1/s3/aws4_request,Signature=ab"), plain);
        for other in [
            "Bearer abc",
            "AWS4-ECDSA-P256-SHA256 Credential=AK/20260101/s3/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-1/S3/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AK/1/eu-west-1/s3/aws4_request, Credential=AK/1/eu-west-1/iam/aws4_request",
            "AWS4-HMAC-SHA256 Credential=/aws4_request",
            "AWS4-HMAC-SHA256",
        ] {
            assert_eq!(check(other), None, "{other}");
        }
        for (query, expected) in
            [("a=b", false), ("X-Amz-Signature=1", true), ("a=b&x-amz-%73ignature=1", true), ("AWSAccessKeyId=x", true)]
        {
            assert_eq!(is_presigned(query), expected, "{query}");
        }
        for keys in ["", "AKID", "AKID:short", "AKID:long-enough-secret:short", "AK ID:long-enough-secret"] {
            assert!(Signer::new(keys, Arc::new(Then)).is_none(), "{keys}");
        }
    }
}
