//! Versions of a bucket's objects, and how long each is locked: what the library below does not tell.
//!
//! A delete marker hides an object, and whoever may write can put another under its name. Under object lock the version that was
//! put first is still there, and is read by its id. Requests are signed by the library; only their answers are read here.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use object_store::{
    ClientOptions,
    aws::{AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider},
    client::{HttpClient, HttpConnector as _, HttpRequestBody, HttpResponse, ReqwestConnector},
};
use reprieve_operation::Timestamp;
use time::{
    OffsetDateTime,
    format_description::well_known::{Rfc2822, Rfc3339},
};

use crate::{Lock, VaultError};

/// The largest answer that is read: a page has at most a thousand versions.
const ANSWER_BYTES: usize = 8 << 20;
/// More versions of one object are not looked at.
const VERSIONS: usize = 100_000;

/// Where a page begins: after this version of this object.
pub(super) type Next = (String, String);

/// Asks a bucket about versions.
#[derive(Debug)]
pub(super) struct Versions {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
    /// With the bucket.
    url: String,
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) bytes: u64,
    pub(super) at: Timestamp,
}

impl Versions {
    pub(super) fn new(
        bucket: &str,
        setting: impl Fn(AmazonS3ConfigKey) -> Option<String>,
        credentials: AwsCredentialProvider,
        options: &ClientOptions,
    ) -> Result<Self, VaultError> {
        let client = ReqwestConnector::default().connect(options).map_err(|error| VaultError::Settings(error.into()))?;
        let region = setting(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = setting(AmazonS3ConfigKey::Endpoint).unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        Ok(Self { client, credentials, region, url: format!("{}/{bucket}", endpoint.trim_end_matches('/')) })
    }

    /// A page of the versions of every object whose name begins so, by name, newest first, and where the next page begins.
    /// Delete markers are no versions. None where the store has no versions, or does not tell us of them.
    pub(super) async fn page(&self, prefix: &str, from: Option<&Next>) -> Result<Option<(Vec<Version>, Option<Next>)>, VaultError> {
        let mut query = format!("?versions&prefix={}", escaped(prefix));
        if let Some((key, version)) = from {
            query.push_str(&format!("&key-marker={}&version-id-marker={}", escaped(key), escaped(version)));
        }
        let answer = self.ask(Method::GET, &query).await?;
        if matches!(answer.status(), StatusCode::FORBIDDEN | StatusCode::NOT_IMPLEMENTED | StatusCode::BAD_REQUEST) {
            return Ok(None);
        }
        if !answer.status().is_success() {
            return Err(refused("list its versions", &answer));
        }
        let bytes = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let bytes = bytes.map_err(|source| VaultError::Away { doing: "list its versions", source })?.to_bytes();
        let (versions, next) = read_page(&bytes).ok_or_else(odd)?;
        // A store that goes on forever is not listened to.
        if next.is_some() && next.as_ref() == from { Err(odd()) } else { Ok(Some((versions, next))) }
    }

    /// The versions of one object, the first that was put first. None where there are no versions, or nobody may ask.
    pub(super) async fn of(&self, key: &str) -> Result<Vec<Version>, VaultError> {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let Some((page, next)) = self.page(key, from.as_ref()).await? else { break };
            found.extend(page.into_iter().filter(|version| version.key == key));
            match next.filter(|_| found.len() < VERSIONS) {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        found.reverse();
        Ok(found)
    }

    /// How an object, or a version of it, is locked. What is hidden or gone is not.
    pub(super) async fn lock(&self, key: &str, version: Option<&str>) -> Result<Lock, VaultError> {
        let query = version.map_or_else(String::new, |version| format!("?versionId={}", escaped(version)));
        let answer = self.ask(Method::HEAD, &format!("/{}{query}", escaped(key).replace("%2F", "/"))).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(Lock::None);
        }
        if !answer.status().is_success() {
            return Err(refused("read an object's lock", &answer));
        }
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let until = header("x-amz-object-lock-retain-until-date").and_then(moment);
        Ok(match (header("x-amz-object-lock-mode"), until) {
            (Some("COMPLIANCE"), Some(until)) => Lock::Until(until),
            // Whoever has the right to go around it can.
            (Some(_), Some(_)) => Lock::Weak,
            _ => Lock::None,
        })
    }

    async fn ask(&self, method: Method, path_and_query: &str) -> Result<HttpResponse, VaultError> {
        let wrong = |error: Box<dyn std::error::Error + Send + Sync>| VaultError::Away { doing: "ask for versions", source: error };
        let uri = format!("{}{path_and_query}", self.url);
        let request = Request::builder().method(method).uri(uri).body(HttpRequestBody::empty());
        let mut request = request.map_err(|error| wrong(error.into()))?;
        let credential = self.credentials.get_credential().await.map_err(|error| wrong(error.into()))?;
        let signer = AwsAuthorizer::new(&credential, "s3", &self.region);
        signer.try_authorize(&mut request, None).map_err(|error| wrong(error.into()))?;
        self.client.execute(request).await.map_err(|error| wrong(error.into()))
    }
}

fn refused(doing: &'static str, answer: &HttpResponse) -> VaultError {
    VaultError::Away { doing, source: format!("the store answered {}", answer.status()).into() }
}

fn odd() -> VaultError {
    VaultError::Away { doing: "list its versions", source: "the store's answer can't be read".into() }
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, UNRESERVED).to_string()
}

/// What a signature leaves as it is.
const UNRESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// RFC 3339, as in bodies and in the lock's header; some stores write the latter as other headers' dates are written.
fn moment(text: &str) -> Option<Timestamp> {
    let at = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(text, &Rfc2822)).ok()?;
    Some(Timestamp(u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?))
}

/// A page of versions, and where the next one begins.
fn read_page(bytes: &[u8]) -> Option<(Vec<Version>, Option<Next>)> {
    let document = roxmltree::Document::parse(std::str::from_utf8(bytes).ok()?).ok()?;
    let root = document.root_element();
    if root.tag_name().name() != "ListVersionsResult" {
        return None;
    }
    let text = |node: roxmltree::Node<'_, '_>, name: &str| {
        let child = node.children().find(|child| child.tag_name().name() == name)?;
        Some(child.text().unwrap_or_default().to_owned())
    };
    let version = |node: roxmltree::Node<'_, '_>| {
        Some(Version {
            key: text(node, "Key")?,
            id: text(node, "VersionId")?,
            bytes: text(node, "Size")?.parse().ok()?,
            at: moment(&text(node, "LastModified")?)?,
        })
    };
    let found = root.children().filter(|child| child.tag_name().name() == "Version").map(version).collect::<Option<Vec<_>>>()?;
    let next = if text(root, "IsTruncated").as_deref() == Some("true") {
        Some((text(root, "NextKeyMarker")?, text(root, "NextVersionIdMarker")?))
    } else {
        None
    };
    Some((found, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_or_it_is_not_one() {
        let page = r#"<?xml version="1.0" encoding="UTF-8"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
            <DeleteMarker><Key>k</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest><LastModified>2026-05-12T14:02:12.000Z</LastModified></DeleteMarker>
            <Version><Key>k</Key><VersionId>v2</VersionId><LastModified>2026-05-12T14:02:11.500Z</LastModified><Size>7</Size></Version>
            <Version><Key>k</Key><VersionId>v1</VersionId><LastModified>2026-05-12T14:02:10Z</LastModified><Size>5</Size></Version>
            </ListVersionsResult>"#;
        let (versions, next) = read_page(page.as_bytes()).expect("a page");
        assert_eq!(versions.iter().map(|version| (version.id.as_str(), version.bytes)).collect::<Vec<_>>(), [("v2", 7), ("v1", 5)]);
        assert_eq!(versions[0].at.0 - versions[1].at.0, 1_500);
        assert_eq!(next, Some(("k".to_owned(), "v1".to_owned())));
        for wrong in ["", "<Error/>", "<ListVersionsResult><Version/></ListVersionsResult>", &page.replace("<Size>5", "<Size>-5")] {
            assert!(read_page(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn locks_are_dated_in_two_ways() {
        assert_eq!(moment("1970-01-02T00:00:00Z"), Some(Timestamp(86_400_000)));
        assert_eq!(moment("Fri, 02 Jan 1970 00:00:00 GMT"), Some(Timestamp(86_400_000)));
        assert_eq!(moment("soon"), None);
    }
}
