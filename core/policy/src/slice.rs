//! Slices: the few rules that can apply to a request, found without scanning them all.
//!
//! Cedar's cost is linear in the rules it is given. A rule that names an action, an agent or a resource in its head is only
//! handed over for requests that have these; the rest of its head and its conditions are Cedar's own business.

use std::collections::HashMap;

use cedar_policy::{EntityUid, PolicySet};

use crate::rule::Rule;

/// Rules by action, agent and resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slices(HashMap<EntityUid, OfAction>);

#[derive(Debug, Clone, Default)]
struct OfAction {
    everyone: ByResource,
    by_agent: HashMap<EntityUid, ByResource>,
}

#[derive(Debug, Clone, Default)]
struct ByResource {
    anything: Option<PolicySet>,
    within: HashMap<EntityUid, PolicySet>,
}

impl Slices {
    /// Sorts `rules` into slices for `actions`.
    pub(crate) fn new<'a>(rules: &'a [Rule], actions: impl Iterator<Item = &'a EntityUid>) -> Result<Self, String> {
        let mut slices = Self::default();
        for action in actions {
            let slice = slices.0.entry(action.clone()).or_default();
            for rule in rules {
                if rule.actions().is_some_and(|named| !named.contains(action)) {
                    continue;
                }
                let by_resource = match rule.principal() {
                    None => &mut slice.everyone,
                    Some(agent) => slice.by_agent.entry(agent).or_default(),
                };
                let set = match rule.resource() {
                    None => by_resource.anything.get_or_insert_default(),
                    Some(resource) => by_resource.within.entry(resource).or_default(),
                };
                set.add(rule.policy.clone()).map_err(|error| error.to_string())?;
            }
        }
        Ok(slices)
    }

    /// The rules for a request by `agent` on something that is, or is in, each of `places`.
    pub(crate) fn of<'a>(&'a self, action: &EntityUid, agent: &EntityUid, places: &'a [EntityUid]) -> impl Iterator<Item = &'a PolicySet> {
        let slice = self.0.get(action);
        let everyone = slice.map(|slice| &slice.everyone);
        let own = slice.and_then(|slice| slice.by_agent.get(agent));
        let of_resource = move |rules: &'a ByResource| {
            let within = if rules.within.is_empty() { &[] } else { places };
            rules.anything.iter().chain(within.iter().filter_map(|place| rules.within.get(place)))
        };
        everyone.into_iter().chain(own).flat_map(of_resource)
    }
}
