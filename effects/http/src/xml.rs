//! XML as a tree of names: what AWS sends and answers, read as if it were JSON.
//!
//! Elements are members, attributes too; elements of the same name become an array, and so does the `item` or `member` of a
//! list. Entities and document types are not read.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value};

const MOST_NODES: u32 = 200_000;
const DEEPEST: usize = 128;

/// The document as `{"Root": …}`.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    // A service may read it by the letters it says that it is in; here it was read as UTF-8.
    let head =
        text.trim_start_matches('\u{feff}').strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map_or("", |(head, _)| head);
    let said = head
        .split_once("encoding")
        .map(|(_, rest)| rest.trim_start_matches(|letter: char| letter.is_whitespace() || "='\"".contains(letter)));
    if said.is_some_and(|said| {
        !["utf-8", "us-ascii", "ascii"].iter().any(|known| said.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known)))
    }) {
        return Err("it says that it is in other letters than UTF-8".to_owned());
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| error.to_string())?;
    let root = document.root_element();
    Ok(Value::Object(Map::from_iter([(root.tag_name().name().to_owned(), value(root, 0)?)])))
}

fn value(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    let elements: Vec<Node<'_, '_>> = node.children().filter(Node::is_element).collect();
    let attributes = node.attributes().len() > 0;
    if elements.is_empty() && !attributes {
        return Ok(Value::String(
            node.children().filter(Node::is_text).filter_map(|child| child.text()).collect::<String>().trim().to_owned(),
        ));
    }
    let is_list = elements.iter().all(|element| matches!(element.tag_name().name(), "item" | "member")) && !elements.is_empty();
    if is_list {
        return Ok(Value::Array(elements.into_iter().map(|element| value(element, depth + 1)).collect::<Result<_, _>>()?));
    }
    let mut object: Map<String, Value> = Map::new();
    for attribute in node.attributes() {
        object.insert(attribute.name().to_owned(), Value::String(attribute.value().to_owned()));
    }
    for element in elements {
        let member = value(element, depth + 1)?;
        match object.get_mut(element.tag_name().name()) {
            None => {
                object.insert(element.tag_name().name().to_owned(), member);
            }
            Some(Value::Array(array)) => array.push(member),
            Some(other) => *other = Value::Array(vec![other.take(), member]),
        }
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_reads_like_json() {
        let text =
            "<?xml version=\"1.0\"?><R xmlns=\"x\"><set><item><id>a</id></item><item><id>b</id></item></set><k>1</k><k>2</k><e/></R>";
        assert_eq!(parse(text), Ok(serde_json::json!({ "R": { "e": "", "k": ["1", "2"], "set": [{ "id": "a" }, { "id": "b" }] } })));
        assert_eq!(parse("<r>a<!-- x -->b<?c d?><![CDATA[c]]>&#100;</r>"), Ok(serde_json::json!({ "r": "abcd" })));
        assert!(parse("<?xml version='1.0' encoding='utf-8'?><r/>").is_ok());
        assert!(parse("<?xml version='1.0' encoding = \"UTF-7\"?><r>+AFM-</r>").is_err());
        assert!(parse("<!DOCTYPE r [<!ENTITY a \"b\">]><r>&a;</r>").is_err());
        assert!(parse(&"<a>".repeat(100_000)).is_err());
        assert!(parse(&format!("{}{}", "<a>".repeat(5_000), "</a>".repeat(5_000))).is_err());
    }
}
