//! Tokens: issued, narrowed and revoked. A child's scope is never wider than its parent's, whatever happens to the parent.

use std::{collections::BTreeSet, time::Duration};

use reprieve_gate::{AuditError, DeskError};
use reprieve_operation::{
    AgentName, AgentState, Environment, Event, Kind, OperatorName, Pattern, Scope, State, SystemName, Timestamp, Token, TokenId,
};
use serde_json::{Value, json};

use crate::{
    ApprovalsDesk,
    desk::{random_byte, refused, same_name},
};

const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3_600);
const DECOY_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);
const MOST_ENTRIES: usize = 64;
/// How often another number is tried when another gateway takes the same one.
const MOST_TRIES: usize = 8;

/// A token to be issued.
pub(crate) struct Issue {
    pub(crate) agent: AgentName,
    pub(crate) systems: Vec<SystemName>,
    pub(crate) allow: Vec<Kind>,
    pub(crate) resources: Vec<Pattern>,
    pub(crate) rows_per_hour: Option<u64>,
    pub(crate) on_behalf_of: Option<OperatorName>,
    pub(crate) lifetime: Duration,
    pub(crate) parent: Option<AgentName>,
}

/// What becomes of an [`Issue`] once it is checked.
struct Plan {
    scope: Scope,
    on_behalf_of: Option<OperatorName>,
    expires: Timestamp,
    parent: Option<TokenId>,
    replaces: Option<TokenId>,
}

impl ApprovalsDesk {
    pub(crate) async fn issue(&self, issue: Issue, by: OperatorName) -> Result<Value, DeskError> {
        let plan = self.plan(&self.audit.state(), &issue, &by)?;
        // The old token first, and its children with it: a crash in between leaves too little, never too much.
        if let Some(token) = plan.replaces {
            let event = Event::TokenRevoked { token, by: by.clone() };
            self.append(event).await.map_err(|error| refused(error, ""))?;
        }
        self.record(issue.agent, plan, false, by).await
    }

    pub(crate) async fn issue_decoy(&self, agent: AgentName, by: OperatorName) -> Result<Value, DeskError> {
        {
            let state = self.audit.state();
            check_name(&state, &agent)?;
            if state.agents.contains_key(&agent) {
                return invalid(format!("there is an agent `{agent}` already: bait needs a name of its own"));
            }
        }
        let (kinds, environments, systems, resources) = Default::default();
        let scope = Scope { kinds, environments, systems, resources, rows_per_hour: Some(0) };
        let expires = self.clock.now().plus(DECOY_LIFETIME);
        self.record(agent, Plan { scope, on_behalf_of: None, expires, parent: None, replaces: None }, true, by).await
    }

    pub(crate) async fn narrow(
        &self,
        agent: &AgentName,
        allow: Vec<Kind>,
        resources: Vec<Pattern>,
        by: OperatorName,
    ) -> Result<Value, DeskError> {
        let narrowed = plan_narrowing(&self.audit.state(), agent, &allow, resources)?;
        let (count, kinds) = (narrowed.len(), allow);
        for change in narrowed {
            let event = match change {
                (token, Some(scope)) => Event::TokenNarrowed { token, scope, by: by.clone() },
                (token, None) => Event::TokenRevoked { token, by: by.clone() },
            };
            self.append(event).await.map_err(|error| refused(error, ""))?;
        }
        Ok(json!({ "agent": agent, "allow": kinds, "children": count - 1 }))
    }

    pub(crate) async fn revoke(&self, agent: &AgentName, by: OperatorName) -> Result<Value, DeskError> {
        let (token, children) = {
            let state = self.audit.state();
            let Some(entry) = state.agents.get(agent) else { return invalid(format!("there is no agent `{agent}`")) };
            let children = descendants(&state, entry.token).filter(|child| !child.revoked).map(|child| child.agent.to_string());
            (entry.token, children.collect::<Vec<_>>())
        };
        self.append(Event::TokenRevoked { token, by }).await.map_err(|error| refused(error, ""))?;
        Ok(json!({ "agent": agent, "revoked": token.to_string(), "children": children }))
    }

    /// Makes the token, records what is kept of it, and answers the one copy of its text.
    async fn record(&self, agent: AgentName, plan: Plan, decoy: bool, by: OperatorName) -> Result<Value, DeskError> {
        let Plan { scope, on_behalf_of, expires, parent, replaces: _ } = plan;
        let text = Token::from_random(random_byte);
        for _ in 0..MOST_TRIES {
            let token = TokenId(self.audit.state().next.token);
            let event = Event::TokenIssued {
                token,
                agent: agent.clone(),
                digest: text.digest(),
                verifier: text.verifier(&self.scram_salt),
                scope: scope.clone(),
                on_behalf_of: on_behalf_of.clone(),
                expires,
                parent,
                decoy,
                by: by.clone(),
            };
            match self.append(event).await {
                Ok(_) => {
                    let id = token.to_string();
                    return Ok(
                        json!({ "token": text.reveal(), "agent": agent, "token_id": id, "expires": expires, "on_behalf_of": on_behalf_of }),
                    );
                }
                Err(AuditError::KeyTaken { .. }) => {}
                Err(error @ AuditError::Unavailable { .. }) => return Err(refused(error, "")),
            }
        }
        Err(DeskError::Unavailable("other gateways keep taking the next token number: try again".to_owned()))
    }

    fn plan(&self, state: &State, issue: &Issue, by: &OperatorName) -> Result<Plan, DeskError> {
        let now = self.clock.now();
        check_name(state, &issue.agent)?;
        let scope = Scope {
            kinds: checked_kinds(&issue.allow)?,
            environments: self.environments_of(&issue.systems)?,
            systems: issue.systems.iter().cloned().collect(),
            resources: checked_resources(&issue.resources)?,
            rows_per_hour: issue.rows_per_hour,
        };
        if issue.lifetime.is_zero() || issue.lifetime > LONGEST_LIFETIME {
            return invalid("a token expires after at least a second and at most 366 days");
        }
        if let Some(owner) = issue.on_behalf_of.as_ref().filter(|owner| !state.operators.contains_key(owner)) {
            return invalid(format!("there is no operator `{owner}` to act for"));
        }
        let replaced = state.agents.get(&issue.agent);
        if replaced.is_some_and(|entry| entry.decoy) {
            return invalid(format!("`{}` is the name of a decoy", issue.agent));
        }
        let plan = Plan {
            scope,
            on_behalf_of: issue.on_behalf_of.clone(),
            expires: now.plus(issue.lifetime),
            parent: None,
            replaces: replaced.filter(|entry| !entry.revoked).map(|entry| entry.token),
        };
        let plan = match &issue.parent {
            Some(parent) => under_parent(state, parent, plan, now)?,
            None => plan,
        };
        // Otherwise an operator could first cut the tie, then be the only approver.
        if replaced.is_some_and(|entry| entry.on_behalf_of.as_ref() == Some(by)) && plan.on_behalf_of.as_ref() != Some(by) {
            return Err(DeskError::Forbidden("only another operator may change that an agent acts for you".to_owned()));
        }
        Ok(plan)
    }

    fn environments_of(&self, systems: &[SystemName]) -> Result<BTreeSet<Environment>, DeskError> {
        if systems.is_empty() || systems.len() > MOST_ENTRIES {
            return invalid("a token is for at least one system and at most 64");
        }
        let environment = |system: &SystemName| match self.systems.get(system) {
            Some(environment) => Ok(environment.clone()),
            None => invalid(format!("there is no system `{system}`")),
        };
        systems.iter().map(environment).collect()
    }
}

/// Fits a token under its parent's: scope, end, and the operator it acts for.
fn under_parent(state: &State, parent: &AgentName, plan: Plan, now: Timestamp) -> Result<Plan, DeskError> {
    let Some(entry) = state.agents.get(parent) else { return invalid(format!("there is no agent `{parent}`")) };
    if entry.revoked || entry.decoy || entry.expires <= now {
        return invalid(format!("the token of `{parent}` is void"));
    }
    if plan.replaces.is_some_and(|old| old == entry.token || descendants(state, old).any(|child| child.token == entry.token)) {
        return invalid(format!("`{parent}` would become void together with the token that is replaced"));
    }
    let scope = entry.scope.narrow(plan.scope).map_err(|error| DeskError::Forbidden(error.to_string()))?;
    let on_behalf_of = match (&entry.on_behalf_of, plan.on_behalf_of) {
        (Some(owner), Some(other)) if *owner != other => {
            return Err(DeskError::Forbidden(format!("`{parent}` acts for `{owner}`, and so must what it hands on")));
        }
        (Some(owner), _) => Some(owner.clone()),
        (None, own) => own,
    };
    Ok(Plan { scope, on_behalf_of, expires: plan.expires.min(entry.expires), parent: Some(entry.token), replaces: plan.replaces })
}

/// What narrowing one agent's token changes: its own scope, and that of every token below, or its end where nothing is left.
fn plan_narrowing(
    state: &State,
    agent: &AgentName,
    allow: &[Kind],
    resources: Vec<Pattern>,
) -> Result<Vec<(TokenId, Option<Scope>)>, DeskError> {
    let Some(entry) = state.agents.get(agent) else { return invalid(format!("there is no agent `{agent}`")) };
    if entry.revoked || entry.decoy {
        return invalid(format!("the token of `{agent}` is void"));
    }
    let kinds = checked_kinds(allow)?;
    let resources = if resources.is_empty() { entry.scope.resources.clone() } else { checked_resources(&resources)? };
    let scope = Scope { kinds, resources, ..(*entry.scope).clone() };
    let scope = entry.scope.narrow(scope).map_err(|error| DeskError::Forbidden(error.to_string()))?;
    // Children before their parent, so that a child is at no time wider.
    let mut changes: Vec<_> =
        descendants(state, entry.token).filter(|child| !child.revoked).map(|child| (child.token, common(&child.scope, &scope))).collect();
    changes.push((entry.token, Some(scope)));
    Ok(changes)
}

/// What two scopes have in common, as far as that can be told; `None` if nothing.
fn common(child: &Scope, parent: &Scope) -> Option<Scope> {
    let inside = |patterns: &BTreeSet<Pattern>, outer: &BTreeSet<Pattern>| -> BTreeSet<Pattern> {
        patterns.iter().filter(|pattern| outer.iter().any(|outer| outer.includes(pattern))).cloned().collect()
    };
    let mut resources = inside(&child.resources, &parent.resources);
    resources.extend(inside(&parent.resources, &child.resources));
    let scope = Scope {
        kinds: &child.kinds & &parent.kinds,
        environments: &child.environments & &parent.environments,
        systems: &child.systems & &parent.systems,
        resources,
        rows_per_hour: [child.rows_per_hour, parent.rows_per_hour].into_iter().flatten().min(),
    };
    let empty = scope.kinds.is_empty() || scope.environments.is_empty() || scope.systems.is_empty() || scope.resources.is_empty();
    if empty { None } else { parent.narrow(scope).ok() }
}

/// Every token below `token`. A child's number is larger than its parent's, so one pass in order of numbers finds all.
fn descendants(state: &State, token: TokenId) -> impl Iterator<Item = &AgentState> {
    let mut entries: Vec<&AgentState> = state.agents.values().collect();
    entries.sort_unstable_by_key(|entry| entry.token);
    let mut above = BTreeSet::from([token]);
    entries.retain(|entry| {
        let below = entry.parent.is_some_and(|parent| above.contains(&parent));
        if below {
            above.insert(entry.token);
        }
        below
    });
    entries.into_iter()
}

fn check_name(state: &State, agent: &AgentName) -> Result<(), DeskError> {
    if state.operators.keys().any(|operator| same_name(agent, operator)) {
        return invalid(format!("`{agent}` is the name of an operator"));
    }
    Ok(())
}

fn checked_kinds(allow: &[Kind]) -> Result<BTreeSet<Kind>, DeskError> {
    if allow.is_empty() {
        return invalid("a token allows at least one of read, write, destroy, grant");
    }
    let kind = |kind: &Kind| match kind {
        Kind::Read | Kind::Write | Kind::Destroy | Kind::Grant => Ok(*kind),
        Kind::Escape | Kind::Unknown => invalid(format!("no token allows `{kind}`: the policy alone decides on that")),
    };
    allow.iter().map(kind).collect()
}

fn checked_resources(resources: &[Pattern]) -> Result<BTreeSet<Pattern>, DeskError> {
    if resources.len() > MOST_ENTRIES {
        return invalid("a token names at most 64 resource patterns");
    }
    if resources.is_empty() {
        return Ok(BTreeSet::from(["*".parse().expect("a star is a pattern")]));
    }
    Ok(resources.iter().cloned().collect())
}

fn invalid<T>(text: impl Into<String>) -> Result<T, DeskError> {
    Err(DeskError::Invalid(text.into()))
}

#[cfg(test)]
mod tests;
