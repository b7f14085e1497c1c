//! Holds as agents and operators meet them: real client, real program, real PostgreSQL.
//!
//! Most tests share one site whose clients wait a second for an answer; each has tables and an agent of its own.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Denied, Site, connect, denied};
use tokio_postgres::SimpleQueryMessage;

/// The site with impatient clients.
fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| Site::open(GatewayOptions::default()).expect("a site"))
}

/// The site whose clients wait two minutes.
fn patient_site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| Site::open(GatewayOptions { wait: "120s".to_owned(), ..GatewayOptions::default() }).expect("a site"))
}

/// The tag of the one statement that was answered.
fn rows(messages: &[SimpleQueryMessage]) -> u64 {
    messages.iter().map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 }).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_delete_is_measured_with_its_cascades_and_rolled_back() -> Result<()> {
    let site = site();
    site.direct(
        "CREATE TABLE cascade_orders (id int PRIMARY KEY);
         CREATE TABLE cascade_lines (id int PRIMARY KEY, order_id int NOT NULL REFERENCES cascade_orders ON DELETE CASCADE);
         INSERT INTO cascade_orders SELECT generate_series(1, 150);
         INSERT INTO cascade_lines SELECT n, 1 + n % 150 FROM generate_series(1, 450) n",
    )?;
    let client = connect(&site.agent("cascades")?).await?;
    let told = denied(client.simple_query("DELETE FROM cascade_orders WHERE id <= 150").await)?;
    assert_eq!(told.code, "RPH01", "{told:?}");
    let hold = site.gateway.hold(&told.hold.context("a hold")?)?;
    assert_eq!(hold["reason"], "measured");
    assert_eq!(hold["reach"]["tables"]["public.cascade_orders"]["deleted"], 150, "{hold}");
    assert_eq!(hold["reach"]["tables"]["public.cascade_lines"]["deleted"], 450, "{hold}");
    assert_eq!((site.count("cascade_orders")?, site.count("cascade_lines")?), (150, 450));
    // The session goes on, and what is within the budget passes.
    assert_eq!(rows(&client.simple_query("DELETE FROM cascade_orders WHERE id <= 2").await?), 2);
    assert_eq!((site.count("cascade_orders")?, site.count("cascade_lines")?), (148, 444));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_and_emptying_are_held_by_their_text() -> Result<()> {
    let site = site();
    site.table("text_drop", 3)?;
    let client = connect(&site.agent("texts")?).await?;
    for text in ["DROP TABLE text_drop", "TRUNCATE text_drop", "ALTER TABLE text_drop DROP COLUMN word"] {
        let told = denied(client.simple_query(text).await)?;
        assert_eq!(told.code, "RPH01", "{text}: {told:?}");
        assert!(told.hint.contains("Silence is not consent"), "{told:?}");
        assert!(told.detail.contains("Nothing was changed"), "{told:?}");
        let hold = site.gateway.hold(&told.hold.context("a hold")?)?;
        assert_eq!((&hold["text"], &hold["agent"]), (&text.into(), &"texts".into()));
    }
    assert_eq!(site.direct("SELECT count(word) FROM text_drop")?, "3");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_gets_the_real_result() -> Result<()> {
    let site = patient_site();
    site.table("waited", 300)?;
    let client = connect(&site.agent("waiter")?).await?;
    let waiting = tokio::spawn(async move {
        let answer = client.simple_query("DELETE FROM waited WHERE id <= 250").await;
        (client, answer)
    });
    let hold = site.gateway.wait_for_hold("waiter", "DELETE FROM waited")?;
    site.gateway.approve_as_asked(hold["id"].as_str().context("an id")?)?;
    let (client, answer) = waiting.await?;
    assert_eq!(rows(&answer?), 250);
    assert_eq!(site.count("waited")?, 50);
    // The same text once more is another operation: it reaches nothing now, and passes.
    assert_eq!(rows(&client.simple_query("DELETE FROM waited WHERE id <= 250").await?), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_approval_is_one_run_for_two_sessions_that_race() -> Result<()> {
    let site = patient_site();
    site.direct("CREATE TABLE raced (id int, by_session text)")?;
    let url = site.agent("racer")?;
    let text = "INSERT INTO raced SELECT n, 'once' FROM generate_series(1, 500) n";
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let client = connect(&url).await?;
        sessions.push(tokio::spawn(async move {
            let answer = client.simple_query(text).await;
            (client, answer)
        }));
    }
    let hold = site.gateway.wait_for_hold("racer", "INSERT INTO raced")?;
    let id = hold["id"].as_str().context("an id")?;
    // All four stand before the same hold.
    assert_eq!(site.gateway.holds()?.iter().filter(|hold| hold["agent"] == "racer").count(), 1);
    site.gateway.approve_as_asked(id)?;
    let done = site.gateway.wait_for_status(id, "finished")?;
    assert_eq!(done["succeeded"], true, "{done}");
    assert_eq!(site.count("raced")?, 500);
    // Whoever lost the race is held anew or told that it ran; let them all go, and not only when their patience ends.
    site.gateway.freeze(Some("racer"))?;
    let mut succeeded = 0;
    for session in sessions {
        let (_client, answer) = tokio::time::timeout(Duration::from_secs(60), session).await.context("a frozen agent still waits")??;
        succeeded += usize::from(answer.is_ok());
    }
    assert_eq!((succeeded, site.count("raced")?), (1, 500));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_run_by_the_gateway_and_its_result_kept_for_one_retry() -> Result<()> {
    let site = site();
    site.table("unattended", 300)?;
    let client = connect(&site.agent("sleeper")?).await?;
    let text = "UPDATE unattended SET word = word || '!' WHERE id <= 200";
    let told = denied(client.simple_query(text).await)?;
    let id = told.hold.context("a hold")?;
    drop(client);
    site.gateway.approve_as_asked(&id)?;
    let done = site.gateway.wait_for_status(&id, "finished")?;
    assert_eq!(done["succeeded"], true, "{done}");
    let changed = || site.direct("SELECT count(*) FILTER (WHERE word LIKE '%!'), count(*) FILTER (WHERE word LIKE '%!!') FROM unattended");
    assert_eq!(changed()?, "200|0");
    let client = connect(&site.gateway.url_for(&url_again(site, "sleeper")?, "shop")).await?;
    let answer = client.simple_query(text).await;
    // A new token is another principal for the rest, the operation is the same: its result was kept.
    assert_eq!(rows(&answer?), 200);
    assert_eq!(changed()?, "200|0");
    Ok(())
}

/// A new token for an agent that has one.
fn url_again(site: &Site, agent: &str) -> Result<String> {
    site.agent(agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_grew_since_is_held_anew() -> Result<()> {
    let site = site();
    site.table("grew", 300)?;
    let client = connect(&site.agent("grower")?).await?;
    let told = denied(client.simple_query("DELETE FROM grew WHERE id > 0").await)?;
    let first = told.hold.context("a hold")?;
    assert_eq!(site.gateway.hold(&first)?["reach"]["tables"]["public.grew"]["deleted"], 300);
    site.direct("INSERT INTO grew SELECT n FROM generate_series(301, 340) n")?;
    site.gateway.approve_as_asked(&first)?;
    let ended = site.gateway.wait_for_status(&first, "finished")?;
    assert_eq!(ended["succeeded"], false, "{ended}");
    assert_eq!(site.count("grew")?, 340);
    let second = site.gateway.wait_for_hold("grower", "DELETE FROM grew")?;
    assert_eq!(second["reach"]["tables"]["public.grew"]["deleted"], 340, "{second}");
    let id = second["id"].as_str().context("an id")?;
    assert_ne!(id, first);
    site.gateway.approve_as_asked(id)?;
    site.gateway.wait_for_status(id, "finished")?;
    assert_eq!(site.count("grew")?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_a_denial_reaches_the_agent() -> Result<()> {
    let site = site();
    site.table("denied_rows", 300)?;
    let client = connect(&site.agent("hopeful")?).await?;
    let text = "DELETE FROM denied_rows WHERE id > 0";
    let id = denied(client.simple_query(text).await)?.hold.context("a hold")?;
    site.gateway.deny(&id, "it matches every row, not the twelve you meant")?;
    let told = denied(client.simple_query(text).await)?;
    assert_eq!(told.code, "RPR01", "{told:?}");
    assert!(told.message.contains("it matches every row, not the twelve you meant"), "{told:?}");
    assert_eq!(site.count("denied_rows")?, 300);
    assert!(site.gateway.approve_as_asked(&id).is_err(), "a denied hold can't be approved");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_requests_join_one_hold() -> Result<()> {
    let site = site();
    site.table("joined", 3)?;
    let url = site.agent("joiner")?;
    let mut holds = Vec::new();
    for _ in 0..3 {
        let client = connect(&url).await?;
        holds.push(denied(client.simple_query("DROP TABLE joined").await)?.hold.context("a hold")?);
    }
    assert!(holds.iter().all(|hold| *hold == holds[0]), "{holds:?}");
    // Another text, another agent, another system: other holds.
    let client = connect(&url).await?;
    let other = denied(client.simple_query("DROP TABLE joined CASCADE").await)?.hold.context("a hold")?;
    let client = connect(&site.agent("joiner-2")?).await?;
    let others = denied(client.simple_query("DROP TABLE joined").await)?.hold.context("a hold")?;
    let client = connect(&site.gateway.url_for(&url, "lab")).await?;
    let elsewhere = denied(client.simple_query("DROP TABLE joined").await)?.hold.context("a hold")?;
    let mut all = vec![holds[0].clone(), other, others, elsewhere];
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_it_acts_for_is_not_enough() -> Result<()> {
    let site = site();
    site.table("on_behalf", 3)?;
    let url = site.gateway.agent_with("helper", &["shop"], "read,write,destroy", &["--on-behalf-of", "ana"])?;
    let client = connect(&url).await?;
    let id = denied(client.simple_query("DROP TABLE on_behalf").await)?.hold.context("a hold")?;
    let confirm = site.gateway.hold(&id)?["confirm"].as_str().context("a name")?.to_owned();
    let own = site.gateway.operate_as("ana", &["hold", "approve", &id, "--confirm", &confirm]);
    assert_ne!(site.gateway.hold(&id)?["status"], "approved", "{own:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.count("on_behalf")?, 3, "the gateway ran it with its own operator's approval only");
    site.gateway.approve(&id, &confirm)?;
    site.gateway.wait_for_status(&id, "finished")?;
    assert!(site.count("on_behalf").is_err(), "it is dropped now");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_people_are_asked_as_the_estimate_takes() -> Result<()> {
    let rule = r#"@id("two") @reason("it takes away {rows.in_words}") @remedy("ask two people")
        forbid (principal is Agent, action == Action::"destroy", resource) when { context.rows > 200 } unless { context.approvals >= 2 };"#;
    let policies = vec![("two.cedar".to_owned(), rule.to_owned())];
    let site = Site::open(GatewayOptions { policies, ..GatewayOptions::default() })?;
    site.table("emptied", 500)?;
    site.direct("ANALYZE emptied")?;
    let client = connect(&site.agent("emptier")?).await?;
    // The text alone would take one person, whatever it empties.
    let id = denied(client.simple_query("TRUNCATE emptied").await)?.hold.context("a hold")?;
    let hold = site.gateway.hold(&id)?;
    assert_eq!(hold["needs"]["approvals"], 2, "{hold}");
    let confirm = hold["confirm"].as_str().context("a name")?;
    site.gateway.operate_as("ana", &["hold", "approve", &id, "--confirm", confirm])?;
    assert_eq!(site.gateway.hold(&id)?["status"], "waiting");
    site.gateway.operate_as("jonas", &["hold", "approve", &id, "--confirm", confirm])?;
    site.gateway.wait_for_status(&id, "finished")?;
    assert_eq!(site.count("emptied")?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_name_is_no_approval() -> Result<()> {
    let site = site();
    site.table("named", 3)?;
    let client = connect(&site.agent("namer")?).await?;
    let id = denied(client.simple_query("TRUNCATE named").await)?.hold.context("a hold")?;
    assert!(site.gateway.approve(&id, "nmaed").is_err());
    assert_eq!(site.gateway.hold(&id)?["status"], "waiting");
    assert_eq!(site.count("named")?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_measured_at_its_commit_and_released_for_one_replay() -> Result<()> {
    let site = site();
    site.table("committed", 3000)?;
    let client = connect(&site.agent("committer")?).await?;
    let story = ["BEGIN", "DELETE FROM committed WHERE id <= 1500", "UPDATE committed SET word = 'kept' WHERE id > 2990"];
    for text in story {
        client.simple_query(text).await?;
    }
    let told = denied(client.simple_query("COMMIT").await)?;
    assert_eq!(told.code, "RPH01", "{told:?}");
    assert_eq!(site.count("committed")?, 3000);
    let id = told.hold.context("a hold")?;
    let hold = site.gateway.hold(&id)?;
    assert_eq!(hold["reach"]["tables"]["public.committed"]["deleted"], 1500, "{hold}");
    // A transaction can't be run by anybody else.
    site.gateway.approve_as_asked(&id)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.count("committed")?, 3000);
    for text in story {
        client.simple_query(text).await?;
    }
    client.simple_query("COMMIT").await?;
    assert_eq!(site.count("committed")?, 1500);
    // Once: the same again is measured anew, and touches little now.
    let done = site.gateway.wait_for_status(&id, "finished")?;
    assert_eq!(done["succeeded"], true);
    Ok(())
}

/// A site of its own with undo, whose database has no code of users'.
fn guarded() -> Result<Site> {
    let server = Postgres::start_with(&PostgresOptions::default())?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let url = server.url("app", "secret", "shop");
    let admin_url = Some(server.superuser_url("shop"));
    let systems = vec![GuardedSystem { admin_url, ..GuardedSystem::new("shop", "production", &url) }];
    let options = GatewayOptions { systems, wait: "0s".to_owned(), open_holds: 100, rows_without_undo: 0, ..GatewayOptions::default() };
    Ok(Site { gateway: Gateway::start(options)?, server })
}

/// Runs a transaction, and answers how its COMMIT went.
async fn transaction(client: &tokio_postgres::Client, statements: &[&str]) -> Result<Result<(), Denied>> {
    client.simple_query("BEGIN").await?;
    for text in statements {
        if let Err(error) = client.simple_query(text).await {
            let told = denied(Err(error))?;
            client.simple_query("ROLLBACK").await?;
            return Ok(Err(told));
        }
    }
    match client.simple_query("COMMIT").await {
        Ok(_) => Ok(Ok(())),
        Err(error) => Ok(Err(denied(Err(error))?)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tool_notes_at_the_end_may_differ_and_nothing_else() -> Result<()> {
    // Without code of users': a database of its own.
    let site = guarded()?;
    site.table("stamped", 3000)?;
    site.table("other_stamped", 3000)?;
    site.direct("CREATE TABLE ran (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text, at timestamptz, n int)")?;
    site.direct("CREATE TABLE ran_too (id serial PRIMARY KEY, name text, at timestamptz)")?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let url = site.gateway.agent("migrator", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    let delete = "DELETE FROM stamped WHERE id <= 1500";
    let ran = |at: &str| format!("INSERT INTO ran (name, at) VALUES ('0006_forget', '{at}'::timestamptz) RETURNING ran.id");
    let first = ran("2026-11-22 10:00:00+00");
    let told = transaction(&client, &[delete, &first]).await?.expect_err("too many rows");
    let hold = told.hold.clone().with_context(|| format!("a hold: {told:?}"))?;
    let text = site.gateway.hold(&hold)?["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains(&first) && text.contains("the values of the last 1 may be others"), "{text}");
    site.gateway.approve_as_asked(&hold)?;
    // Each of these is another transaction, and is held anew: the approval is not for it.
    let other = ran("2026-11-22 10:00:01+00");
    let more = format!("{other}; ");
    let tries: [&[&str]; 12] = [
        &["DELETE FROM stamped WHERE id > 1500", &other],
        &["DELETE FROM other_stamped WHERE id <= 1500", &other],
        &["DELETE FROM stamped WHERE id <= 1500 ", "DELETE FROM other_stamped WHERE id <= 1500", &other],
        &[delete],
        &[delete, "INSERT INTO ran_too (name, at) VALUES ('0006_forget', '2026-11-22'::timestamptz) RETURNING ran_too.id"],
        &[delete, "INSERT INTO ran (name, at) VALUES ('a', '2026-11-22'::timestamptz), ('b', '2026-11-22'::timestamptz) RETURNING ran.id"],
        &[delete, &other, &other],
        &[&other, delete],
        &[delete, "INSERT INTO ran (name, at) SELECT word, '2026-11-22'::timestamptz FROM stamped RETURNING ran.id"],
        &[delete, "INSERT INTO ran (name, at) VALUES ('0006_forget', '2026-11-22'::timestamptz) RETURNING ran.id, pg_sleep(0)"],
        &[delete, "UPDATE ran SET name = '0006_forget'", &other],
        &[delete, &more, "DELETE FROM other_stamped WHERE id IN (SELECT n FROM ran)"],
    ];
    for statements in tries {
        let told = transaction(&client, statements).await?.expect_err("it is another transaction");
        assert_eq!(told.code, "RPH01", "{statements:?}: {told:?}");
        assert_ne!(told.hold.as_deref(), Some(hold.as_str()), "{statements:?}");
        assert_eq!(site.gateway.hold(&hold)?["status"], "approved", "{statements:?}");
    }
    assert_eq!((site.count("stamped")?, site.count("other_stamped")?, site.count("ran")?), (3000, 3000, 0));
    // The same with another time, twice at once: one of them is final.
    let (one, two) = (ran("2026-11-22 10:07:00+00"), ran("2026-11-22 10:07:01+00"));
    let racer = connect(&url).await?;
    let (statements, others) = ([delete, &one], [delete, &two]);
    let (left, right) = tokio::join!(transaction(&client, &statements), transaction(&racer, &others));
    let (left, right) = (left?, right?);
    // Whoever comes second finds nothing left to delete: that needs no approval.
    let done = u64::from(left.is_ok()) + u64::from(right.is_ok());
    assert!(done > 0, "{left:?} {right:?}");
    assert_eq!((site.count("stamped")?, site.count("ran")?), (1500, done));
    assert_eq!(site.gateway.wait_for_status(&hold, "finished")?["succeeded"], true);
    // One approval is one run.
    site.direct("INSERT INTO stamped SELECT generate_series(1, 1500) ON CONFLICT DO NOTHING")?;
    let told = transaction(&client, &[delete, &ran("2026-11-22 10:08:00+00")]).await?.expect_err("it was used");
    assert_ne!(told.hold.as_deref(), Some(hold.as_str()), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_values_can_steer_something_they_are_a_part_of_what_is_approved() -> Result<()> {
    let site = guarded()?;
    site.table("steered", 3000)?;
    site.direct("CREATE TABLE picked (n int, name text)")?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let client = connect(&site.gateway.agent("picker", &["shop"], "read,write,destroy,grant")?).await?;
    let by_picked = "DELETE FROM steered WHERE id <= 1500 AND id > (SELECT max(n) FROM picked)";
    let pick = |n: u32| format!("INSERT INTO picked VALUES ({n}, 'x')");
    let steps: [(&str, [String; 2], [String; 2]); 2] = [
        // Read by what runs later.
        ("", [pick(0), by_picked.to_owned()], [pick(10), by_picked.to_owned()]),
        // Read by a trigger of the table, and so by anything that it does.
        (
            "CREATE FUNCTION takes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM steered WHERE id > 2000 AND id <= 2000 + NEW.n; RETURN NULL; END$$;              CREATE TRIGGER takes AFTER INSERT ON picked FOR EACH ROW EXECUTE FUNCTION takes()",
            ["DELETE FROM steered WHERE id <= 1500".to_owned(), pick(9)],
            ["DELETE FROM steered WHERE id <= 1500".to_owned(), pick(8)],
        ),
    ];
    for (before, approved, other) in steps {
        if !before.is_empty() {
            site.direct(before)?;
            tokio::time::sleep(Duration::from_secs(2)).await; // the gateway looks at definitions again
        }
        let texts = |statements: &[String; 2]| [statements[0].clone(), statements[1].clone()];
        let run = async |statements: [String; 2]| transaction(&client, &[&statements[0], &statements[1]]).await;
        let hold = run(texts(&approved)).await?.expect_err("too many rows").hold.context("a hold")?;
        site.gateway.approve_as_asked(&hold)?;
        let told = run(other).await?.expect_err("another value is another transaction");
        assert!(told.hold.is_some() && told.hold.as_deref() != Some(hold.as_str()), "{told:?}");
        assert_eq!(site.count("steered")?, 3000);
    }
    Ok(())
}

/// The changes, newest first, once there are so many: what became of one is recorded a moment after its client hears.
async fn changes(site: &Site, count: usize) -> Result<Vec<serde_json::Value>> {
    let mut changes = Vec::new();
    for _ in 0..50 {
        changes = site.gateway.json(&["undo", "list", "--json"])?["changes"].as_array().cloned().unwrap_or_default();
        if changes.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(changes.len(), count, "{changes:?}");
    Ok(changes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_type_takes_nothing_from_a_table_without_rows() -> Result<()> {
    let site = guarded()?;
    site.direct("CREATE TABLE bare (id int PRIMARY KEY, a int, b varchar(9)); CREATE TABLE bare_too (id int PRIMARY KEY, a int); CREATE TYPE spare AS ENUM ('x')")?;
    site.table("filled", 1)?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let client = connect(&site.gateway.agent("typist", &["shop"], "read,write,destroy,grant")?).await?;
    client.simple_query("ALTER TABLE bare ALTER COLUMN a TYPE bigint").await?;
    assert!(
        transaction(&client, &["ALTER TABLE bare ALTER COLUMN b TYPE varchar(20)", "ALTER TABLE bare_too ALTER COLUMN a TYPE text"])
            .await?
            .is_ok()
    );
    let changes = changes(&site, 2).await?;
    assert!(changes.iter().all(|change| change["standing"] == "undoable"), "{changes:?}");
    // With rows in it, or with anything besides, people are asked.
    let tries: [&[&str]; 6] = [
        &["ALTER TABLE filled ALTER COLUMN word TYPE varchar(3)"],
        &["INSERT INTO bare VALUES (1)", "ALTER TABLE bare ALTER COLUMN b TYPE int USING 7"],
        &["ALTER TABLE bare ALTER COLUMN b TYPE varchar(30)", "TRUNCATE filled"],
        &["ALTER TABLE bare ALTER COLUMN b TYPE varchar(30)", "DROP TYPE spare"],
        &["ALTER TABLE bare ALTER COLUMN b TYPE varchar(30)", "DO $$ BEGIN TRUNCATE bare; EXECUTE 'DROP TYPE spare'; END $$"],
        &["ALTER TABLE bare ALTER COLUMN b TYPE varchar(30), DROP COLUMN a"],
    ];
    for statements in tries {
        let told = transaction(&client, statements).await?.expect_err("people are asked");
        assert_eq!(told.code, "RPH01", "{statements:?}: {told:?}");
    }
    let ids: Vec<&str> = changes.iter().filter_map(|change| change["id"].as_str()).collect();
    site.gateway.operate(&[&["undo", "apply"], ids.as_slice()].concat())?;
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attrelid, attnum) FROM pg_attribute WHERE attnum > 1 AND NOT attisdropped AND attrelid IN ('bare'::regclass, 'bare_too'::regclass)";
    assert_eq!(site.direct(types)?, "integer character varying(9) integer");
    // The other tables are as they were.
    assert_eq!((site.count("filled")?, site.count("bare")?), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_of_a_table_made_just_now_asks_nobody() -> Result<()> {
    let site = guarded()?;
    site.table("old_parent", 3)?;
    site.direct("CREATE TABLE old_child (id int PRIMARY KEY, parent int)")?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let url = site.gateway.agent("modeller", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    client.simple_query("SELECT count(*) FROM old_parent").await?;
    for name in ["one", "two", "three"] {
        client.simple_query(&format!("CREATE TABLE {name} (id int PRIMARY KEY, parent int, note text)")).await?;
    }
    let key = |table: &str, action: &str| {
        format!("ALTER TABLE {table} ADD CONSTRAINT {table}_{} FOREIGN KEY (parent) REFERENCES old_parent {action}", action.len())
    };
    client.simple_query(&key("one", "ON DELETE no action ON UPDATE no action")).await?;
    assert!(transaction(&client, &[&key("two", "ON DELETE RESTRICT"), &key("three", "")]).await?.is_ok());
    let other = connect(&url).await?;
    // Of a table that was there before, or in another session; one that changes others' rows; one with anything besides.
    let tries = [
        (&client, key("old_child", "")),
        (&other, key("one", "ON UPDATE RESTRICT")),
        (&client, key("one", "ON DELETE CASCADE")),
        (&client, key("one", "ON DELETE SET NULL")),
        (&client, key("one", "ON UPDATE CASCADE")),
        (&client, format!("{}, ADD CHECK (parent > 0)", key("one", "ON UPDATE RESTRICT"))),
        (&client, format!("{}; GRANT ALL ON one TO PUBLIC", key("one", "ON UPDATE RESTRICT"))),
        (&client, "ALTER TABLE one DROP CONSTRAINT one_37".to_owned()),
    ];
    for (client, text) in tries {
        let told = denied(client.simple_query(&text).await).with_context(|| text.clone())?;
        assert_eq!(told.code, "RPH01", "{text}: {told:?}");
    }
    let changes = changes(&site, 5).await?;
    let ids: Vec<&str> = changes.iter().filter_map(|change| change["id"].as_str()).collect();
    site.gateway.operate(&[&["undo", "apply"], ids.as_slice()].concat())?;
    assert_eq!(site.direct("SELECT count(*) FROM pg_constraint WHERE contype = 'f'")?, "0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_statements_make_a_transaction_that_no_single_one_could() -> Result<()> {
    let site = site();
    site.table("steps", 2_000)?;
    let client = connect(&site.agent("stepwise")?).await?;
    let step = |number: i32| (1 + number * 80, (number + 1) * 80);
    client.batch_execute("BEGIN").await?;
    for number in 0..6 {
        let (first, last) = step(number);
        client.batch_execute(&format!("DELETE FROM steps WHERE id BETWEEN {first} AND {last}")).await?;
    }
    let statement = client.prepare("DELETE FROM steps WHERE id BETWEEN $1 AND $2").await?;
    for number in 6..12 {
        let (first, last) = step(number);
        client.execute(&statement, &[&first, &last]).await?;
    }
    client.batch_execute("COMMIT").await?;
    assert_eq!(site.count("steps")?, 1_040);
    client.batch_execute("BEGIN; DELETE FROM steps WHERE id BETWEEN 1001 AND 1080").await?;
    client.execute(&statement, &[&1_101, &1_250]).await?;
    let told = denied(client.simple_query("COMMIT").await)?;
    assert_eq!((told.code.as_str(), told.message.contains("up to 150 rows")), ("RPH01", true), "{told:?}");
    assert_eq!(site.count("steps")?, 1_040);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_inside_a_transaction_is_released_once() -> Result<()> {
    let site = site();
    site.table("inner_drop", 3)?;
    let client = connect(&site.agent("inner")?).await?;
    client.simple_query("BEGIN").await?;
    let told = denied(client.simple_query("DROP TABLE inner_drop").await)?;
    assert_eq!(told.code, "RPH01", "{told:?}");
    client.simple_query("ROLLBACK").await?;
    site.gateway.approve_as_asked(&told.hold.context("a hold")?)?;
    client.simple_query("BEGIN").await?;
    client.simple_query("DROP TABLE inner_drop").await?;
    client.simple_query("ROLLBACK").await?;
    assert_eq!(site.count("inner_drop")?, 3);
    // What was rolled back has used nothing up; what is final has.
    client.simple_query("BEGIN").await?;
    client.simple_query("DROP TABLE inner_drop").await?;
    client.simple_query("COMMIT").await?;
    assert!(site.count("inner_drop").is_err(), "it is dropped now");
    site.table("inner_drop", 3)?;
    client.simple_query("BEGIN").await?;
    let again = denied(client.simple_query("DROP TABLE inner_drop").await)?;
    assert!(again.code == "RPH01" || again.code == "RPR01", "{again:?}");
    client.simple_query("ROLLBACK").await?;
    assert_eq!(site.count("inner_drop")?, 3);
    Ok(())
}

/// Each statement is asked about by itself, and an approval waits for the transaction that becomes final.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_drops_twice_needs_two_approvals() -> Result<()> {
    let site = site();
    site.table("twice_first", 3)?;
    site.table("twice_second", 3)?;
    let url = site.agent("twice")?;
    let client = connect(&url).await?;
    let mut approved: Vec<String> = Vec::new();
    for round in 0..3 {
        client.simple_query("BEGIN").await?;
        let mut held: Option<String> = None;
        for text in ["DROP TABLE twice_first", "DROP TABLE twice_second"] {
            match client.simple_query(text).await {
                Ok(_) => {}
                answer => {
                    held = denied(answer)?.hold;
                    break;
                }
            }
        }
        let Some(hold) = held else {
            assert_eq!(round, 2, "{approved:?}");
            // An approval that another session draws on as well is good for one of both.
            let other = connect(&url).await?;
            other.simple_query("BEGIN").await?;
            let waits = tokio::spawn(async move {
                let dropped = other.simple_query("DROP TABLE IF EXISTS twice_first, twice_second").await;
                (other, dropped.is_ok())
            });
            client.simple_query("COMMIT").await?;
            let (_other, was_free) = waits.await?;
            assert!(!was_free, "another text has another approval");
            assert!(site.count("twice_first").is_err() && site.count("twice_second").is_err(), "both are dropped");
            for hold in &approved {
                site.gateway.wait_for_status(hold, "finished")?;
            }
            return Ok(());
        };
        client.simple_query("ROLLBACK").await?;
        site.gateway.approve_as_asked(&hold)?;
        approved.push(hold);
    }
    anyhow::bail!("two approvals were not enough: {approved:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_approval_in_two_transactions_is_final_in_one() -> Result<()> {
    let site = site();
    site.table("shared_empty", 3)?;
    let url = site.agent("sharer")?;
    let (first, second) = (connect(&url).await?, connect(&url).await?);
    first.simple_query("BEGIN").await?;
    let hold = denied(first.simple_query("TRUNCATE shared_empty").await)?.hold.context("a hold")?;
    first.simple_query("ROLLBACK").await?;
    site.gateway.approve_as_asked(&hold)?;
    first.simple_query("BEGIN").await?;
    second.simple_query("BEGIN").await?;
    first.simple_query("TRUNCATE shared_empty").await?;
    // The same approval twice in one transaction is refused; in another one it waits for the table.
    let waits = tokio::spawn(async move {
        second.simple_query("TRUNCATE shared_empty").await?;
        second.simple_query("COMMIT").await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.simple_query("COMMIT").await?;
    site.direct("INSERT INTO shared_empty SELECT generate_series(1, 5)")?;
    assert!(waits.await?.is_err(), "one approval was final twice");
    assert_eq!(site.count("shared_empty")?, 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_a_part_of_what_is_approved() -> Result<()> {
    let site = site();
    site.table("bound", 500)?;
    let client = connect(&site.agent("binder")?).await?;
    let statement = client.prepare("DELETE FROM bound WHERE id <= $1").await?;
    let error = client.execute(&statement, &[&200_i32]).await.expect_err("held");
    assert_eq!(error.code().map(|code| code.code()), Some("RPH01"), "{error}");
    let hold = site.gateway.wait_for_hold("binder", "DELETE FROM bound")?;
    site.gateway.approve_as_asked(hold["id"].as_str().context("an id")?)?;
    let error = client.execute(&statement, &[&300_i32]).await.expect_err("other parameters are another operation");
    assert_eq!(error.code().map(|code| code.code()), Some("RPH01"), "{error}");
    assert_eq!(site.count("bound")?, 500);
    assert_eq!(client.execute(&statement, &[&200_i32]).await?, 200);
    assert_eq!(site.count("bound")?, 300);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freezing_cancels_what_runs_and_thawing_restores() -> Result<()> {
    let site = site();
    let url = site.agent("frozen")?;
    let client = connect(&url).await?;
    let idle = connect(&url).await?;
    let running = tokio::spawn(async move { denied(client.simple_query("SELECT pg_sleep(600)").await) });
    let deadline = Instant::now() + Duration::from_secs(30);
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'";
    while site.server.psql("shop", sleeping)? == "0" {
        assert!(Instant::now() < deadline, "the statement never ran");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.gateway.freeze(Some("frozen"))?;
    // Far less than what it would have slept.
    let told = tokio::time::timeout(Duration::from_secs(60), running).await??;
    match told {
        Ok(told) => assert!(["57014", "RPF01"].contains(&told.code.as_str()), "{told:?}"),
        Err(error) => assert!(format!("{error:#}").contains("closed"), "{error:#}"),
    }
    assert_eq!(site.server.psql("shop", sleeping)?, "0");
    if !idle.is_closed() {
        match denied(idle.simple_query("SELECT 1").await) {
            Ok(told) => assert_eq!(told.code, "RPF01", "{told:?}"),
            Err(error) => assert!(format!("{error:#}").contains("closed"), "{error:#}"),
        }
    }
    let turned_away = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
    if let Ok((client, connection)) = turned_away {
        tokio::spawn(connection);
        assert_eq!(denied(client.simple_query("SELECT 1").await)?.code, "RPF01");
    }
    site.gateway.thaw(Some("frozen"))?;
    connect(&url).await?.simple_query("SELECT 1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bait_freezes_whoever_takes_it() -> Result<()> {
    let site = site();
    let made = site.gateway.operate(&["agent", "decoy", "old-deploy-token"])?;
    let url = made["url"].as_str().context("a URL")?;
    assert!(connect(&site.gateway.url_for(url, "shop")).await.is_err());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let events = site.gateway.events()?;
        if events.iter().any(|event| event["event"]["event"] == "decoy_presented") {
            break;
        }
        assert!(Instant::now() < deadline, "no alarm was recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let agents = site.gateway.json(&["agent", "list", "--json"])?;
    let bait = agents["agents"].as_array().into_iter().flatten().find(|agent| agent["agent"] == "old-deploy-token").cloned();
    assert!(bait.as_ref().is_some_and(|agent| !agent["frozen"].is_null()), "{bait:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_stops_where_it_is() -> Result<()> {
    let site = site();
    site.table("revoked_rows", 3)?;
    let url = site.agent("revoked")?;
    let client = connect(&url).await?;
    client.simple_query("BEGIN; DELETE FROM revoked_rows WHERE id = 1").await?;
    let reader = connect(&url).await?;
    reader.simple_query("SELECT count(*) FROM revoked_rows").await?;
    site.gateway.operate(&["agent", "revoke", "revoked"])?;
    for (client, text) in [(client, "COMMIT"), (reader, "SELECT count(*) FROM revoked_rows")] {
        match denied(client.simple_query(text).await) {
            Ok(told) => assert_eq!(told.code, "RPR01", "{told:?}"),
            Err(error) => assert!(format!("{error:#}").contains("closed"), "{text}: {error:#}"),
        }
    }
    assert_eq!(site.count("revoked_rows")?, 3);
    assert!(connect(&url).await.is_err(), "a revoked token still gets in");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_survive_a_restart_and_end_by_themselves() -> Result<()> {
    let options = GatewayOptions { expire: "45s".to_owned(), open_holds: 3, ..GatewayOptions::default() };
    let mut site = Site::open(options)?;
    site.table("restarted", 300)?;
    let url = site.agent("survivor")?;
    let client = connect(&url).await?;
    let text = "DELETE FROM restarted WHERE id <= 250";
    let id = denied(client.simple_query(text).await)?.hold.context("a hold")?;
    drop(client);
    site.gateway.restart()?;
    site.gateway.approve_as_asked(&id)?;
    site.gateway.wait_for_status(&id, "finished")?;
    assert_eq!(site.count("restarted")?, 50);

    // Three may wait at a time; the fourth isn't even asked about.
    let client = connect(&url).await?;
    for index in ["a", "b", "c"] {
        site.table(&format!("flood_{index}"), 3)?;
        assert_eq!(denied(client.simple_query(&format!("DROP TABLE flood_{index}")).await)?.code, "RPH01");
    }
    let told = denied(client.simple_query("DROP TABLE restarted").await)?;
    assert_eq!(told.code, "RPR01", "{told:?}");
    assert!(told.detail.contains("open-holds"), "{told:?}");
    // What is not asked about is still done.
    client.simple_query("DELETE FROM restarted WHERE id = 300").await?;

    // Nobody answers: denied, and nothing has happened.
    let first = site.gateway.wait_for_hold("survivor", "flood_a");
    let id = match &first {
        Ok(hold) => hold["id"].as_str().context("an id")?.to_owned(),
        Err(_) => site.gateway.holds()?.iter().find(|hold| hold["text"] == "DROP TABLE flood_a").context("a hold")?["id"].to_string(),
    };
    let id = id.trim_matches('"');
    let deadline = Instant::now() + Duration::from_secs(180);
    while site.gateway.hold(id)?["status"] != "expired" {
        assert!(Instant::now() < deadline, "the hold never ended");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(site.gateway.approve_as_asked(id).is_err(), "too late");
    assert_eq!(site.count("flood_a")?, 3);
    site.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_gateway_is_killed() -> Result<()> {
    let mut site = Site::open(GatewayOptions::default())?;
    site.direct("CREATE TABLE acknowledged (writer int, n int, PRIMARY KEY (writer, n))")?;
    let url = site.agent("writer")?;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let client = connect(&url).await?;
        writers.push(tokio::spawn(async move {
            let mut done = 0_u64;
            while client.simple_query(&format!("INSERT INTO acknowledged VALUES ({writer}, {done})")).await.is_ok() {
                done += 1;
            }
            done
        }));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while site.count("acknowledged")? < 100 {
        assert!(Instant::now() < deadline, "the writers don't write:\n{}", site.gateway.log());
    }
    site.gateway.kill_now()?;
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await?;
    }
    let found = site.count("acknowledged")?;
    // Each of the four may have one more that was final before its answer was on the way.
    assert!((acknowledged..=acknowledged + 4).contains(&found), "{acknowledged} acknowledged, {found} found");
    site.gateway.restart()?;
    site.gateway.verify()?;
    let events = site.gateway.events()?;
    let (mut intents, mut outcomes, mut done) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::new(), 0);
    for event in &events {
        let event = &event["event"];
        match event["event"].as_str() {
            Some("intent") => drop(intents.insert(event["intent"].to_string())),
            Some("concluded") => {
                *outcomes.entry(event["intent"].to_string()).or_insert(0) += 1;
                done += u64::from(event["outcome"] == "done");
            }
            _ => {}
        }
    }
    assert!(intents.len() as u64 >= found, "{found} rows, {} intents: something ran unrecorded", intents.len());
    let odd: Vec<_> = intents.iter().filter(|intent| outcomes.get(*intent) != Some(&1)).collect();
    let about = |event: &&serde_json::Value| odd.contains(&&event["event"]["intent"].to_string());
    assert!(odd.is_empty(), "not exactly one outcome: {:?}", events.iter().filter(about).collect::<Vec<_>>());
    assert!(done <= found, "{done} recorded as done, {found} rows");
    Ok(())
}

#[test]
fn the_ledger_of_all_this_verifies() -> Result<()> {
    let site = site();
    site.agent("verified")?;
    let report = site.gateway.verify()?;
    assert_eq!(report["verified"], true, "{report}");
    assert!(report["events"].as_u64().is_some_and(|events| events > 3), "{report}");
    Ok(())
}
