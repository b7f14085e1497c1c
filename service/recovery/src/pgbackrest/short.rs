//! What pgBackRest says of a request that a bucket refused, without the page of headers that comes with it.

/// What opens each part.
const PART: &str = "*** ";
const REQUEST: &str = "*** Path/Query ***:";
/// What an answer in XML names its reason with.
const CODE: (&str, &str) = ("<Code>", "</Code>");

/// What was said, and of each request only what was asked for and the code of the answer.
pub(super) fn in_short(said: &str) -> String {
    let (mut kept, mut in_dump, mut is_request): (Vec<String>, bool, bool) = (Vec::new(), false, false);
    let add = |kept: &mut Vec<String>, more: &str| match kept.last_mut() {
        Some(last) => *last = format!("{} {more}", last.trim_end_matches(':')),
        None => kept.push(more.to_owned()),
    };
    for line in said.lines() {
        let text = line.trim_start();
        if text.starts_with(PART) {
            (in_dump, is_request) = (true, text == REQUEST);
        } else if !in_dump || starts_anew(text) {
            in_dump = false;
            kept.push(line.to_owned());
        } else if is_request {
            is_request = false;
            add(&mut kept, &format!("({text})"));
        } else if let Some((code, _)) = text.split_once(CODE.0).and_then(|(_, rest)| rest.split_once(CODE.1)) {
            add(&mut kept, code);
        }
    }
    kept.join("\n")
}

/// Whether a line is no part of what came before.
fn starts_anew(line: &str) -> bool {
    ["ERROR: ", "WARN: ", "HINT: ", "P0"].iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_left_out() {
        // Of pgBackRest 2.45.
        let refused = "ERROR: [039]: HTTP request failed with 403 (Forbidden):\n       *** Path/Query ***:\n       GET /vault/?list-type=2\n       \
                       *** Request Headers ***:\n       authorization: <redacted>\n       host: s3\n       *** Response Headers ***:\n       \
                       content-length: 213\n       *** Response Content ***:\n       <?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>\
                       <Message>no</Message></Error>";
        let short = "ERROR: [039]: HTTP request failed with 403 (Forbidden) (GET /vault/?list-type=2) AccessDenied";
        for (said, expected) in [
            (refused.to_owned(), short.to_owned()),
            (format!("{refused}\nERROR: [055]: another"), format!("{short}\nERROR: [055]: another")),
            (format!("WARN: first\n{refused}"), format!("WARN: first\n{short}")),
            (
                "ERROR: [049]: unable to connect\n       [RETRY] again".to_owned(),
                "ERROR: [049]: unable to connect\n       [RETRY] again".to_owned(),
            ),
            ("*** Path/Query ***:\nGET /".to_owned(), "(GET /)".to_owned()),
            (String::new(), String::new()),
        ] {
            assert_eq!(in_short(&said), expected);
        }
    }
}
