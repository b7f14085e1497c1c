//! A person is wrong, too: what was approved by mistake and is final comes back.

use super::{Ink, Story, ask, brief, connect, rows, text_of, thousands};

/// What a person approves and regrets: what it is called, the statement, and why it comes back.
const MISTAKES: [(&str, &str, &str); 2] = [
    ("DELETE", "DELETE FROM public.reservations WHERE status = 'cancelled'", "they are needed for refunds"),
    (
        "DROP TABLE",
        "DROP TABLE public.locations, public.vehicles, public.customers, public.reservations, public.reservation_items, public.invoices, \
         public.invoice_lines, public.payments CASCADE",
        "that was production",
    ),
];

impl Story {
    /// Each is approved, and brought back.
    pub(super) async fn mistakes(&mut self) -> anyhow::Result<()> {
        self.page.scene(5, "Approved by mistake: and brought back");
        for (name, statement, reason) in MISTAKES {
            self.mistake(name, statement, reason).await?;
        }
        Ok(())
    }

    async fn mistake(&mut self, name: &str, statement: &str, reason: &str) -> anyhow::Result<()> {
        self.page.doing("a digest of every row of production");
        let before = self.company.tables().await?;
        let client = connect(&self.migrations).await?;
        self.page.says("migrations", Ink::Bold, statement);
        self.page.doing("the gateway looks at what it reaches");
        let answer = ask(&client, statement).await?;
        let Some(hold) = self.held(&format!("a {name} that nobody should approve"), &answer) else { return Ok(()) };
        let held = self.gateway.hold(hold).await?;
        let id = hold.to_string();
        self.page.says("", Ink::Warning, &format!("held {hold}: {}", brief(&held.reach)));
        self.page.says("jonas", Ink::Bold, &format!("reprieve hold approve {hold} --confirm {}", held.confirm));
        self.page.doing("it is approved, and runs");
        self.gateway.command(&mut self.jonas, &["hold", "approve", &id, "--confirm", &held.confirm], &[]).await?;
        self.wait_until_finished(hold).await?;
        let gone = self.company.tables().await?;
        let lost = rows(&before).saturating_sub(rows(&gone));
        self.must(lost > 0, "what was approved must have run");
        let destroyed = self.gateway.ledger_time("hold_released", "hold_finished").await?;
        let took = |time: std::time::Duration| format!("{:.2} s", time.as_secs_f64());
        self.page.says("", Ink::Warning, &format!("{} rows are gone from production, after {}", thousands(lost), took(destroyed)));

        let listed = self.gateway.json(&["undo", "list", "--limit", "1"], &[], "").await?;
        let change = text_of(&listed["changes"][0]["id"])?.to_owned();
        self.page.says("jonas", Ink::Bold, &format!("reprieve undo apply {change} --reason '{reason}'"));
        self.page.doing("it is put back, checked, and made final");
        self.gateway.command(&mut self.jonas, &["undo", "apply", &change, "--reason", reason], &[]).await?;
        let brought_back = self.gateway.ledger_time("undo_started", "concluded").await?;
        let after = self.company.tables().await?;
        let same = after == before;
        self.must(same, "after the undo every row must be what it was");
        let text = format!("{} rows are back after {}, byte for byte", thousands(lost), took(brought_back));
        let ink = if same { Ink::Good } else { Ink::Bad };
        self.page.says("", ink, &text);
        let outcome = format!("approved, gone in {}, back in {}", took(destroyed), took(brought_back));
        self.tried(&format!("{name} of {}, approved by mistake", thousands(lost)), ink, &outcome);
        Ok(())
    }
}
