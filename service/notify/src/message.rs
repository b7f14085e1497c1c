//! What a notification says: numbers of ours and names of ours. Nothing of the statement, and of the database only plain names.

use reprieve_operation::{Environment, HoldId, HoldState, Reach, Timestamp};
use serde_json::{Value, json};

/// Longer names are not shown.
const LONGEST_NAME: usize = 63;

/// What people are told of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which hold.
    pub hold: HoldId,
    /// Where it would change something.
    pub environment: Environment,
    /// One line, without anything an agent could choose.
    pub title: String,
    /// The loss, who asked, and until when one can decide.
    pub lines: Vec<String>,
    /// The hold's page. It shows and decides nothing by itself.
    pub link: String,
}

impl Message {
    /// Of a hold that waits. `link` is what its id is appended to.
    #[must_use]
    pub fn of(hold: &HoldState, link: &str, now: Timestamp) -> Self {
        let production = if hold.environment.is_production() { " in production" } else { "" };
        let owner = hold.on_behalf_of.as_ref().map(|owner| format!(" for {owner}")).unwrap_or_default();
        let needs = match hold.needs.approvals {
            0 | 1 => String::new(),
            more => format!(" It takes {more} people."),
        };
        let lines = vec![
            format!("{}.", loss(hold.reach.as_ref())),
            format!("Asked by {}{owner}, on {} ({}).{needs}", hold.agent, hold.system, hold.environment),
            format!("If nobody decides it is denied in {}.", in_words(hold.expires.since(now).as_secs())),
        ];
        let title = format!("{} waits{production}", hold.hold);
        Self { hold: hold.hold, environment: hold.environment.clone(), title, lines, link: format!("{link}{}", hold.hold) }
    }

    /// The whole as plain text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n\n{}\n\nLook at it, and decide there: {}\n", self.title, self.lines.join("\n"), self.link)
    }

    /// The whole for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "event": "hold_opened", "hold": self.hold.to_string(), "environment": self.environment, "title": self.title,
                "text": self.lines.join("\n"), "link": self.link })
    }
}

/// The loss in a sentence's beginning. Names come from a database that agents write to: what a program could take for a link, a mention or
/// markup is left out.
fn loss(reach: Option<&Reach>) -> String {
    let Some(reach) = reach.filter(|reach| !reach.is_empty()) else {
        return "A statement that could not be measured, so it counts as destroying everything it names".to_owned();
    };
    let about = if reach.estimated { "about " } else { "" };
    if let Some(found) = reach.found.first() {
        let kind = found.resource.split('/').next().unwrap_or_default();
        let backups = reach.found.iter().map(|found| found.backups.len()).sum::<usize>();
        let along = if backups > 0 { format!(", which has {} at the provider", count(backups as u64, "backup")) } else { String::new() };
        return format!("It concerns the {} {}{along}", plain(kind), plain(found.name.as_deref().unwrap_or_default()));
    }
    if let Some(first) = reach.dropped.first() {
        return format!("Drops {}{}", plain(first), besides(reach.dropped.len()));
    }
    if let Some(first) = reach.rewritten.first() {
        return format!("Empties or rewrites {}{}", plain(first), besides(reach.rewritten.len()));
    }
    let Some((name, rows)) = reach.tables.iter().max_by_key(|(_, rows)| rows.rows()) else {
        return if reach.touches_catalogs() { "Changes definitions or privileges" } else { "Reaches outside of its transaction" }
            .to_owned();
    };
    let verb = if reach.deleted() > 0 { "Deletes" } else { "Changes" };
    let rest = reach.rows().saturating_sub(rows.rows());
    let more = if rest > 0 {
        format!(", and {} in {} besides", count(rest, "row"), count(reach.tables.len() as u64 - 1, "table"))
    } else {
        String::new()
    };
    format!("{verb} {about}{} of {}{more}", count(rows.rows(), "row"), plain(name))
}

fn besides(all: usize) -> String {
    if all > 1 { format!(" and {} more", all - 1) } else { String::new() }
}

/// The last part of a name, if it is nothing but letters, digits and underscores.
fn plain(name: &str) -> &str {
    let own = name.rsplit('.').next().unwrap_or_default();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let harmless = !own.is_empty() && name.len() <= 2 * LONGEST_NAME && name.bytes().all(letters);
    if harmless { own } else { "something whose name is shown on its page only" }
}

fn count(count: u64, one: &str) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {one}{}", if count == 1 { "" } else { "s" })
}

fn in_words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use reprieve_operation::{Found, TableReach};

    use super::*;

    #[test]
    fn the_loss_is_told_without_what_an_agent_could_have_chosen() {
        let deletes = |tables: &[(&str, u64)]| Reach {
            tables: tables
                .iter()
                .map(|(name, deleted)| ((*name).to_owned(), TableReach { deleted: *deleted, ..TableReach::default() }))
                .collect(),
            ..Reach::default()
        };
        let check = |reach: &Reach, expected: &str| assert_eq!(loss(Some(reach)), expected);
        check(&deletes(&[("public.orders", 41_872), ("public.items", 5)]), "Deletes 41,872 rows of orders, and 5 rows in 1 table besides");
        check(&deletes(&[("public.o", 1)]), "Deletes 1 row of o");
        let hidden = "something whose name is shown on its page only";
        for name in ["https://evil.example/x", "public.<b>approve</b>", "public.a\u{202E}b", "x.@channel", "public.", "a b", "*bold*"] {
            check(&deletes(&[(name, 3)]), &format!("Deletes 3 rows of {hidden}"));
        }
        check(&Reach { dropped: vec!["public.a".into(), "public.b".into()], ..Reach::default() }, "Drops a and 1 more");
        let volume = Found {
            resource: "volume/vol-1".into(),
            name: Some("click http://evil.example".into()),
            backups: vec!["x".into()],
            ..Found::default()
        };
        check(
            &Reach { found: vec![volume], ..Reach::default() },
            &format!("It concerns the volume {hidden}, which has 1 backup at the provider"),
        );
        assert!(loss(None).contains("could not be measured"));
    }
}
