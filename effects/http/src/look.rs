//! Looks: what something is now, read before a call changes it, after it did, and again before it is put back.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{lookup::answer, place, request::Request};

/// A read that shows a part of the state that a call changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The name of what it shows among what is saved.
    pub save: String,
    /// The read, without a credential.
    pub request: Request,
    /// The part of the answer that counts; all of it if missing.
    pub take: Option<String>,
    /// Where the answer says that it is about to go; what is there already counts as going.
    pub going: Option<String>,
    /// The answer is the user's own file rather than something to be read.
    pub raw: bool,
}

/// What a look showed.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// There is nothing.
    Absent,
    /// It is being taken away.
    Going,
    /// This.
    Present(Value),
}

/// What a call changes, as it was or is, by the names of the looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It isn't there.
    Absent,
    /// It is this.
    Present(Map<String, Value>),
}

/// Headers of a file that belong to it, as object stores keep them.
const OF_A_FILE: [&str; 7] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires", "x-amz-storage-class"];

/// Headers by which an object store keeps what its user wrote beside a file.
const BESIDE_A_FILE: &str = "x-amz-meta-";

/// Headers that tell of something that does not come back with a file.
const ABOUT_A_FILE: [&str; 5] = [
    "x-amz-tagging-count",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-legal-hold",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-archive-status",
];

impl Look {
    /// Reads the service's answer. An error: it doesn't show anything.
    pub fn read(&self, status: u16, headers: &[(String, String)], body: &[u8]) -> Result<Seen, String> {
        if matches!(status, 404 | 410) || status == 400 && is_named_absent(body) {
            return Ok(Seen::Absent);
        }
        if !matches!(status, 200..=202) {
            return Err(format!("the service answered {status}"));
        }
        if self.raw {
            let kept = headers.iter().filter(|(name, _)| OF_A_FILE.contains(&name.as_str()) || name.starts_with(BESIDE_A_FILE));
            let kept: Map<String, Value> = kept.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            let about = headers.iter().filter(|(name, _)| ABOUT_A_FILE.contains(&name.as_str()));
            let about: Map<String, Value> = about.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            return Ok(Seen::Present(json!({ "body": BASE64.encode(body), "headers": kept, "about": about })));
        }
        let media = headers.iter().find(|(name, _)| name == "content-type").map_or("", |(_, value)| value.as_str());
        let answer = answer(media, body)?;
        if place::first(&answer, "errors").is_some_and(|errors| errors.as_array().is_some_and(|errors| !errors.is_empty())) {
            return Err("the service's answer has errors in it".to_owned());
        }
        if self.going.as_ref().is_some_and(|place| place::first(&answer, place).is_some()) {
            return Ok(Seen::Going);
        }
        let taken = match &self.take {
            None => Some(answer).filter(|answer| !answer.is_null()),
            Some(place) => place::first(&answer, place),
        };
        taken.map(Seen::Present).ok_or_else(|| "the service's answer doesn't have it".to_owned())
    }
}

/// AWS says with status 400 that there is none of that id, in a code of its own: `InvalidVolume.NotFound`, `ResourceNotFoundException`.
fn is_named_absent(body: &[u8]) -> bool {
    let Ok(answer) = answer("", body) else { return false };
    let codes = place::find(&answer, "**.Code").into_iter().chain(place::find(&answer, "__type"));
    let is_absent = |code: &str| {
        let code = code.rsplit(['#', ':']).next().unwrap_or_default();
        code.ends_with("NotFound") || code.ends_with("NotFoundException") || code.ends_with("NotFoundFault") || code.starts_with("NoSuch")
    };
    codes.into_iter().any(|found| is_absent(&place::plain(&found.value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_anything_is_an_error() {
        let mut look = Look {
            save: "it".into(),
            request: Request::json("GET", "api.test", "/a", None),
            take: Some("result".into()),
            going: Some("result.leaving".into()),
            raw: false,
        };
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        for (status, body, expected) in [
            (200, r#"{"result":{"a":1}}"#, Ok(Seen::Present(json!({"a": 1})))),
            (200, r#"{"result":{"a":1,"leaving":"now"}}"#, Ok(Seen::Going)),
            (404, "", Ok(Seen::Absent)),
            (410, "", Ok(Seen::Absent)),
            (400, "<R><Errors><Error><Code>InvalidVolume.NotFound</Code></Error></Errors></R>", Ok(Seen::Absent)),
            (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}"#, Ok(Seen::Absent)),
            (400, r#"{"__type":"ValidationException"}"#, Err(())),
            (200, r#"{"result":null}"#, Err(())),
            (200, r#"{"other":1}"#, Err(())),
            (200, r#"{"result":{"a":1"#, Err(())),
            (200, r#"{"errors":[{"message":"no"}],"result":{}}"#, Err(())),
            (200, "", Err(())),
            (206, r#"{"result":{"a":1}}"#, Err(())),
            (301, "", Err(())),
            (403, "", Err(())),
            (500, "", Err(())),
        ] {
            assert_eq!(look.read(status, &json, body.as_bytes()).map_err(drop), expected, "{status} {body}");
        }
        look.raw = true;
        let headers = [
            ("content-type".to_owned(), "text/plain".to_owned()),
            ("x-amz-meta-a".to_owned(), "b".to_owned()),
            ("date".to_owned(), "d".to_owned()),
        ];
        let seen = look.read(200, &headers, b"\xff\x00").expect("a file");
        assert_eq!(
            seen,
            Seen::Present(json!({"body": "/wA=", "headers": {"content-type": "text/plain", "x-amz-meta-a": "b"}, "about": {}}))
        );
    }
}
