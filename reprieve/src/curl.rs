//! `curl` command lines as requests, for explaining them. An option that would change the request and isn't known here is an error.

use anyhow::{Context as _, bail};
use reprieve_effects_http::{Body, Request};

/// Options without a value that don't change what is sent.
const QUIET: [&str; 24] = [
    "-s",
    "--silent",
    "-S",
    "--show-error",
    "-i",
    "--include",
    "-v",
    "--verbose",
    "-L",
    "--location",
    "-f",
    "--fail",
    "--fail-with-body",
    "-k",
    "--insecure",
    "--compressed",
    "--http1.1",
    "--http2",
    "-4",
    "-6",
    "-N",
    "--no-buffer",
    "-#",
    "--globoff",
];

/// Options with a value that don't.
const QUIET_WITH_VALUE: [&str; 14] = [
    "-o",
    "--output",
    "-w",
    "--write-out",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--cacert",
    "-x",
    "--proxy",
    "--retry",
    "-u",
    "--user",
    "--max-redirs",
];

/// The request that `curl ARGUMENTS…` would send.
pub(crate) fn request(command: &[String]) -> anyhow::Result<Request> {
    let mut words = command.iter().map(String::as_str).peekable();
    words.next_if(|first| *first == "curl");
    let (mut method, mut url, mut headers, mut data, mut in_query) =
        (None::<String>, None::<String>, Vec::new(), Vec::<String>::new(), false);
    let mut json = false;
    while let Some(word) = words.next() {
        let mut value = |name: &str| words.next().map(str::to_owned).with_context(|| format!("`{name}` needs a value"));
        match word {
            "-X" | "--request" => method = Some(value(word)?),
            "-H" | "--header" => headers.push(value(word)?),
            "-A" | "--user-agent" | "-e" | "--referer" | "-b" | "--cookie" => drop(value(word)?),
            "-d" | "--data" | "--data-ascii" | "--data-binary" => data.push(read(&value(word)?)?),
            "--data-raw" => data.push(value(word)?),
            "--json" => {
                json = true;
                data.push(read(&value(word)?)?);
            }
            "-G" | "--get" => in_query = true,
            "-I" | "--head" => method = Some("HEAD".to_owned()),
            "--url" => url = Some(value(word)?),
            _ if QUIET.contains(&word) => {}
            _ if QUIET_WITH_VALUE.contains(&word) => drop(value(word)?),
            _ if word.len() > 2 && word.starts_with("-X") => method = Some(word[2..].to_owned()),
            _ if word.len() > 2
                && word.starts_with('-')
                && word[1..].chars().all(|letter| QUIET.contains(&format!("-{letter}").as_str())) => {}
            _ if word.starts_with('-') => bail!("the option `{word}` of curl is not known here"),
            _ if url.is_none() => url = Some(word.to_owned()),
            _ => bail!("`{word}` is a second address"),
        }
    }
    let mut url = url.context("the command has no address")?;
    if in_query && !data.is_empty() {
        url = format!("{url}{}{}", if url.contains('?') { "&" } else { "?" }, data.join("&"));
        data.clear();
    }
    let method = method.unwrap_or_else(|| if data.is_empty() { "GET" } else { "POST" }.to_owned());
    let mut request = to(&method, &url)?;
    for header in headers {
        let (name, value) = header.split_once(':').with_context(|| format!("`{header}` is no header"))?;
        request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if !data.is_empty() {
        if request.header("content-type").is_none() {
            let media = if json { "application/json" } else { "application/x-www-form-urlencoded" };
            request.headers.push(("content-type".to_owned(), media.to_owned()));
        }
        request.body = Body::Bytes(data.join(if json { "" } else { "&" }).into_bytes());
    }
    Ok(request)
}

/// A request without headers and body.
pub(crate) fn to(method: &str, url: &str) -> anyhow::Result<Request> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    if host.is_empty() || host.contains('@') {
        bail!("`{url}` is no address of a service");
    }
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok(Request {
        method: method.to_owned(),
        scheme: scheme.to_owned(),
        host: host.to_ascii_lowercase(),
        target,
        headers: Vec::new(),
        body: Body::Empty,
    })
}

/// `@FILE` is the file's text, its line ends kept.
fn read(value: &str) -> anyhow::Result<String> {
    match value.strip_prefix('@') {
        None => Ok(value.to_owned()),
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}")),
    }
}

/// The words of a command line: quotes and backslashes as a shell takes them, nothing else.
pub(crate) fn words(line: &str) -> anyhow::Result<Vec<String>> {
    let (mut words, mut word, mut quote, mut letters) = (Vec::new(), None::<String>, None::<char>, line.chars());
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '\\') | (Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, '|' | ';' | '&' | '`' | '$' | '<' | '>' | '(') | (Some('"'), '`' | '$') => {
                bail!("`{letter}` is for a shell; only a plain command is read")
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        bail!("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let read = |line: &str| words(line).and_then(|words| request(&words));
        let posted = read(r#"curl -sS -XPOST 'https://API.test/graphql' -H "Content-Type: application/json" -d '{"query":"{ a }"}'"#)
            .expect("a request");
        assert_eq!((posted.method.as_str(), posted.host.as_str(), posted.target.as_str()), ("POST", "api.test", "/graphql"));
        assert_eq!(
            (posted.header("content-type"), posted.body.clone()),
            (Some("application/json"), Body::Bytes(br#"{"query":"{ a }"}"#.to_vec()))
        );
        let got = read("curl -G https://api.test -d a=1 -d b=2").expect("a request");
        assert_eq!((got.method.as_str(), got.target.as_str(), got.body), ("GET", "/?a=1&b=2", Body::Empty));
        assert_eq!(read("curl -I api.test/x").map(|request| request.method).ok().as_deref(), Some("HEAD"));
        assert_eq!(read("curl api.test -d @/nowhere").map(|_| ()).ok(), None);
        for wrong in
            ["curl", "curl --upload-file x api.test", "curl a b", "curl 'a", "curl a; rm b", "curl -X", "curl https://u:p@api.test"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
