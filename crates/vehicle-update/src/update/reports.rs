//! What the server is told of an update: each report is stored together with the record it belongs to.

use farrier_protocol::{
    ErrorCode, ErrorResponse, LongText, MsgId, Operation, UnixMillis, UpdateSuccessResult, VehicleBody,
};

use super::VehicleUpdate;
use crate::record::{Ending, Record, Why};

impl VehicleUpdate {
    /// What is sent once this record is durable.
    pub(super) fn reports(&self, record: &Record, now: UnixMillis) -> Vec<VehicleBody> {
        match record {
            Record::Transferred => vec![self.success(Operation::Download, false, now)],
            Record::Activated => vec![self.success(Operation::Install, false, now)],
            Record::Ended(ending) => self.ending_reports(ending, now),
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Consented
            | Record::Process
            | Record::Activate
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Undo { .. } => Vec::new(),
        }
    }

    fn ending_reports(&self, ending: &Ending, now: UnixMillis) -> Vec<VehicleBody> {
        let mut reports = match ending {
            Ending::Committed => vec![self.success(Operation::Commit, true, now)],
            Ending::Undone => vec![self.success(Operation::Rollback, true, now)],
            Ending::RolledBack(why) if self.plan.start.failure_report => {
                vec![error(self.answered_command(), ErrorCode::UpdateFailed, why)]
            }
            Ending::RolledBack(_) | Ending::Cancelled => Vec::new(),
            Ending::ConsentDenied(why) => {
                vec![error(self.answered_command(), ErrorCode::ConsentDenied, why)]
            }
            Ending::ServiceRequired(why) => {
                vec![error(self.answered_command(), ErrorCode::ServiceRequired, why)]
            }
        };
        reports.extend(self.cancels.iter().map(|command| cancel_answer(command, ending)));
        reports
    }

    fn success(&self, operation: Operation, rebooted: bool, now: UnixMillis) -> VehicleBody {
        let began_at = match &self.last {
            Record::Undo { accepted_at, .. } => *accepted_at,
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Consented
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Ended(_) => self.plan.accepted_at,
        };
        let elapsed_ms = now.0.saturating_sub(began_at.0);
        VehicleBody::UpdateSuccessResult(UpdateSuccessResult {
            correlation_id: self.answered_command().clone(),
            operation,
            // A clock that was set back in between leaves no duration to report.
            duration_s: u64::try_from(elapsed_ms).ok().map(|elapsed_ms| elapsed_ms / 1000),
            rebooted: Some(rebooted),
            ecu_count: self.plan.ecu_count(),
            // No package leaves the transferring phase before its hash and signature were verified.
            verified_integrity: true,
        })
    }

    /// The command that the present reports answer.
    fn answered_command(&self) -> &MsgId {
        match &self.last {
            Record::Undo { command, .. } => command,
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Consented
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Ended(_) => &self.plan.command,
        }
    }
}

pub(super) fn cancel_answer(command: &MsgId, ending: &Ending) -> VehicleBody {
    match ending {
        Ending::RolledBack(_) | Ending::Cancelled | Ending::ConsentDenied(_) => {
            let why = Why {
                detail: "every ECU runs its earlier software".to_owned(),
                failed_ecus: Vec::new(),
                cancelled: true,
            };
            error(command, ErrorCode::Cancelled, &why)
        }
        Ending::Committed => cancel_refused(command, "the update is committed"),
        Ending::Undone => cancel_refused(command, "the update was committed and then undone"),
        Ending::ServiceRequired(why) => cancel_refused(command, &why.detail),
    }
}

pub(super) fn cancel_refused(command: &MsgId, detail: &str) -> VehicleBody {
    let why = Why { detail: detail.to_owned(), failed_ecus: Vec::new(), cancelled: false };
    error(command, ErrorCode::CancelRefused, &why)
}

pub(super) fn error(command: &MsgId, code: ErrorCode, why: &Why) -> VehicleBody {
    VehicleBody::ErrorResponse(ErrorResponse {
        correlation_id: command.clone(),
        code,
        detail: LongText::beginning_of(&why.detail),
        failed_ecus: (!why.failed_ecus.is_empty()).then(|| why.failed_ecus.clone()),
        pkg_ids: None,
        retry_after_s: None,
    })
}
