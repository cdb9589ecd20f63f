//! Whether it is a vehicle's turn, by its campaign's schedule and the clock where the vehicle is.

use farrier_campaign::{Block, Candidate, State};
use farrier_protocol::UnixMillis;

use crate::store::campaigns::Campaign;
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::Vehicle;

/// What the campaign's schedule puts before an update; nothing where the vehicle has had its StartDownload: it goes on past the
/// end of its window, unless it refuses to begin.
pub(super) fn not_its_turn(
    vehicle: &Vehicle,
    campaign: &Campaign,
    update: &VehicleUpdate,
    now: UnixMillis,
) -> Option<Block> {
    let has_to_begin = matches!(
        update.state,
        State::Waiting { .. }
            | State::CollectingVci { .. }
            | State::CheckingReadiness { .. }
            | State::Deferred { .. }
            | State::Downloading(_)
    );
    let rollout = &campaign.rollout;
    // A wave that is not open says so itself; its vehicles have no turn yet.
    let is_open = !rollout.has_gate() || update.wave <= campaign.gate.open;
    if !has_to_begin || !is_open {
        return None;
    }
    let candidate = Candidate {
        campaign: &campaign.name,
        vehicle_id: &update.vehicle_id,
        time_zone: vehicle.time_zone.as_ref().map(|zone| zone.as_str()),
        opened_at: campaign.gate.opened_at(update.wave).or(campaign.started_at)?,
    };
    rollout.not_its_turn(&candidate, now)
}
