//! What `pgbackrest info` tells of a stanza. A form that is not known is an error, never a guess.

use reprieve_operation::Timestamp;
use serde::Deserialize;

use super::{Label, StanzaName, short::in_short};
use crate::{RecoveryError, manifest::Lsn};

/// The form of copies that we know.
const FORMAT: u64 = 5;
/// There are copies; there are none yet.
const READABLE: [u64; 2] = [0, 2];

/// The repository that is used.
const FIRST: u64 = 1;

/// A copy in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub label: Label,
    /// When it was begun and made, to the second.
    pub began: Timestamp,
    /// See `began`.
    pub ended: Timestamp,
    /// Why it does not count; none if pgBackRest found nothing.
    pub wrong: Option<String>,
    /// The size of everything, its size in the repository, and how much of that is its own.
    pub plain_bytes: u64,
    /// See `plain_bytes`.
    pub stored_bytes: u64,
    /// See `plain_bytes`.
    pub added_bytes: u64,
    /// Whether it rests on no other.
    pub(crate) full: bool,
    /// Where its log is in the repository.
    pub(crate) archive: Option<String>,
    /// The log that makes it whole: timeline, from, to.
    pub(crate) wal: Option<(u32, Lsn, Lsn)>,
}

/// A stanza in a repository.
#[derive(Debug)]
pub(crate) struct Info {
    /// Of which cluster it is now.
    pub(crate) cluster: String,
    /// Its copies, oldest first.
    pub(crate) kept: Vec<Kept>,
}

impl Info {
    /// Reads what was answered.
    pub(super) fn read(text: &str, name: &StanzaName) -> Result<Self, RecoveryError> {
        let damaged = |what: &str| RecoveryError::Damaged(format!("what pgBackRest tells of its stanza `{name}` {what}"));
        let stanzas: Vec<Told> = serde_json::from_str(text).map_err(|error| damaged(&format!("can't be read here: {error}")))?;
        let told = stanzas.into_iter().find(|told| told.name == name.to_string()).ok_or_else(|| damaged("is nothing"))?;
        if !READABLE.contains(&told.status.code) {
            // Of the whole stanza it says `other` at times; why is told of the repository.
            let repository = told.repo.iter().map(|repository| &repository.status).find(|status| !READABLE.contains(&status.code));
            let Status { code, message } = repository.unwrap_or(&told.status);
            let what = format!("pgBackRest's stanza `{name}` can't be read: {} (code {code})", in_short(message));
            return Err(RecoveryError::Refused(what));
        }
        // Earlier ones are of servers that an upgrade replaced.
        let cluster = told.db.last().ok_or_else(|| damaged("names no server"))?.system_id.to_string();
        let mut kept = told.backup.iter().map(|backup| backup.kept(&told.archive)).collect::<Option<Vec<_>>>();
        kept.iter_mut().for_each(|kept| kept.sort_by_key(|kept| kept.began));
        Ok(Self { cluster, kept: kept.ok_or_else(|| damaged("has copies of a form that is not known here"))? })
    }

    /// The repositories of a stanza besides the first, by their names in the configuration; none if there are none.
    pub(super) fn others(text: &str, name: &StanzaName) -> Option<Vec<String>> {
        let stanzas: Vec<Told> = serde_json::from_str(text).ok()?;
        let told = stanzas.into_iter().find(|told| told.name == name.to_string())?;
        let others: Vec<String> = told.repo.iter().filter(|one| one.key != FIRST).map(|one| format!("repo{}", one.key)).collect();
        (!others.is_empty()).then_some(others)
    }

    /// One of its copies, if nothing is wrong with it.
    pub(crate) fn find(&self, label: &Label) -> Result<&Kept, RecoveryError> {
        let found = self.kept.iter().find(|kept| kept.label == *label);
        let found = found.ok_or_else(|| {
            RecoveryError::Damaged(format!("the copy {label} is not in pgBackRest's repository: its retention removed it, or somebody did"))
        })?;
        match &found.wrong {
            None => Ok(found),
            Some(wrong) => Err(RecoveryError::Damaged(format!("pgBackRest's copy {label} {wrong}"))),
        }
    }
}

/// A stanza, as told.
#[derive(Deserialize)]
struct Told {
    name: String,
    status: Status,
    #[serde(default)]
    repo: Vec<Repository>,
    db: Vec<Server>,
    archive: Vec<Archive>,
    backup: Vec<Backup>,
}

#[derive(Deserialize)]
struct Repository {
    key: u64,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    code: u64,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Server {
    system_id: u64,
}

#[derive(Deserialize)]
struct Archive {
    id: String,
    database: Number,
}

#[derive(Deserialize)]
struct Number {
    id: u64,
}

#[derive(Deserialize)]
struct Backup {
    label: Label,
    r#type: String,
    #[serde(default)]
    error: Option<bool>,
    archive: Ends<Option<String>>,
    lsn: Option<Ends<Option<Lsn>>>,
    timestamp: Ends<u64>,
    backrest: Form,
    database: Number,
    info: Sizes,
}

#[derive(Deserialize)]
struct Ends<T> {
    start: T,
    stop: T,
}

#[derive(Deserialize)]
struct Form {
    format: u64,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: Stored,
}

#[derive(Deserialize)]
struct Stored {
    /// Not told of copies that share blocks.
    size: Option<u64>,
    delta: u64,
}

impl Backup {
    fn kept(&self, archives: &[Archive]) -> Option<Kept> {
        if self.backrest.format != FORMAT {
            return None;
        }
        let archive = archives.iter().find(|archive| archive.database.id == self.database.id).map(|archive| archive.id.clone());
        let timeline = self.archive.start.as_ref().and_then(|file| u32::from_str_radix(file.get(..8)?, 16).ok());
        let wal = match (timeline, &self.lsn) {
            (Some(timeline), Some(Ends { start: Some(start), stop: Some(stop) })) if start < stop => Some((timeline, *start, *stop)),
            _ => None,
        };
        let wrong = match self.error {
            _ if wal.is_none() || archive.is_none() || self.archive.stop.is_none() => {
                Some("has no log that would make it whole".to_owned())
            }
            Some(false) => None,
            Some(true) => Some("has damaged pages in it, which pgBackRest found when it made it".to_owned()),
            None => Some("does not say whether its pages were whole: it is of an older pgBackRest".to_owned()),
        };
        Some(Kept {
            label: self.label.clone(),
            began: Timestamp(self.timestamp.start.checked_mul(1_000)?),
            ended: Timestamp(self.timestamp.stop.checked_mul(1_000)?),
            wrong,
            plain_bytes: self.info.size,
            stored_bytes: self.info.repository.size.unwrap_or(self.info.repository.delta),
            added_bytes: self.info.repository.delta,
            full: self.r#type == "full",
            archive,
            wal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pgBackRest 2.45 told of a stanza with one copy.
    const TOLD: &str = r#"[{"archive":[{"database":{"id":1,"repo-key":1},"id":"15-1","max":"000000010000000000000002","min":"000000010000000000000001"}],
        "backup":[{"archive":{"start":"000000010000000000000002","stop":"000000010000000000000002"},"backrest":{"format":5,"version":"2.45"},
        "database":{"id":1,"repo-key":1},"error":false,"info":{"delta":22992534,"repository":{"delta":3069488,"size":3069489},"size":22992534},
        "label":"20261123-012601F","lsn":{"start":"0/2000028","stop":"0/2000100"},"prior":null,"reference":null,
        "timestamp":{"start":1795397161,"stop":1795397167},"type":"full"}],"cipher":"aes-256-cbc",
        "db":[{"id":1,"repo-key":1,"system-id":7711172067227635334,"version":"15"}],"name":"main",
        "repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":0,"message":"ok"}}],
        "status":{"code":0,"lock":{"backup":{"held":false}},"message":"ok"}}]"#;

    fn read(text: &str) -> Result<Info, RecoveryError> {
        Info::read(text, &"main".parse().expect("a name"))
    }

    #[test]
    fn what_is_told_is_read() {
        let info = read(TOLD).expect("read");
        assert_eq!(info.cluster, "7711172067227635334");
        let kept = info.find(&"20261123-012601F".parse().expect("a label")).expect("there");
        assert_eq!((kept.plain_bytes, kept.stored_bytes, kept.added_bytes, kept.full), (22_992_534, 3_069_489, 3_069_488, true));
        assert_eq!(kept.wal, Some((1, Lsn(0x200_0028), Lsn(0x200_0100))));
        assert_eq!((kept.began, kept.archive.as_deref()), (Timestamp(1_795_397_161_000), Some("15-1")));
        assert!(info.find(&"20261123-012602F".parse().expect("a label")).is_err());
    }

    #[test]
    fn what_is_told_in_another_form_is_an_error() {
        for (part, other) in [
            ("\"name\":\"main\"", "\"name\":\"other\""),
            ("\"status\":{\"code\":0,\"lock\"", "\"status\":{\"code\":99,\"lock\""),
            ("\"status\":{\"code\":0,\"lock\"", "\"status\":{\"code\":1,\"lock\""),
            ("\"format\":5", "\"format\":6"),
            ("\"system-id\":7711172067227635334", "\"system-id\":\"x\""),
            ("\"db\":[{\"id\":1,\"repo-key\":1,\"system-id\":7711172067227635334,\"version\":\"15\"}]", "\"db\":[]"),
            ("\"20261123-012601F\"", "\"../../etc\""),
            ("\"timestamp\":{\"start\":1795397161,\"stop\":1795397167},", ""),
            ("\"start\":1795397161", "\"start\":18446744073709551615"),
            ("\"lsn\":{\"start\":\"0/2000028\"", "\"lsn\":{\"start\":\"2000028\""),
        ] {
            assert!(TOLD.contains(part), "{part}");
            assert!(read(&TOLD.replace(part, other)).is_err(), "{other}");
        }
        for text in ["", "[]", "{}", "null", "[{}]", &TOLD[..TOLD.len() - 1]] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn why_a_repository_can_not_be_read_is_told() {
        let away = TOLD
            .replace(
                "\"key\":1,\"status\":{\"code\":0,\"message\":\"ok\"}",
                "\"key\":1,\"status\":{\"code\":99,\"message\":\"it is away\"}",
            )
            .replace(
                "\"status\":{\"code\":0,\"lock\":{\"backup\":{\"held\":false}},\"message\":\"ok\"}",
                "\"status\":{\"code\":99,\"message\":\"other\"}",
            );
        assert!(read(&away).expect_err("away").to_string().contains("it is away (code 99)"), "{away}");
    }

    #[test]
    fn a_copy_with_something_wrong_is_told_and_not_found() {
        for (part, other, why) in [
            ("\"error\":false", "\"error\":true", "damaged pages"),
            ("\"error\":false,", "", "does not say"),
            ("\"lsn\":{\"start\":\"0/2000028\",\"stop\":\"0/2000100\"}", "\"lsn\":null", "no log"),
            ("\"lsn\":{\"start\":\"0/2000028\"", "\"lsn\":{\"start\":\"0/3000028\"", "no log"),
            ("\"archive\":{\"start\":\"000000010000000000000002\"", "\"archive\":{\"start\":null", "no log"),
            ("\"archive\":{\"start\":\"000000010000000000000002\"", "\"archive\":{\"start\":\"é\"", "no log"),
            ("\"archive\":[{\"database\":{\"id\":1", "\"archive\":[{\"database\":{\"id\":2", "no log"),
        ] {
            assert!(TOLD.contains(part), "{part}");
            let info = read(&TOLD.replace(part, other)).expect("read");
            assert_eq!(info.kept.len(), 1);
            let error = info.find(&"20261123-012601F".parse().expect("a label")).expect_err(other);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
