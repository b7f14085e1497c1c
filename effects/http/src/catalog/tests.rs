//! The built-in catalog holds together: what its rows name exists, what they ask can be asked.

use apollo_parser::Parser;
use serde_json::json;

use super::*;
use crate::{analysis::draft, format::Ask, request::Request};

fn built_in() -> Catalog {
    Catalog::built_in().expect("the built-in catalog")
}

#[test]
fn every_table_is_read() {
    let catalog = built_in();
    for (name, at_least) in
        [("aws", 19_000), ("github", 1_200), ("cloudflare", 2_500), ("digitalocean", 600), ("stripe", 600), ("vercel", 300), ("neon", 100)]
    {
        let operations = catalog.provider(name).map_or(0, |provider| provider.operations().len());
        assert!(operations >= at_least, "{name} has {operations}");
    }
}

#[test]
fn rows_name_operations_that_exist() {
    let mut unknown = Vec::new();
    for provider in built_in().providers() {
        let exists = |id: &str| match provider.speaks {
            Speaks::Aws => aws::class(&provider.services, id).is_some(),
            Speaks::Rest => provider.table.class(id).is_some() || provider.rows.get(id).is_some_and(|row| row.call.is_some()),
            // By hand: there is no generated list to compare with.
            Speaks::Graphql | Speaks::Kubernetes => true,
        };
        unknown.extend(
            provider.classes.keys().chain(provider.rows.keys()).filter(|id| !exists(id)).map(|id| format!("{}:{id}", provider.name)),
        );
    }
    unknown.sort_unstable();
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn an_operation_has_one_class() {
    for provider in built_in().providers() {
        for (id, row) in &provider.rows {
            assert!(row.class.is_none() || !provider.classes.contains_key(id), "{}:{id} has a row and is in a list", provider.name);
        }
    }
}

#[test]
fn what_is_asked_can_be_asked() {
    let request = Request::json("POST", "host.test", "/", None);
    for provider in built_in().providers() {
        let kept = |row: &Row| {
            row.escrow
                .iter()
                .flat_map(|escrow| std::iter::once(escrow.ask.clone()).chain(escrow.until.iter().map(|until| until.ask.clone())))
                .collect::<Vec<Ask>>()
        };
        let of_rows = provider.rows.values().flat_map(|row| {
            kept(row)
                .into_iter()
                .chain(
                    row.undo
                        .iter()
                        .flat_map(|undo| [Some(undo.ask.clone()), undo.absent.clone(), undo.check.clone()].into_iter().flatten()),
                )
                .chain(row.staged.iter().map(|staged| staged.ask.clone()))
        });
        let of_resources = provider.resources.values().flat_map(|resource| resource.resolve.iter().map(|resolve| resolve.ask.clone()));
        for ask in of_rows.chain(of_resources) {
            let draft = draft(provider, &request, &ask).unwrap_or_else(|missing| panic!("{}: {ask:?}: {missing}", provider.name));
            if let Some(name) = &ask.aws {
                assert!(aws::class(&provider.services, name).is_some(), "{name}");
            }
            if let Some(document) = &ask.graphql {
                let tree = Parser::new(document).parse();
                assert_eq!(tree.errors().count(), 0, "{document}");
                assert!(!document.contains("{i") && !document.contains("{n"), "`{document}` has what looks like a place to be filled in");
            }
            // Every place is one that is known by then.
            let known = json!({"id": "x", "once": 1, "host": "h", "args": {}, "saved": {}, "answer": {}});
            if let Err(missing) = draft.fill(&known) {
                let root = missing.0.split('.').next().unwrap_or_default();
                assert!(["args", "saved", "answer"].contains(&root), "{}: `{}` in {ask:?}", provider.name, missing.0);
            }
        }
    }
}

#[test]
fn resources_that_rows_name_can_be_looked_up_or_are_listed_here() {
    // Ids that only tell what is touched: the provider has no read for them, or the call says all there is.
    const ONLY_NAMES: [&str; 26] = [
        "group",
        "bucket",
        "charge",
        "payment_intent",
        "customer",
        "subscription",
        "product",
        "ref",
        "file",
        "container",
        "image",
        "network",
        "d1",
        "addon",
        "env",
        "domain",
        "deployment",
        "snapshots",
        "volume_name",
        "security_group",
        "database",
        "branch",
        "dns_record",
        "hosted_zone",
        "stack",
        "project",
    ];
    for provider in built_in().providers() {
        for (id, row) in &provider.rows {
            let of_guards = row.guards.iter().flat_map(|guard| &guard.names);
            for naming in row.names.iter().chain(of_guards) {
                assert!(
                    provider.resources.contains_key(&naming.r#type) || ONLY_NAMES.contains(&naming.r#type.as_str()),
                    "{}:{id} names a {}",
                    provider.name,
                    naming.r#type
                );
            }
        }
    }
}

#[test]
fn a_file_that_contradicts_itself_is_no_catalog() {
    let mut catalog = Catalog::default();
    for (text, part) in [
        ("name = 'x'\nspeaks = 'smoke'", "not a provider's file"),
        ("name = 'x'\nspeaks = 'rest'\nunknown = 1", "not a provider's file"),
        ("name = 'x'\nspeaks = 'rest'\n[classes]\nread = ['a']\nwrite = ['a']", "two classes"),
        ("name = 'y'\nspeaks = 'rest'\n[classes]\n'read often' = ['a']", "in `file`"),
        ("name = 'z'\nspeaks = 'rest'\n[[operation]]\nid = 'a'\ncall = 'nowhere'", "no call"),
        ("name = 'z'\nspeaks = 'rest'\n[[guard]]\nat = 'a'\nclass = 'destroy'\nbecause = 'b'", "asks nothing"),
        ("name = 'z'\nspeaks = 'rest'\n[[guard]]\nat = '**.a.**'\nis = 1\nclass = 'destroy'\nbecause = 'b'", "asks nothing"),
    ] {
        let error = catalog.add("file", text).expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn users_add_providers_and_change_rows() {
    let mut catalog = built_in();
    let own = "name = 'own'\nspeaks = 'rest'\nhosts = ['*.own.test']\n[[operation]]\nid = 'wipe'\ncall = 'POST /wipe/{what}'\nclass = 'destroy lasting'\n";
    assert!(catalog.add("own.toml", own).is_ok());
    assert!(
        catalog.add("more.toml", "name = 'own'\nspeaks = 'rest'\n[[operation]]\nid = 'ask'\ncall = 'POST /ask'\nclass = 'read'\n").is_ok()
    );
    assert!(catalog.add("wrong.toml", "name = 'own'\nspeaks = 'graphql'").is_err());
    let analysis = crate::analyze(&catalog, "own", &Request::json("POST", "a.own.test", "/wipe/all", None));
    assert_eq!((analysis.calls[0].operation.as_str(), analysis.calls[0].class.to_string().as_str()), ("own:wipe", "destroy lasting"));
    assert_eq!(analysis.calls[0].resources, ["wipe/all"]);
    assert_eq!(catalog.of_host("a.own.test:443").map(Provider::name), Some("own"));
    for host in ["own.test", "a.own.test.evil.test", "evilown.test"] {
        assert!(catalog.of_host(host).is_none_or(|provider| provider.name() != "own"), "{host}");
    }
}
