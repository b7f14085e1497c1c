//! Trials: what something would reach, found by running it in a transaction that is rolled back, or from the catalogue.

use reprieve_operation::{Effect, Reach};

use crate::{
    replies::{Asked, Route},
    run::Message,
    secured::Secured,
    session::Ends,
};

impl Ends {
    /// What a trial finds is judged as if it ran for good.
    pub(crate) async fn secure_trial(&mut self, effects: &[Effect]) {
        self.secured = Secured { on_trial: Some(self.system.measure_limit), ..Secured::default() };
        self.secured.note(effects);
        let system = self.system.clone();
        self.secured.definitions(&system).await;
    }

    /// What a statement that drops or empties whole relations would reach, from the catalogue, without running it.
    pub(crate) async fn estimate_wholesale(&mut self, effects: &[Effect]) -> Option<Reach> {
        let view = self.system.fresh_view().await?;
        let mut reach = crate::estimate::wholesale(&view, effects, self.system.measure_limit)?;
        self.secured.foretell(&self.system, &view, effects, &mut reach);
        Some(reach)
    }

    /// Runs a text in a transaction that is rolled back, to measure it.
    pub(crate) async fn trial(&mut self, text: &str, effects: &[Effect]) -> Option<Reach> {
        if effects.iter().any(|effect| matches!(effect, Effect::Escape { .. } | Effect::Unknown { .. })) || self.wire.status != b'I' {
            return None;
        }
        self.make_baseline().await.ok()?;
        self.wire.hide_ready = true;
        let _begun = self.wire.ask("BEGIN").await.ok()?;
        if self.keep_empty().await.is_err() {
            self.rollback().await.ok()?;
            return None;
        }
        self.wire.send_query(text, Route::Swallow, usize::MAX);
        self.wire.settle_or_copy().await.ok()?;
        if self.wire.copying {
            self.wire.copying = false;
            reprieve_pgwire::write::copy_fail(&mut self.wire.server.output, "measured only").ok()?;
            self.wire.settle().await.ok()?;
        }
        // What the server itself refuses reaches nothing; run for good, its error is the answer.
        let refused = self.wire.status == b'E';
        let measured = if refused { None } else { self.measure().await.ok().flatten() };
        if let Some(measured) = &measured {
            self.take_samples(&measured.reach, effects).await;
        }
        self.rollback().await.ok()?;
        if refused { Some(Reach::default()) } else { measured.map(|measured| measured.reach) }
    }

    /// The same for a batch of extended messages.
    pub(crate) async fn trial_batch(&mut self, messages: &mut [Message], effects: &[Effect]) -> Option<Reach> {
        if effects.iter().any(|effect| matches!(effect, Effect::Escape { .. } | Effect::Unknown { .. })) || self.wire.status != b'I' {
            return None;
        }
        self.make_baseline().await.ok()?;
        self.wire.withhold();
        self.wire.hide_ready = true;
        let name = self.fresh_name();
        self.wire.send_extended(&name, "BEGIN");
        self.send_batch(messages, false);
        self.flush_extended().await.ok()?;
        let refused = self.wire.code.is_some();
        let measured = if refused { None } else { self.measure().await.ok().flatten() };
        if let Some(measured) = &measured {
            self.take_samples(&measured.reach, effects).await;
        }
        let (_never_heard, _passed) = self.wire.discard();
        self.wire.code = None;
        self.roll_back_whatever_is_open().await.ok()?;
        // Its named statements were made: a later run makes them anew.
        for message in messages.iter().filter(|message| !message.sent) {
            if let Some(name) = message.parses.as_deref().filter(|name| !name.is_empty()) {
                reprieve_pgwire::write::close(&mut self.wire.server.output, b'S', name).ok()?;
                self.wire.replies.push(Asked::Close, Route::Swallow);
            }
        }
        self.wire.send_sync(Route::Client);
        self.wire.settle().await.ok()?;
        if refused { Some(Reach::default()) } else { measured.map(|measured| measured.reach) }
    }
}
