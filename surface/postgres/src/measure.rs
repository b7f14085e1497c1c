//! Measuring the open transaction: what it changed until now, its deferred constraints included.

use reprieve_operation::{Reach, Refusal};

use crate::{
    guard::Measured,
    run::{Result, unmeasured},
    session::Ends,
    system::View,
    wire::Notices,
};

impl Ends {
    /// Measures the open transaction. `None`: it couldn't be measured, or a deferred constraint failed, which ended it.
    pub(crate) async fn measure(&mut self) -> Result<Option<Measured>> {
        let view = self.system.measured_by().await?;
        let Some(mut measured) = self.measure_once(&view).await? else { return Ok(None) };
        if view.snapshot.deferrable_triggers || measured.reach.touches_catalogs() {
            // What a deferred trigger does may be deferred again: until nothing more happens, it isn't measured.
            let Some(again) = self.measure_once(&view).await? else { return Ok(None) };
            let Some(last) = self.measure_once(&view).await? else { return Ok(None) };
            if last.reach != again.reach {
                return Ok(None);
            }
            measured = last;
        }
        if measured.holds_cursors {
            self.overlook_quiet_cursors(&mut measured.reach).await?;
        } else {
            self.quiet_cursors.clear();
        }
        if measured.definitions_may_have_changed {
            let relations = self.ask_within(crate::guard::RELATIONS).await?;
            let types = self.ask_within(crate::guard::TRIGGERS).await?;
            if view.snapshot.compare_definitions(&mut measured.reach, [&relations, &types], self.young, &self.secured.aside).is_none() {
                return Ok(None);
            }
        }
        if let Some(question) = self.secured.aside_question() {
            let answer = self.ask_within(&question).await?;
            if answer.rows.first().and_then(|row| row.first().cloned().flatten()).as_deref() != Some("t") {
                return Err(Refusal::unavailable("keeping", "what was set aside to be dropped is not what was dropped"));
            }
        }
        self.secured.settle(&view, &mut measured.reach);
        self.take_images(&mut measured).await?;
        Ok(Some(measured))
    }

    /// Takes cursors WITH HOLD off the reach whose queries do nothing but read, or have been run inside an earlier COMMIT.
    async fn overlook_quiet_cursors(&mut self, reach: &mut Reach) -> Result<()> {
        let cursors = self.ask_within(crate::guard::CURSORS).await?;
        // A definition that is not final yet may make the same text mean something else.
        let redefined = reach.touches_catalogs();
        let quiet = |row: &Vec<Option<String>>| match row.as_slice() {
            [Some(text), Some(older)] => self.quiet_cursors.iter().any(|known| **known == **text) && (older == "t" || !redefined),
            _ => false,
        };
        if cursors.error.is_none() && !cursors.rows.is_empty() && cursors.rows.iter().all(quiet) {
            reach.escapes.retain(|escape| escape != crate::guard::HELD_CURSOR);
        }
        Ok(())
    }

    /// Whether the open implicit transaction changed nothing at all.
    pub(crate) async fn measure_nothing(&mut self) -> Result<bool> {
        let view = self.system.measured_by().await?;
        let captured = self.ask_within(&view.snapshot.measurement()).await?;
        let mut measured = view.snapshot.reach_of_measurement(&captured, &self.secured.ours).ok_or_else(unmeasured)?;
        if measured.holds_cursors {
            self.overlook_quiet_cursors(&mut measured.reach).await?;
        }
        Ok(measured.reach.is_empty())
    }

    async fn measure_once(&mut self, view: &View) -> Result<Option<Measured>> {
        // What deferred triggers have to say, they would have said at the client's COMMIT.
        self.wire.notices = if self.in_batch { Notices::Last } else { Notices::BeforeEnd };
        let constraints = self.ask_within("SET CONSTRAINTS ALL IMMEDIATE").await;
        self.wire.notices = Notices::Ours;
        let constraints = constraints?;
        if let Some(error) = constraints.error {
            let _told = self.failed(&error);
            self.wire.code = error.code().map(str::to_owned);
            return Ok(None);
        }
        let captured = self.ask_within(&view.snapshot.measurement()).await?;
        let Some(measured) = view.snapshot.reach_of_measurement(&captured, &self.secured.ours) else { return Ok(None) };
        if !measured.unknown_relation {
            return Ok(Some(measured));
        }
        // Either this transaction made it, or somebody else did after we looked: look again.
        self.system.invalidate();
        let view = self.system.measured_by().await?;
        Ok(view.snapshot.reach_of_measurement(&captured, &self.secured.ours))
    }
}
