//! The worst case: nobody asked the gateway. The server is killed, its data directory removed, and production comes back from the
//! vault, as far as the log had come.
//!
//! What was acknowledged and is lost is counted by the client that it was acknowledged to.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::task::JoinHandle;

use super::{Ink, PATIENCE, PRODUCTION, Story, Tables, connect, seconds, text_of, thousands};
use crate::demo::gateway::Trial;

/// How long the company's own application commits before the server dies.
const BUSY: Duration = Duration::from_secs(2);
/// More than that lost at the end is a fault: the log is streamed as it is written.
const LOST_AT_MOST: Duration = Duration::from_secs(10);
/// The application's table, outside of the tables that the story compares.
const APPLICATION: &str = "CREATE SCHEMA app; CREATE TABLE app.commits (n bigint PRIMARY KEY)";
const COMMIT: &str = "INSERT INTO app.commits VALUES ($1)";

impl Story {
    /// Before anything that destroys may even be approved, the copies have to have proved that they come back.
    pub(super) async fn proven(&mut self, trial: JoinHandle<anyhow::Result<Trial>>) -> anyhow::Result<()> {
        self.page.space();
        self.page.doing("production is copied into the vault, and the copy is restored and looked at");
        let trial = trial.await.context("nobody tried the copy")??;
        let size = format!("{} MB, {} MB in the vault", trial.plain_bytes >> 20, trial.stored_bytes >> 20);
        self.page.says(
            "the vault",
            Ink::Plain,
            &format!("has a copy of production since before all this: {size}, in {}", seconds(trial.copied_in)),
        );
        let text = format!("it was restored into a throw-away server: {} checks, back after {}", trial.checks, seconds(trial.back_after));
        self.page.says("", if trial.passed { Ink::Good } else { Ink::Bad }, &text);
        self.must(trial.passed, "the drill must pass");
        Ok(())
    }

    pub(super) async fn worst_case(&mut self, expected: &Tables) -> anyhow::Result<()> {
        self.page.scene(9, "The worst case: past everybody, the disk is gone");
        self.page.says("the company", Ink::Dim, "goes on with its own application, past the gateway: one commit after the other");
        let url = self.company.superuser_url(PRODUCTION);
        let application = tokio::spawn(async move { commit_until_it_ends(&url).await });
        tokio::time::sleep(BUSY).await;
        self.page.says("somebody", Ink::Bold, "kill -9 PRODUCTION; rm -rf PRODUCTION/data");
        self.company.lose_everything()?;
        let acknowledged = tokio::time::timeout(PATIENCE, application).await.context("the application does not notice")???;
        let gone = !self.company.data().exists() && connect(&self.company.superuser_url(PRODUCTION)).await.is_err();
        self.must(gone && !acknowledged.is_empty(), "the server and all of its files must be gone");
        let text = format!("every table is gone, and the log with it; {} commits were acknowledged", thousands(acknowledged.len() as u64));
        self.page.says("", Ink::Warning, &text);

        let to = self.company.data().with_file_name("restored");
        let to = to.to_str().context("a folder's name")?;
        self.page.says("ana", Ink::Bold, "reprieve restore pocket-prod --to NEW --reason 'the disk is gone'");
        self.page.doing("the copy is fetched, checked and opened; the log is replayed");
        let commanded = Instant::now();
        let answer =
            self.gateway.command(&mut self.ana, &["restore", "pocket-prod", "--to", to, "--reason", "the disk is gone"], &[]).await?;
        let point = text_of(&answer["restored"]["point"])?.to_owned();
        self.page.says("ana", Ink::Bold, "mv NEW PRODUCTION/data; pg_ctl start");
        fs::rename(to, self.company.data()).context("cannot put the restored files where the lost ones were")?;
        self.company.resume()?;
        let client = self.company.superuser(PRODUCTION).await?;
        let row = client.query_one("SELECT count(*), coalesce(max(n), 0) FROM app.commits", &[]).await?;
        let took = commanded.elapsed();
        let (back, last): (i64, i64) = (row.get(0), row.get(1));
        let (back, last) = (usize::try_from(back)?, usize::try_from(last)?);
        let text = format!(
            "{point} and {} files of the log: production answers again, {} after the command",
            answer["restored"]["wal_files"],
            seconds(took)
        );
        self.page.says("", Ink::Good, &text);

        let lost = acknowledged.len().saturating_sub(back);
        let span = match (acknowledged.last(), back.checked_sub(1).and_then(|index| acknowledged.get(index))) {
            (Some(end), Some(kept)) => end.duration_since(*kept),
            (Some(_), None) if back == 0 => Duration::MAX,
            _ => Duration::ZERO,
        };
        // One more may be there than was acknowledged: the answer was on its way.
        self.must(
            back == last && back <= acknowledged.len() + 1,
            "what comes back must be the beginning of what was committed, without a gap",
        );
        self.must(span <= LOST_AT_MOST, "only the last moment may be lost");
        self.page.doing("comparing every row with what was there before");
        let same = self.company.tables().await? == *expected;
        self.must(same, "every row of every table must be what it was");
        let text = format!(
            "every row of {} tables is what it was; {} of {} acknowledged commits are lost, the last {} ms",
            expected.len(),
            thousands(lost as u64),
            thousands(acknowledged.len() as u64),
            span.as_millis()
        );
        self.page.says("", if same { Ink::Good } else { Ink::Bad }, &text);
        let outcome = format!("back after {}, {} commits lost ({} ms)", seconds(took), thousands(lost as u64), span.as_millis());
        self.tried("kill -9 and rm -rf of the data, past the gateway", if same && back == last { Ink::Good } else { Ink::Bad }, &outcome);
        Ok(())
    }
}

/// Commits row after row until the server is gone, and tells when each was acknowledged.
async fn commit_until_it_ends(url: &str) -> anyhow::Result<Vec<Instant>> {
    let client = connect(url).await?;
    client.batch_execute(APPLICATION).await?;
    let statement = client.prepare(COMMIT).await?;
    let mut acknowledged = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while client.execute(&statement, &[&(i64::try_from(acknowledged.len())? + 1)]).await.is_ok() {
        acknowledged.push(Instant::now());
        ensure!(Instant::now() < deadline, "the server does not die");
    }
    Ok(acknowledged)
}
