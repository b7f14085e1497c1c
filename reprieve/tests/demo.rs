//! The demo, whole: every scene went as it must, and no row was lost that nobody approved.

use std::process::Command;

#[test]
fn the_story_ends_well() {
    told_well(&["demo"]);
}

#[test]
fn the_worst_case_ends_well() {
    let told = told_well(&["demo", "--worst-case"]);
    assert!(told.contains("The worst case"), "{told}");
}

fn told_well(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_reprieve")).args(arguments).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{complained}");
    assert_eq!(told.trim_end().lines().last().map(str::trim), Some("Rows lost without approval: 0"), "{told}");
    assert!(!told.contains('\u{1b}'), "colours are for terminals");
    let too_wide: Vec<&str> = told.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(too_wide.is_empty(), "{too_wide:#?}");
    told.into_owned()
}
