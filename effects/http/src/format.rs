//! The format of a provider's file, as `docs/http.md` describes it. What it means is in `catalog.rs` and `analysis.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::class::Class;

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The provider. A second file of the same name adds to the first, and its rows come before.
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) title: String,
    pub(crate) speaks: Speaks,
    /// Hosts it answers on; `*` stands for any run of characters but dots.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// Paths before the operations' own; for GraphQL the paths that take documents.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// Where what is known about it comes from.
    #[serde(default)]
    pub(crate) sources: Vec<String>,
    /// GraphQL: fields, at any depth, whose value is a credential.
    #[serde(default)]
    pub(crate) secret_fields: Vec<String>,
    /// Operations by class.
    #[serde(default)]
    pub(crate) classes: BTreeMap<String, Vec<String>>,
    /// What is looked for in the arguments of every operation.
    #[serde(default, rename = "guard")]
    pub(crate) guards: Vec<Guard>,
    #[serde(default, rename = "operation")]
    pub(crate) operations: Vec<Row>,
    #[serde(default, rename = "resource")]
    pub(crate) resources: Vec<ResourceRow>,
}

/// How a provider is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// Methods and paths.
    Rest,
    /// Documents.
    Graphql,
    /// The protocols of AWS.
    Aws,
    /// The conventions of Kubernetes.
    Kubernetes,
}

/// What is known of one operation, or of several that are alike.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) id: OneOrMore,
    /// `DELETE /v2/volumes/{volume_id}`, where no generated table has it.
    pub(crate) call: Option<String>,
    pub(crate) class: Option<Class>,
    /// Why it is what it is, for people.
    pub(crate) note: Option<String>,
    /// What it touches.
    #[serde(default)]
    pub(crate) names: Vec<Naming>,
    /// Why there is nothing to take back: what it adds replaces nothing, and nobody sees it before another call.
    pub(crate) adds: Option<String>,
    /// How long, and in what form, the provider itself keeps what is deleted.
    pub(crate) soft: Option<String>,
    /// It only says what it would do if this is so.
    pub(crate) dry_run: Option<Test>,
    #[serde(default, rename = "guard")]
    pub(crate) guards: Vec<Guard>,
    /// Where a text in SQL is that it runs.
    pub(crate) sql: Option<String>,
    #[serde(default)]
    pub(crate) escrow: Vec<EscrowRow>,
    pub(crate) undo: Option<UndoRow>,
    /// It carries out what was put together by earlier calls: where to look at that.
    pub(crate) staged: Option<StagedRow>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::More(more) => more.iter(),
        }
    }
}

/// Where the id of a resource stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Naming {
    pub(crate) r#type: String,
    pub(crate) at: String,
    /// The id is not the value but the name this many steps above it.
    #[serde(default)]
    pub(crate) up: usize,
}

/// Something in the arguments that makes more of the operation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guard {
    /// Only these operations; all if empty. `*` stands for any run of characters.
    #[serde(default)]
    pub(crate) only: Vec<String>,
    #[serde(flatten)]
    pub(crate) test: Test,
    pub(crate) class: Class,
    pub(crate) because: String,
    #[serde(default)]
    pub(crate) names: Vec<Naming>,
}

/// A question about the arguments. Exactly one of the answers is given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Test {
    pub(crate) at: String,
    /// Something there is this, compared as text and without regard to case.
    pub(crate) is: Option<Value>,
    /// Something there is not this.
    #[serde(rename = "not")]
    pub(crate) is_not: Option<Value>,
    /// Something there is one of these.
    pub(crate) one_of: Option<Vec<Value>>,
    /// Something, or nothing, is there. A null counts as nothing.
    pub(crate) present: Option<bool>,
    /// An empty list, object or text is there.
    pub(crate) empty: Option<bool>,
    /// A number there is below this.
    pub(crate) below: Option<f64>,
    /// A text there has this in it, without regard to case.
    pub(crate) has: Option<String>,
}

/// A kind of thing that operations touch, and how to find out what one of them is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourceRow {
    pub(crate) r#type: String,
    #[serde(default)]
    pub(crate) resolve: Vec<ResolveRow>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolveRow {
    pub(crate) ask: Ask,
    /// Places in the answer, by what they tell: name, environment, size, attached, backups, parents, protection, exists.
    pub(crate) read: BTreeMap<String, OneOrMore>,
    /// The unit of `size`.
    #[serde(default)]
    pub(crate) unit: String,
}

/// A request of the gateway's own, with `{places}` to be filled in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// `GET /v2/volumes/{id}`.
    pub(crate) call: Option<String>,
    /// A document for the provider's GraphQL endpoint.
    pub(crate) graphql: Option<String>,
    #[serde(default)]
    pub(crate) variables: Value,
    /// `ec2:DescribeVolumes`, in whichever protocol its service prefers.
    pub(crate) aws: Option<String>,
    /// Its input.
    #[serde(default)]
    pub(crate) with: Value,
    /// Another host than the request's.
    pub(crate) host: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
    /// Members that the body must not have, for a body made from an earlier answer.
    #[serde(default)]
    pub(crate) drop: Vec<String>,
    /// Members it may have; all if empty.
    #[serde(default)]
    pub(crate) keep: Vec<String>,
    /// The body is a file, in base64 as a raw escrow keeps it.
    #[serde(default)]
    pub(crate) file: bool,
    /// Where an object is whose members are headers too.
    pub(crate) headers_from: Option<String>,
}

/// What is kept before the operation runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EscrowRow {
    /// The answer's name for undo: `{saved.NAME…}`.
    pub(crate) save: String,
    pub(crate) ask: Ask,
    /// The part of the answer to keep; all of it if missing.
    pub(crate) take: Option<String>,
    /// What it keeps, in words.
    pub(crate) says: String,
    /// Asked again and again until it is so.
    pub(crate) until: Option<UntilRow>,
    /// Where the answer says that it is about to go.
    pub(crate) going: Option<String>,
    /// The answer is the user's own file.
    #[serde(default)]
    pub(crate) raw: bool,
    /// What there must not be about it for it to come back as it was.
    #[serde(default)]
    pub(crate) unless: Vec<UnlessRow>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct UnlessRow {
    #[serde(flatten)]
    pub(crate) test: Test,
    pub(crate) because: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UntilRow {
    pub(crate) ask: Ask,
    pub(crate) at: String,
    pub(crate) is: Value,
    /// Waiting is in vain when it becomes this.
    #[serde(default)]
    pub(crate) never: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UndoRow {
    pub(crate) ask: Ask,
    /// What it brings back, in words.
    pub(crate) says: String,
    /// What doesn't come back.
    #[serde(default)]
    pub(crate) loses: String,
    /// What is another one afterwards, and nobody chose.
    #[serde(default)]
    pub(crate) anew: String,
    /// The call instead where there was nothing before.
    pub(crate) absent: Option<Ask>,
    /// How to look at what the operation made, where there is nothing before it to keep.
    pub(crate) check: Option<Ask>,
    /// The part of that answer that counts.
    pub(crate) take: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StagedRow {
    pub(crate) ask: Ask,
    /// The part of the answer that is judged by the operation's guards.
    pub(crate) take: String,
    /// The class if no guard finds anything.
    pub(crate) class: Class,
}
