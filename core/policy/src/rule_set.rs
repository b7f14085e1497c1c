//! Rule sets: rules compiled for asking, and the asking.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    str::FromStr,
};

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, Request,
    RestrictedExpression,
};
use reprieve_operation::{Kind, Operation};

use crate::{
    circumstances::{Circumstances, Mentions},
    resource,
    rule::Rule,
    slice::Slices,
    touch::Touches,
};

/// Delays that a counterfactual tries; rules that name more are asked about the longest of them.
const DELAYS: usize = 8;

/// Rules compiled for asking.
#[derive(Debug)]
pub(crate) struct RuleSet {
    rules: Vec<Rule>,
    places: HashMap<PolicyId, usize>,
    slices: Slices,
    names: Names,
    /// What any of the rules looks at.
    pub(crate) mentions: Mentions,
    /// Delays that some rule may ask for, shortest first.
    pub(crate) delays_s: Vec<u64>,
    /// No rule tells one table from another.
    pub(crate) is_uniform: bool,
    /// A user's rule looks at numbers of rows, so that allowing many does not mean allowing fewer.
    pub(crate) weighs_rows: bool,
    needs_entities: bool,
    /// The first so many are ours.
    built_in: usize,
}

/// What the rules answer to one operation, all its touches taken together.
pub(crate) enum Answer {
    /// Each touch is permitted, by these.
    Permitted(BTreeSet<usize>),
    /// Some touch is forbidden by these, or, if there are none, permitted by nothing.
    Forbidden(BTreeSet<usize>),
    /// A rule could not be evaluated. Cedar would have skipped it, even a `forbid`; here it is a refusal.
    Broken(String),
}

/// The schema's names, parsed once.
#[derive(Debug)]
struct Names {
    environment: EntityTypeName,
    system: EntityTypeName,
    table: EntityTypeName,
    agent: EntityTypeName,
    actions: Vec<(Kind, EntityUid)>,
}

impl Names {
    fn new() -> Result<Self, String> {
        let kind = |name: &str| EntityTypeName::from_str(name).map_err(|error| error.to_string());
        let action = kind("Action")?;
        Ok(Self {
            environment: kind("Environment")?,
            system: kind("System")?,
            table: kind("Table")?,
            agent: kind("Agent")?,
            actions: Kind::ALL.into_iter().map(|kind| (kind, entity(&action, kind.as_str()))).collect(),
        })
    }

    fn action(&self, kind: Kind) -> Option<&EntityUid> {
        self.actions.iter().find(|(other, _)| *other == kind).map(|(_, action)| action)
    }
}

fn entity(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

impl RuleSet {
    /// Compiles `rules`, of which the first `built_in` are ours.
    pub(crate) fn new(rules: Vec<Rule>, built_in: usize) -> Result<Self, String> {
        let names = Names::new()?;
        let slices = Slices::new(&rules, names.actions.iter().map(|(_, action)| action))?;
        let mut mentions = Mentions::default();
        rules.iter().for_each(|rule| mentions.merge(rule.mentions));
        let delays: BTreeSet<u64> = rules.iter().flat_map(|rule| rule.delays_s.iter().copied()).collect();
        let skipped = delays.len().saturating_sub(DELAYS);
        let weighs =
            |rule: &Rule| ["rows", "statement_rows", "deleted", "rows_hour", "over_hour"].into_iter().any(|name| rule.mentions.has(name));
        Ok(Self {
            places: rules.iter().enumerate().map(|(place, rule)| (rule.policy.id().clone(), place)).collect(),
            slices,
            names,
            mentions,
            delays_s: delays.into_iter().skip(skipped).collect(),
            is_uniform: !rules.iter().any(|rule| rule.names_tables),
            weighs_rows: rules.iter().skip(built_in).any(weighs),
            needs_entities: rules.iter().any(|rule| rule.needs_entities),
            built_in,
            rules,
        })
    }

    pub(crate) fn rule(&self, place: usize) -> Option<&Rule> {
        self.rules.get(place)
    }

    /// The rule of the highest rank among `places`.
    pub(crate) fn first(&self, places: &BTreeSet<usize>) -> Option<&Rule> {
        places.first().and_then(|place| self.rule(*place))
    }

    fn speaks_of_channels(&self, place: usize) -> bool {
        place < self.built_in || self.rule(place).is_some_and(|rule| rule.mentions.has("channel"))
    }

    /// Asks about every touch of `operation` under `circumstances`.
    pub(crate) fn ask(&self, operation: &Operation, touches: &Touches<'_>, circumstances: &Circumstances) -> Answer {
        let context = match circumstances.context(self.mentions) {
            Ok(context) => context,
            Err(error) => return Answer::Broken(error),
        };
        let table = |name: &str| entity(&self.names.table, &format!("{}/{name}", operation.system));
        let targets: BTreeSet<(Kind, Option<&str>)> = if self.is_uniform {
            touches.kinds().into_iter().map(|kind| (kind, None)).collect()
        } else {
            touches.iter().map(|(kind, resource)| (*kind, resource.as_deref())).collect()
        };
        let tables: BTreeSet<&str> = targets.iter().filter_map(|(_, name)| *name).collect();
        let world = match self.world(operation, &tables) {
            Ok(world) => world,
            Err(error) => return Answer::Broken(error),
        };
        let authorizer = Authorizer::new();
        let (mut permits, mut forbids, mut is_forbidden) = (BTreeSet::new(), BTreeSet::new(), false);
        for (kind, name) in targets {
            let mut places = vec![world.system.clone(), world.environment.clone()];
            let resource = name.map_or_else(|| world.system.clone(), table);
            if name.is_some() {
                places.push(resource.clone());
            }
            match self.ask_one(&authorizer, &world, kind, resource, &places, &context) {
                // A user's `permit` opens a channel only if it says so: one for everything was not meant for that.
                Answer::Permitted(by) if circumstances.channel && !by.iter().any(|place| self.speaks_of_channels(*place)) => {
                    is_forbidden = true;
                }
                Answer::Permitted(by) => permits.extend(by),
                Answer::Forbidden(by) => {
                    is_forbidden = true;
                    forbids.extend(by);
                }
                Answer::Broken(error) => return Answer::Broken(error),
            }
        }
        if is_forbidden || permits.is_empty() { Answer::Forbidden(forbids) } else { Answer::Permitted(permits) }
    }

    /// One request. The slices are asked one by one, which is the same as asking them together: forbids win, one permit will do.
    fn ask_one(
        &self,
        authorizer: &Authorizer,
        world: &World,
        kind: Kind,
        resource: EntityUid,
        places: &[EntityUid],
        context: &Context,
    ) -> Answer {
        let Some(action) = self.names.action(kind) else { return Answer::Broken(format!("there is no action `{kind}`")) };
        let request = match Request::new(world.agent.clone(), action.clone(), resource, context.clone(), None) {
            Ok(request) => request,
            Err(error) => return Answer::Broken(error.to_string()),
        };
        let (mut permits, mut forbids) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices.of(action, &world.agent, places) {
            let response = authorizer.is_authorized(&request, slice, &world.entities);
            if let Some(error) = response.diagnostics().errors().next() {
                return Answer::Broken(error.to_string());
            }
            let determining = response.diagnostics().reason().filter_map(|id| self.places.get(id).copied());
            match response.decision() {
                CedarDecision::Allow => permits.extend(determining),
                CedarDecision::Deny => forbids.extend(determining),
            }
        }
        if forbids.is_empty() && !permits.is_empty() { Answer::Permitted(permits) } else { Answer::Forbidden(forbids) }
    }

    /// The entities a request is about. Rules that never look at their places do without the store.
    fn world(&self, operation: &Operation, tables: &BTreeSet<&str>) -> Result<World, String> {
        let environment = entity(&self.names.environment, operation.environment.as_str());
        let system = entity(&self.names.system, operation.system.as_str());
        let agent = entity(&self.names.agent, operation.principal.agent.as_str());
        if !self.needs_entities {
            return Ok(World { environment, system, agent, entities: Entities::empty() });
        }
        let mut all = vec![
            Entity::new_no_attrs(environment.clone(), HashSet::new()),
            Entity::new_no_attrs(system.clone(), HashSet::from([environment.clone()])),
            Entity::new_no_attrs(agent.clone(), HashSet::new()),
        ];
        for name in tables {
            let uid = entity(&self.names.table, &format!("{}/{name}", operation.system));
            let (schema, bare) = resource::parts(name, operation.protocol);
            let words = |text: &str| RestrictedExpression::new_string(text.to_owned());
            let attributes = HashMap::from([("schema".to_owned(), words(schema)), ("name".to_owned(), words(bare))]);
            all.push(Entity::new(uid, attributes, HashSet::from([system.clone()])).map_err(|error| error.to_string())?);
        }
        let entities = Entities::from_entities(all, None).map_err(|error| error.to_string())?;
        Ok(World { environment, system, agent, entities })
    }
}

/// The entities a request is about.
struct World {
    environment: EntityUid,
    system: EntityUid,
    agent: EntityUid,
    entities: Entities,
}
