use reprieve_gate::{DrillDay, Unproven};

use super::*;

const TODAY: u64 = 20_585;

fn system(name: &str, environment: &str, rto_ms: u64) -> SystemRecovery {
    let at = Timestamp(TODAY * 86_400_000);
    let spread = |worst| Some(Spread { p50: 1, p95: 2, worst });
    SystemRecovery {
        system: name.parse().expect("a name"),
        environment: environment.parse().expect("a name"),
        unproven: None,
        window_s: Some(86_400),
        objective_rpo_s: Some(300),
        objective_rto_s: Some(900),
        backup: Some(at),
        backup_failed: None,
        reaches: Some(at),
        backups: 90,
        bytes: Some((48_851_456, 4_035_997)),
        place: "s3 bucket vault".to_owned(),
        same_blast_radius: false,
        locked: "nobody before 12 May".to_owned(),
        is_locked: true,
        tried_apart: true,
        passed: Some((at, 5, 17)),
        failures: vec![Failure {
            at,
            drill: "D-2".to_owned(),
            reason: "own check 1: <script> answered".to_owned(),
            remedy: Some((at, "<b>fixed</b>".to_owned())),
        }],
        last: Some(LastDrill {
            at,
            drill: "D-3".to_owned(),
            passed: true,
            rpo_ms: Some(58_000),
            rto_ms: Some(rto_ms),
            phases: vec![("fetch".to_owned(), 1_234)],
            checks: (9, 9),
        }),
        days: vec![DrillDay { day: TODAY, passed: 1, failed: 1, rpo_ms: Some(58_000), rto_ms: Some(rto_ms) }],
        drills: (1, 1),
        rpo_ms: spread(131_000),
        rto_ms: spread(774_000),
    }
}

fn both(systems: Vec<SystemRecovery>) -> (String, String) {
    let report = RecoveryReport { at: Timestamp(TODAY * 86_400_000 + 60_000), systems };
    (body(&report, None, true).into_string(), for_everybody(&report, "PocketRentals").into_string())
}

#[test]
fn the_first_sentence_is_the_slowest_of_production() {
    let (own, public) =
        both(vec![system("shop", "production", 402_000), system("billing", "production", 71_000), system("toy", "staging", 999_000)]);
    assert!(own.contains("You could be back in 6 min 42 s, losing at most 58 s of data."), "{own}");
    assert!(own.contains("the last drills of two systems, the slowest of <span class=\"mono\">shop</span>, 1 min ago"), "{own}");
    assert!(own.contains("Promised: 15 min and 5 min.") && own.contains("48.8 MB in 4.0 MB"), "{own}");
    assert!(public.contains("If our databases were lost now, all would be back in 6 min 42 s."), "{public}");
    assert!(public.contains("Most in 90 days: 12 min 54 s.") && public.contains("PocketRentals"), "{public}");
    let (_, public) = both(vec![system("shop", "production", 1_486)]);
    assert!(public.contains("If our database were lost now, it would be back in 1.5 s."), "{public}");
}

#[test]
fn what_is_unproven_has_no_number() {
    for why in [Unproven::Failed, Unproven::TooOld, Unproven::Behind] {
        let unproven = SystemRecovery { unproven: Some(why), ..system("billing", "production", 71_000) };
        let (own, public) = both(vec![system("shop", "production", 402_000), unproven.clone()]);
        for page in [&own, &public] {
            assert!(page.contains("One of two in production: unproven.") && page.contains(why.in_words()), "{page}");
            assert!(!page.contains("You could be back") && !page.contains("Back within") && !page.contains("would be back in"), "{page}");
        }
        let (_, public) = both(vec![unproven]);
        assert!(public.contains("Nothing proves that our database would come back.") && !public.contains("12 min 54 s"), "{public}");
    }
    // A drill that was measured, and that nothing recorded says passed, is none.
    let last = system("shop", "production", 1).last.map(|last| LastDrill { passed: false, ..last });
    let (own, _) = both(vec![SystemRecovery { last, ..system("shop", "production", 1) }]);
    assert!(own.contains("One of one in production: unproven."), "{own}");
    let (own, public) = both(Vec::new());
    assert!(own.contains("No database in production is known here.") && public.contains("No drill failed."), "{public}");
}

#[test]
fn what_failed_and_what_was_done_is_text() {
    let (own, public) = both(vec![system("shop", "production", 1)]);
    for page in [own, public] {
        assert!(page.contains("own check 1: &lt;script&gt; answered") && page.contains("&lt;b&gt;fixed&lt;/b&gt;"), "{page}");
        assert!(!page.contains("<script>") && !page.contains("<b>fixed"), "{page}");
    }
}

#[test]
fn a_promise_is_kept_by_what_holds() {
    let (_, public) = both(vec![system("shop", "production", 1)]);
    assert_eq!((public.matches("li class=\"y\"").count(), public.matches("li class=\"n\"").count()), (4, 0));
    let worse = SystemRecovery { same_blast_radius: true, is_locked: false, tried_apart: false, ..system("shop", "production", 1) };
    let (_, public) = both(vec![system("billing", "production", 1), worse]);
    assert_eq!((public.matches("li class=\"y\"").count(), public.matches("li class=\"n\"").count()), (1, 3));
}
