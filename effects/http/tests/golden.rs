//! The class of every operation of every provider in depth, so that a review sees it change.

use std::{env, fs, path::Path};

use reprieve_effects_http::{Catalog, Speaks};

/// Services of AWS whose operations are listed; the others have the generated classes.
const IN_DEPTH: [&str; 14] = [
    "ec2",
    "rds",
    "s3",
    "iam",
    "dynamodb",
    "cloudformation",
    "route53",
    "kms",
    "secretsmanager",
    "sts",
    "ssm",
    "lambda",
    "rds-data",
    "backup",
];

#[test]
fn classes() {
    let catalog = Catalog::built_in().expect("the built-in catalog");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut wrong = Vec::new();
    for provider in catalog.providers() {
        let mut text = String::new();
        for (id, class) in provider.operations() {
            let service = id.split(':').next().unwrap_or_default();
            if provider.speaks() == Speaks::Aws && !IN_DEPTH.contains(&service) {
                continue;
            }
            let class = class.map_or_else(|| "by its arguments".to_owned(), |class| class.to_string());
            text.push_str(&format!("{class}\t{id}\n"));
        }
        let file = folder.join(format!("{}.tsv", provider.name()));
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(&file, text).expect("written");
        } else if fs::read_to_string(&file).ok().as_deref() != Some(text.as_str()) {
            wrong.push(provider.name().to_owned());
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "these differ from tests/golden: look at it, then `cargo xtask golden`");
}
