//! What of an update is kept at its decisive moments, in the transaction of the moment: messages are forgotten, and of
//! configurations only the newest stay.

use farrier_campaign::{State, VerifyCause};
use farrier_protocol::{Condition, MsgId, ReadinessReport, SendVci, ServerBody, UnixMillis, vci_digest};

use super::{Ended, Go, Shown};
use crate::store::commands::SentCommand;
use crate::store::evidence::{Moment, exchanged, keep};
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{StoreError, Tx, inventories};

/// A vehicle has said that it is ready: keeps what it reported, where its update has begun by it.
pub(crate) fn note_go(
    tx: &Tx<'_>,
    command: &SentCommand,
    report_msg_id: &MsgId,
    report: &ReadinessReport,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (Some(update_id), ServerBody::RequestDownloadReadiness(request)) =
        (&command.update_id, &command.message.body)
    else {
        return Ok(());
    };
    let Some(update) = updates::by_id(tx, update_id)? else { return Ok(()) };
    let State::Downloading(execution) = &update.state else { return Ok(()) };
    let go = Go {
        attempt_id: update.attempt_id.clone(),
        request_msg_id: command.message.msg_id.to_string(),
        conditions_asked: names(&request.readiness_requirements),
        report_msg_id: report_msg_id.to_string(),
        measured: serde_json::json!(report.requested_fields),
        packages: execution.plan.packages.clone(),
        configuration: inventories::keep_current(tx, &update.vehicle_id)?,
    };
    keep(tx, &update.id, &Moment::Go(go), now)
}

fn names(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|condition| condition.name().to_owned()).collect()
}

/// An update is over: keeps how, and by what it is known. `told` is the inventory that showed it, `cause` the vehicle's
/// message, where it is one.
pub(crate) fn note_end(
    tx: &Tx<'_>,
    update: &VehicleUpdate,
    told: Option<&SendVci>,
    cause: Option<&MsgId>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut ended = Ended {
        attempt_id: update.attempt_id.clone(),
        outcome: update.state.name().to_owned(),
        sentence: update.state.sentence(now),
        late: false,
        cause: None,
        reasons: Vec::new(),
        found: Vec::new(),
        packages: update.state.plan().map(|plan| plan.packages.clone()).unwrap_or_default(),
        configuration: inventories::keep_current(tx, &update.vehicle_id)?,
        shown_by: told.map(|vci| Shown { msg_id: cause.map(MsgId::to_string), vci_digest: vci_digest(vci) }),
        exchanged: exchanged(tx, update)?,
    };
    let mut because = |cause: &VerifyCause| ended.cause = Some(cause.clone());
    match &update.state {
        State::RolledBack { cause, .. } | State::Unknown { cause, .. } => because(cause),
        State::Inconsistent { cause, found, .. } => {
            because(cause);
            ended.found.clone_from(found);
        }
        State::Succeeded { late, .. } => ended.late = *late,
        State::Ineligible { reasons } => ended.reasons.clone_from(reasons),
        State::Cancelled { .. } | State::UpToDate => {}
        // Not over.
        State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. } => return Ok(()),
    }
    keep(tx, &update.id, &Moment::Ended(ended), now)
}
