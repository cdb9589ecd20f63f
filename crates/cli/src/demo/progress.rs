//! Follows the campaign through the operator API until every vehicle is done, and shows how far each is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use farrier_gateway::Status;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::stage::{CAMPAIGN, Stage};
use crate::campaign::VehicleUpdate;
use crate::operator::read;
use crate::output::{is_watched, plain, print, thousands};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Where no line moves, a vehicle that stays in its state gets a new line after so long.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// States of protocol.md §8 that a vehicle does not leave by itself.
const FINAL_STATES: [&str; 7] =
    ["succeeded", "rolled_back", "inconsistent", "unknown", "cancelled", "up_to_date", "ineligible"];

/// How the campaign went.
pub(super) struct Followed {
    pub(super) duration: Duration,
    pub(super) vehicles: BTreeMap<String, FollowedVehicle>,
}

/// How it went for one vehicle.
pub(super) struct FollowedVehicle {
    pub(super) state: String,
    pub(super) sentence: String,
    pub(super) bytes_served: u64,
    pub(super) duration: Duration,
}

/// Asks until every vehicle of the stage is in a final state. Times are shown from when the demo began.
pub(super) async fn follow(
    stage: &Stage,
    demo_began: Instant,
    patience: Duration,
    shown: bool,
) -> anyhow::Result<Followed> {
    let operator = stage.operator()?;
    let mut display = Display::new(shown);
    let began = Instant::now();
    let mut vehicles: BTreeMap<String, FollowedVehicle> = BTreeMap::new();
    let mut every = tokio::time::interval(ASK_EVERY);
    loop {
        every.tick().await;
        let updates: Vec<VehicleUpdate> = read(&operator.list(&["campaigns", CAMPAIGN, "vehicles"]).await?)?;
        for update in updates {
            display.show(&update, stage.status(&update.vehicle_id).as_ref(), demo_began.elapsed())?;
            let was_final = vehicles.get(&update.vehicle_id).filter(|seen| is_final(&seen.state));
            let duration = was_final.map_or(began.elapsed(), |seen| seen.duration);
            vehicles.insert(
                update.vehicle_id,
                FollowedVehicle {
                    state: update.state,
                    sentence: update.sentence,
                    bytes_served: update.bytes_served,
                    duration,
                },
            );
        }
        if vehicles.len() == stage.vehicles.len() && vehicles.values().all(|vehicle| is_final(&vehicle.state))
        {
            display.finish();
            return Ok(Followed { duration: began.elapsed(), vehicles });
        }
        if began.elapsed() > patience {
            display.finish();
            bail!(
                "expected every vehicle to be done within {} s; {}",
                patience.as_secs(),
                unfinished(&vehicles)
            );
        }
    }
}

fn is_final(state: &str) -> bool {
    FINAL_STATES.contains(&state)
}

fn unfinished(vehicles: &BTreeMap<String, FollowedVehicle>) -> String {
    let waiting = vehicles.iter().filter(|(_, vehicle)| !is_final(&vehicle.state));
    let sentences: Vec<String> =
        waiting.map(|(vehicle_id, vehicle)| format!("{vehicle_id}: {}", plain(&vehicle.sentence))).collect();
    sentences.join("; ")
}

/// One moving line per vehicle on a terminal; else a line whenever a vehicle changes its state or stays in one for
/// long.
struct Display {
    shown: bool,
    lines: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
    /// The state in each vehicle's last line, and when that was printed.
    printed: BTreeMap<String, (String, Duration)>,
}

impl Display {
    fn new(shown: bool) -> Self {
        let lines = (shown && is_watched()).then(|| (MultiProgress::new(), BTreeMap::new()));
        Self { shown, lines, printed: BTreeMap::new() }
    }

    fn show(
        &mut self,
        update: &VehicleUpdate,
        status: Option<&Status>,
        elapsed: Duration,
    ) -> anyhow::Result<()> {
        if !self.shown {
            return Ok(());
        }
        let work = Work::of(status);
        let text = format!("{:<19} {}", plain(&update.state), work.text());
        if let Some((lines, bars)) = &mut self.lines {
            let bar = bars.entry(update.vehicle_id.clone()).or_insert_with(|| {
                lines.add(ProgressBar::new(1).with_style(style()).with_prefix(plain(&update.vehicle_id)))
            });
            bar.set_length(work.total_bytes.max(1));
            bar.set_position(if is_final(&update.state) { work.total_bytes.max(1) } else { work.done_bytes });
            bar.set_message(text);
        } else if self.has_news(update, elapsed) {
            self.printed.insert(update.vehicle_id.clone(), (update.state.clone(), elapsed));
            print(&format!(
                "{:>6.1} s  {}  {}",
                elapsed.as_secs_f64(),
                plain(&update.vehicle_id),
                text.trim_end()
            ))?;
        }
        Ok(())
    }

    fn has_news(&self, update: &VehicleUpdate, elapsed: Duration) -> bool {
        self.printed.get(&update.vehicle_id).is_none_or(|(state, at)| {
            let is_due = !is_final(state) && elapsed.saturating_sub(*at) >= LONGEST_SILENCE;
            *state != update.state || is_due
        })
    }

    fn finish(&mut self) {
        for bar in self.lines.iter().flat_map(|(_, bars)| bars.values()) {
            bar.abandon();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}  [{bar:24}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// What a gateway has done: every byte is downloaded once and written once.
#[derive(Default)]
struct Work {
    done_bytes: u64,
    total_bytes: u64,
    ecus_written: usize,
    ecus: usize,
}

impl Work {
    fn of(status: Option<&Status>) -> Self {
        let Some(status) = status else { return Self::default() };
        let written: u64 = status.ecus.values().map(|ecu| ecu.written_bytes).sum();
        let to_write: u64 = status.ecus.values().map(|ecu| ecu.total_bytes).sum();
        let whole =
            status.ecus.values().filter(|ecu| ecu.total_bytes > 0 && ecu.written_bytes >= ecu.total_bytes);
        Self {
            done_bytes: status.downloaded_bytes + written,
            total_bytes: status.download_total_bytes + to_write,
            ecus_written: whole.count(),
            ecus: status.ecus.len(),
        }
    }

    fn text(&self) -> String {
        if self.total_bytes == 0 {
            return String::new();
        }
        format!(
            "{} of {} bytes moved, {} of {} ECUs written",
            thousands(self.done_bytes),
            thousands(self.total_bytes),
            self.ecus_written,
            self.ecus
        )
    }
}
