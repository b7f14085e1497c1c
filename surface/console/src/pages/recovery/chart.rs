//! Ninety days of drills, drawn: how long it took, what was lost, and which days had none.

use maud::{Markup, html};
use reprieve_gate::DrillDay;

use crate::words::{day_month, measured, promised};

/// Days that are drawn, today among them.
const DAYS: u64 = 90;
/// Where the first and the last day are.
const SIDES: (f64, f64) = (40.0, 752.0);
/// The top of the lines; above it is what failed.
const TOP: f64 = 30.0;

/// One measure of one system's drills.
pub(super) struct Chart<'a> {
    /// What is measured, and of what: the beginning of a sentence.
    pub(super) what: &'a str,
    /// The days with drills, oldest first.
    pub(super) days: &'a [DrillDay],
    /// Days since 1970.
    pub(super) today: u64,
    /// The measure of a day, in milliseconds; none where no drill passed.
    pub(super) of: fn(&DrillDay) -> Option<u64>,
    /// Whether the last number still counts: otherwise it is not told.
    pub(super) is_proven: bool,
    /// In seconds.
    pub(super) promised: Option<u64>,
    /// Where zero is.
    pub(super) base: f64,
}

impl Chart<'_> {
    fn worst(&self) -> Option<u64> {
        self.days.iter().filter_map(self.of).max()
    }

    /// What one is called on the left side, and its milliseconds.
    pub(super) fn unit(&self) -> (&'static str, u64) {
        match self.worst().unwrap_or(0).max(self.line().unwrap_or(0)) {
            0..=120_000 => ("seconds", 1_000),
            120_001..=7_200_000 => ("minutes", 60_000),
            _ => ("hours", 3_600_000),
        }
    }

    /// What was promised, in milliseconds, where a line at it would leave something to be seen below.
    fn line(&self) -> Option<u64> {
        let promised = self.promised?.saturating_mul(1_000);
        self.worst().filter(|worst| promised <= worst.saturating_mul(8)).map(|_| promised)
    }

    pub(super) fn draw(&self) -> Markup {
        let Some(worst) = self.worst() else {
            return html! { p.muted { "Not measured in 90 days." } };
        };
        let unit = self.unit().1;
        let steps = Steps::up_to(worst.max(self.line().unwrap_or(0)).max(1), unit);
        let y = |ms: u64| format!("{:.1}", self.base - share(ms, steps.top) * (self.base - TOP));
        let at = |day: u64| SIDES.0 + share(DAYS - 1 - self.today.saturating_sub(day).min(DAYS - 1), DAYS - 1) * (SIDES.1 - SIDES.0);
        let x = |day: u64| format!("{:.1}", at(day));
        let (mut path, mut broken, mut last) = (String::new(), true, None);
        for day in self.days {
            match (self.of)(day) {
                Some(ms) => {
                    path.push_str(&format!("{}{} {}", if broken { "M" } else { "L" }, x(day.day), y(ms)));
                    (broken, last) = (false, Some((day.day, ms)));
                }
                None => broken = true,
            }
        }
        let last = last.filter(|_| self.is_proven);
        let failed: Vec<u64> = self.days.iter().filter(|day| day.failed > 0).map(|day| day.day).collect();
        let bottom = format!("{:.1}", self.base);
        html! {
            svg.chart viewBox={ "0 0 760 " (format!("{:.0}", self.base + 26.0)) } role="img" aria-label=(self.sentence(worst, last, &failed)) {
                @for tick in steps.ticks() {
                    path.ax d={ "M40 " (y(tick)) "H752" } {}
                    text x="32" y=(y(tick)) dy="4" text-anchor="end" { (in_units(tick, unit)) }
                }
                @if let Some(line) = self.line() {
                    path.sla d={ "M40 " (y(line)) "H752" } {}
                    text.bad x="44" y=(y(line)) dy="-6" { "promised: " (promised(line / 1_000)) }
                } @else if let Some(line) = self.promised {
                    text.bad x="752" y="26" text-anchor="end" { "promised: " (promised(line)) ", far above" }
                }
                path.serie d=(path) {}
                @for day in &failed {
                    path.ax d={ "M" (x(*day)) " " (bottom) "V14" } {}
                    path.bad stroke="currentColor" fill="none" d={ "M" (format!("{:.1}", at(*day) - 5.0)) " 3l10 10m0-10l-10 10" } {}
                }
                @if let Some(day) = failed.last() {
                    @let (anchor, dx) = if at(*day) > 500.0 { ("end", "-10") } else { ("start", "10") };
                    text.bad x=(x(*day)) dx=(dx) y="12" text-anchor=(anchor) { (day_month(*day)) ": a drill failed" }
                }
                @if let Some((day, ms)) = last {
                    circle.dot cx=(x(day)) cy=(y(ms)) r="3.5" {}
                    @let below = share(ms, steps.top) > 0.25;
                    text.lbl x=(x(day)) dx=(if at(day) > 100.0 { "-2" } else { "2" }) y=(y(ms)) dy=(if below { "20" } else { "-10" }) text-anchor=(if at(day) > 100.0 { "end" } else { "start" }) { (measured(ms)) }
                }
                @for (back, anchor) in [(DAYS - 1, "start"), (60, "middle"), (30, "middle"), (0, "end")] {
                    @let day = self.today.saturating_sub(back);
                    text x=(x(day)) y=(bottom) dy="20" text-anchor=(anchor) { @if back == 0 { "today" } @else { (day_month(day)) } }
                }
            }
        }
    }

    fn sentence(&self, worst: u64, last: Option<(u64, u64)>, failed: &[u64]) -> String {
        let mut text = format!("{}, last 90 days: {} at worst", self.what, measured(worst));
        if let Some((day, ms)) = last {
            text.push_str(&format!(", {} on {}", measured(ms), day_month(day)));
        }
        if let Some(line) = self.promised {
            text.push_str(&format!("; promised {}", promised(line)));
        }
        text + &failures(failed)
    }
}

/// Which days had drills, and which had one that failed.
pub(super) fn strip(days: &[DrillDay], today: u64) -> Markup {
    let of = |day: u64| days.iter().find(|known| known.day == day);
    let shown: Vec<Option<&DrillDay>> = (0..DAYS).map(|at| of((today + 1 + at).saturating_sub(DAYS))).collect();
    let failed: Vec<u64> = shown.iter().flatten().filter(|day| day.failed > 0).map(|day| day.day).collect();
    let passed = shown.iter().flatten().filter(|day| day.failed == 0).count();
    let label = format!(
        "90 days: on {passed} of them every drill passed{}; on {} there was none",
        failures(&failed),
        shown.iter().filter(|day| day.is_none()).count()
    );
    html! {
        svg.strip90 viewBox="0 0 728 30" preserveAspectRatio="none" role="img" aria-label=(label) {
            @for (at, day) in (0_u64..).zip(shown) {
                @let x = format!("{:.1}", share(at, DAYS) * 728.0);
                @match day {
                    Some(day) if day.failed > 0 => { rect.f x=(x) y="0" width="5.8" height="30" rx="1.5" {} }
                    Some(_) => { rect x=(x) y="6" width="5.8" height="24" rx="1.5" {} }
                    None => { rect.n x=(x) y="14" width="5.8" height="8" rx="1.5" {} }
                }
            }
        }
        p.row.tiny.muted { span { (day_month((today + 1).saturating_sub(DAYS))) } span.push { "today" } }
    }
}

fn failures(days: &[u64]) -> String {
    match days {
        [] => String::new(),
        [day] => format!("; one failed on {}", day_month(*day)),
        [.., day] => format!("; drills failed on {} days, the last on {}", days.len(), day_month(*day)),
    }
}

/// The lines across, from zero to a round number above what is drawn, in milliseconds.
struct Steps {
    step: u64,
    top: u64,
}

impl Steps {
    fn up_to(most: u64, unit: u64) -> Self {
        // A tenth of a unit at least: below that nothing is to be seen.
        let mut step = (unit / 10).max(1);
        for factor in [2, 5, 10].into_iter().cycle().take(60) {
            if most.div_ceil(step) <= 4 {
                break;
            }
            step = if factor == 5 { (step / 2).saturating_mul(5) } else { step.saturating_mul(2) };
        }
        Self { step, top: step.saturating_mul(most.div_ceil(step).max(1)) }
    }

    fn ticks(&self) -> impl Iterator<Item = u64> {
        let step = self.step;
        (0..=self.top / step).map(move |at| at * step)
    }
}

fn in_units(ms: u64, unit: u64) -> String {
    if ms.is_multiple_of(unit) { (ms / unit).to_string() } else { format!("{}.{}", ms / unit, ms % unit * 10 / unit) }
}

#[allow(clippy::cast_precision_loss, reason = "a few pixels")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_round_numbers_and_few() {
        let ticks = |most, unit| Steps::up_to(most, unit).ticks().map(|tick| in_units(tick, unit)).collect::<Vec<_>>().join(" ");
        assert_eq!(ticks(1_486, 1_000), "0 0.5 1 1.5");
        assert_eq!(ticks(900_000, 60_000), "0 5 10 15");
        assert_eq!(ticks(402_000, 60_000), "0 2 4 6 8");
        assert_eq!(ticks(1, 1_000), "0 0.1");
        assert_eq!(ticks(3 * 86_400_000, 3_600_000), "0 20 40 60 80");
        for most in [u64::MAX, u64::MAX / 2, 7_200_001] {
            assert!(Steps::up_to(most, 3_600_000).ticks().take(9).count() <= 5, "{most}");
        }
    }

    #[test]
    fn a_line_is_broken_where_nothing_passed() {
        let day = |day, passed, failed, rto_ms| DrillDay { day, passed, failed, rpo_ms: None, rto_ms };
        let days =
            [day(20_001, 1, 0, Some(400_000)), day(20_002, 2, 0, Some(380_000)), day(20_003, 0, 2, None), day(20_050, 1, 1, Some(402_000))];
        let chart = Chart {
            what: "Time to recover shop",
            days: &days,
            today: 20_050,
            of: |day| day.rto_ms,
            is_proven: true,
            promised: Some(900),
            base: 170.0,
        };
        let drawn = chart.draw().into_string();
        let path = drawn.split("serie\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert_eq!(chart.unit(), ("minutes", 60_000));
        assert!(drawn.contains("6 min 42 s on 23 Nov; promised 15 min; drills failed on 2 days, the last on 23 Nov"), "{drawn}");
        // A promise far above what is measured is told, and does not press the line to the ground.
        let far = Chart { promised: Some(36_000), ..chart };
        assert!(far.draw().into_string().contains("promised: 10 h, far above"));
        let unproven = Chart { is_proven: false, ..far }.draw().into_string();
        assert!(!unproven.contains("class=\"dot\"") && !unproven.contains("on 23 Nov;"), "{unproven}");
        let none = Chart { days: &days[2..3], ..far };
        assert_eq!(none.draw().into_string(), "<p class=\"muted\">Not measured in 90 days.</p>");
    }

    #[test]
    fn a_strip_has_every_day_once() {
        let days = [DrillDay { day: 20_050, passed: 1, failed: 0, rpo_ms: None, rto_ms: Some(1) }];
        for (today, passed) in [(20_050, 1), (20_139, 1), (20_140, 0), (0, 0)] {
            let drawn = strip(&days, today).into_string();
            assert_eq!((drawn.matches("<rect").count(), drawn.matches("height=\"24\"").count()), (90, passed), "{today}");
        }
    }
}
