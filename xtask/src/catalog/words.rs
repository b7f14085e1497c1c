//! Words: what an operation's name and method say about what it does. A first guess for long lists; hand-written rows and
//! vendors' own levels come before it.

/// Verbs that take something away, or stop it. Compared with the words of a name.
const TAKES: [&str; 114] = [
    "delete",
    "destroy",
    "remove",
    "purge",
    "terminate",
    "erase",
    "wipe",
    "reset",
    "revoke",
    "release",
    "deregister",
    "dispose",
    "drop",
    "clear",
    "empty",
    "truncate",
    "expire",
    "archive",
    "unarchive",
    "transfer",
    "cancel",
    "stop",
    "abort",
    "reboot",
    "restart",
    "shutdown",
    "suspend",
    "pause",
    "disable",
    "deactivate",
    "detach",
    "disassociate",
    "disconnect",
    "unlink",
    "unsubscribe",
    "unassign",
    "uninstall",
    "unset",
    "restore",
    "rollback",
    "revert",
    "failover",
    "rebuild",
    "resize",
    "downgrade",
    "void",
    "close",
    "refund",
    "redact",
    "reverse",
    "reject",
    "decline",
    "force",
    "overwrite",
    "replace",
    "batch",
    "bulk",
    "merge",
    "finalize",
    "schedule_deletion",
    "retire",
    "deletion",
    "dismiss",
    "lock",
    "unlock",
    "retention",
    "garbage",
    "move",
    "promote",
    "switch",
    "upgrade",
    "major",
    "recycle",
    "unstack",
    "region",
    "capture",
    "pay",
    "payout",
    "payouts",
    "charge",
    "charges",
    "buy",
    "action",
    "actions",
    "nameservers",
    "unblock",
    "rotate",
    "regenerate",
    "reactivate",
    "unreject",
    "accept",
    "approve",
    "confirm",
    "process",
    "refunds",
    "reversal",
    "spend",
    "spending",
    "limit",
    "limits",
    "dangerous",
    "prune",
    "evict",
    "drain",
    "failback",
    "swap",
    "unpublish",
    "withdraw",
    "exclude",
    "ban",
    "unban",
    "block",
    "mark_uncollectible",
    "uncollectible",
];

/// Nouns and verbs of who may do what.
const GRANTS: [&str; 87] = [
    "permission",
    "permissions",
    "role",
    "roles",
    "member",
    "members",
    "membership",
    "memberships",
    "collaborator",
    "collaborators",
    "token",
    "tokens",
    "secret",
    "secrets",
    "key",
    "keys",
    "invitation",
    "invitations",
    "invite",
    "invites",
    "policy",
    "policies",
    "acl",
    "acls",
    "credential",
    "credentials",
    "oauth",
    "password",
    "passwords",
    "ruleset",
    "rulesets",
    "protection",
    "share",
    "shares",
    "access",
    "grant",
    "grants",
    "user",
    "users",
    "team",
    "teams",
    "sso",
    "saml",
    "scim",
    "account_owner",
    "owner",
    "owners",
    "authorization",
    "webhook",
    "webhooks",
    "hook",
    "hooks",
    "trusted",
    "whitelist",
    "allowlist",
    "firewall",
    "firewalls",
    "bypass",
    "oidc",
    "registries_private",
    "private_registry",
    "external_accounts",
    "login_links",
    "account_links",
    "runner",
    "runners",
    "visibility",
    "restrictions",
    "registration",
    "jwks",
    "allow",
    "public",
    "expose",
    "trust",
    "identity",
    "identities",
    "certificate_authority",
    "session_token",
    "impersonate",
    "delegate",
    "delegation",
    "kms",
    "signing",
    "app_manifests",
    "manifest",
    "installations",
    "installation",
];

/// Words of running what the caller brings.
const RUNS: [&str; 8] = ["exec", "execute", "command", "commands", "shell", "ssh", "console", "eval"];

/// Words by which a read hands out a credential.
const SECRETS: [&str; 12] = [
    "reveal",
    "secret_value",
    "password",
    "credentials",
    "connection_uri",
    "registration",
    "kubeconfig",
    "jit",
    "token",
    "installation_token",
    "keys_with_secret",
    "decrypted",
];

/// The words of `deleteWorkflowRun`, `repos/delete-deploy-key`, `dns_records`.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before_lower = false;
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() {
            before_lower = false;
            words.push(String::new());
            continue;
        }
        if letter.is_ascii_uppercase() && before_lower {
            words.push(String::new());
        }
        before_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        if words.is_empty() {
            words.push(String::new());
        }
        if let Some(last) = words.last_mut() {
            last.push(letter.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The class of an operation with a method and a path.
pub(super) fn of_call(id: &str, method: &str, path: &str) -> &'static str {
    let mut all = words(id);
    let literal: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && !part.contains('{')).collect();
    all.extend(literal.iter().flat_map(|part| words(part)));
    let has = |list: &[&str]| all.iter().any(|word| list.contains(&word.as_str()));
    if matches!(method, "GET" | "HEAD" | "OPTIONS") {
        let last = literal.last().copied().unwrap_or_default();
        let shows = words(last).iter().any(|word| SECRETS.contains(&word.as_str())) || SECRETS.contains(&last);
        return if shows && !path.ends_with("tokens") { "read secret" } else { "read" };
    }
    if method != "DELETE" && has(&RUNS) {
        return "write code";
    }
    match (method == "DELETE", has(&GRANTS), has(&TAKES)) {
        (_, true, _) => "grant",
        (true, false, _) | (false, false, true) => "destroy",
        (false, false, false) => "write",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(words("repos/delete-deployKey"), ["repos", "delete", "deploy", "key"]);
        assert_eq!(words("dns_recordsV2"), ["dns", "records", "v2"]);
    }

    #[test]
    fn calls_have_classes() {
        for (id, method, path, expected) in [
            ("repos/get", "GET", "/repos/{owner}/{repo}", "read"),
            ("repos/delete", "DELETE", "/repos/{owner}/{repo}", "destroy"),
            ("repos/transfer", "POST", "/repos/{owner}/{repo}/transfer", "destroy"),
            ("repos/addCollaborator", "PUT", "/repos/{owner}/{repo}/collaborators/{username}", "grant"),
            ("issues/create", "POST", "/repos/{owner}/{repo}/issues", "write"),
            ("revealPassword", "GET", "/p/{id}/roles/{name}/reveal_password", "read secret"),
            ("", "POST", "/v1/charges/{charge}/refund", "destroy"),
            ("microvms_run_command", "POST", "/v2/microvms/{id}/run", "write code"),
        ] {
            assert_eq!(of_call(id, method, path), expected, "{id}");
        }
    }
}
