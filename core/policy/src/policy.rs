//! Policies: built-in rules and a user's, parsed, checked against the schema, and compiled.

use std::{collections::BTreeMap, str::FromStr, sync::LazyLock};

use cedar_policy::{PolicyId, PolicySet, Schema, ValidationMode, Validator};
use reprieve_operation::Digest;

use crate::{
    depth::too_deep,
    problem::{PolicyError, Problem},
    profile::Profile,
    rule::Rule,
    rule_set::RuleSet,
};

/// The longest file that is read.
const FILE_BYTES: usize = 1 << 20;

/// The most files, and the most rules in all of them.
const FILES: usize = 1_000;
const RULES: usize = 10_000;

/// The stack that policies are parsed and checked on.
const STACK_BYTES: usize = 64 << 20;

static SCHEMA_TEXT: &str = include_str!("schema.cedarschema");

/// The schema of `schema.cedarschema`.
pub(crate) static SCHEMA: LazyLock<Result<Schema, String>> = LazyLock::new(|| match Schema::from_cedarschema_str(SCHEMA_TEXT) {
    Ok((schema, _)) => Ok(schema),
    Err(error) => Err(error.to_string()),
});

/// One `*.cedar` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's name, for messages.
    pub name: String,
    /// Its contents.
    pub text: String,
}

/// A policy set in force: it does not change, a new one takes its place.
#[derive(Debug)]
pub struct Policy {
    profile: Profile,
    digest: Digest,
    /// What decides.
    pub(crate) enforced: RuleSet,
    /// What would have decided; only `observe` has it.
    pub(crate) shadow: Option<RuleSet>,
}

impl Policy {
    /// Builds the policy set of `profile` and the user's `sources`, or says everything that is wrong with these.
    ///
    /// In `observe` the user's rules are checked and answer what would have happened, but forbid nothing.
    pub fn build(profile: Profile, sources: &[Source]) -> Result<Self, PolicyError> {
        // Cedar's parser and validator recurse. What `depth.rs` lets through fits this stack several times over, whoever calls.
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("policy-build".to_owned()).stack_size(STACK_BYTES);
            let built = builder.spawn_scoped(scope, || Self::compile(profile, sources)).ok().and_then(|thread| thread.join().ok());
            built.unwrap_or_else(|| Err(PolicyError { problems: vec![Problem::new("policy", None, "the policies could not be compiled")] }))
        })
    }

    fn compile(profile: Profile, sources: &[Source]) -> Result<Self, PolicyError> {
        let mut problems = Vec::new();
        let theirs = read(sources, &mut problems);
        let compile = |profile: Profile, theirs: &[Rule], problems: &mut Vec<Problem>| {
            let mut rules = built_in(profile, problems).to_vec();
            let own = rules.len();
            rules.extend_from_slice(theirs);
            RuleSet::new(rules, own).map_err(|error| problems.push(Problem::new(profile.as_str(), None, error))).ok()
        };
        let (enforced, shadow) = match profile {
            Profile::Observe => (compile(profile, &[], &mut problems), compile(Profile::Guard, &theirs, &mut problems)),
            Profile::Guard | Profile::Lockdown => (compile(profile, &theirs, &mut problems), None),
        };
        match enforced {
            Some(enforced) if problems.is_empty() => Ok(Self { profile, digest: digest(profile, sources), enforced, shadow }),
            Some(_) | None => Err(PolicyError { problems }),
        }
    }

    /// Identifies the set: its profile and every text in it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The profile it was built for.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether no rule in force tells one table of a system from another.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        self.enforced.is_uniform
    }
}

fn digest(profile: Profile, sources: &[Source]) -> Digest {
    let by_name: BTreeMap<&str, &str> = sources.iter().map(|source| (source.name.as_str(), source.text.as_str())).collect();
    let mut parts: Vec<&[u8]> = vec![b"reprieve/policy/v1", profile.as_str().as_bytes(), SCHEMA_TEXT.as_bytes()];
    let guard = Profile::Guard.texts();
    let own = profile.texts();
    let texts = own.iter().chain(if profile == Profile::Observe { guard.as_slice() } else { &[] });
    parts.extend(texts.flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
    parts.extend(by_name.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
    Digest::of(&parts)
}

type BuiltIn = (BTreeMap<&'static str, Vec<Rule>>, Vec<Problem>);

/// The built-in rules of every profile, checked once, and what is wrong with them: nothing, as the tests show.
static BUILT_IN: LazyLock<BuiltIn> = LazyLock::new(|| {
    let mut problems = Vec::new();
    let mut of_profile =
        |profile: Profile| profile.texts().iter().flat_map(|(name, text)| rules_of(name, text, &mut problems)).collect::<Vec<_>>();
    let rules = Profile::ALL.into_iter().map(|profile| (profile.as_str(), of_profile(profile))).collect();
    (rules, problems)
});

fn built_in(profile: Profile, problems: &mut Vec<Problem>) -> &'static [Rule] {
    problems.extend_from_slice(&BUILT_IN.1);
    BUILT_IN.0.get(profile.as_str()).map_or(&[], Vec::as_slice)
}

/// The user's rules in the order of their files' names.
fn read(sources: &[Source], problems: &mut Vec<Problem>) -> Vec<Rule> {
    let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
    for source in sources.iter().take(FILES) {
        if source.text.len() > FILE_BYTES {
            problems.push(Problem::new(&source.name, None, format!("the file is longer than {FILE_BYTES} bytes")));
        } else if by_name.insert(&source.name, &source.text).is_some() {
            problems.push(Problem::new(&source.name, None, "there are two files of this name"));
        }
    }
    if let Some(source) = sources.get(FILES) {
        problems.push(Problem::new(&source.name, None, format!("there are more than {FILES} files")));
    }
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for profile in Profile::ALL {
        // Ours are named once for all profiles, so that a set stays valid when the profile changes.
        seen.extend(built_in(profile, problems).iter().map(|rule| (rule.id.clone(), "the built-in rules")));
    }
    let mut rules = Vec::new();
    for (name, text) in by_name {
        for rule in rules_of(name, text, problems) {
            if let Some(other) = seen.insert(rule.id.clone(), name) {
                problems.push(Problem::new(name, None, format!("the rule id `{}` is also in {other}", rule.id)));
            }
            if rules.len() >= RULES {
                problems.push(Problem::new(name, None, format!("there are more than {RULES} rules")));
                return rules;
            }
            rules.push(rule);
        }
    }
    rules
}

/// The rules of one file in order, each checked.
fn rules_of(file: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Rule> {
    if let Some((line, why)) = too_deep(text) {
        problems.push(Problem::new(file, Some(line), why));
        return Vec::new();
    }
    let set = match PolicySet::from_str(text) {
        Ok(set) => set,
        Err(errors) => {
            problems.extend(errors.iter().map(|error| Problem::of_cedar(file, text, error)));
            return Vec::new();
        }
    };
    if set.templates().next().is_some() {
        problems.push(Problem::new(file, None, "templates (`?principal`, `?resource`) are not supported: write the entity"));
    }
    match &*SCHEMA {
        Err(error) => problems.push(Problem::new("schema.cedarschema", None, error)),
        Ok(schema) => {
            let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
            problems.extend(result.validation_errors().map(|error| Problem::of_cedar(file, text, error)));
            // A rule that can never apply, or whose letters are not what they look like, protects nothing.
            problems.extend(result.validation_warnings().map(|warning| Problem::of_cedar(file, text, warning)));
        }
    }
    let mut policies: Vec<_> = set.policies().cloned().collect();
    policies.sort_by_key(|policy| policy.id().to_string().trim_start_matches("policy").parse::<usize>().unwrap_or(usize::MAX));
    let mut rules = Vec::new();
    for (number, policy) in policies.into_iter().enumerate() {
        let id = policy.annotation("id").map_or_else(|| format!("{file}#{}", number + 1), str::to_owned);
        if id.is_empty() || id.chars().count() > 200 || id.chars().any(char::is_control) {
            problems.push(Problem::new(file, None, format!("rule {} has no usable id: 1 to 200 characters", number + 1)));
            continue;
        }
        match Rule::new(id.clone(), policy.new_id(PolicyId::new(&id))) {
            Ok(rule) if rule.mistakes_system => {
                let why = "it applies to the system as a whole and to no table in it: write `resource in …` instead of `==` or `is`";
                problems.push(Problem::new(file, None, format!("rule `{id}`: {why}")));
            }
            Ok(rule) => rules.push(rule),
            Err(error) => problems.push(Problem::new(file, None, format!("rule `{id}`: {error}"))),
        }
    }
    rules
}
