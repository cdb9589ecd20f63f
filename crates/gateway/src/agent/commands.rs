//! What each command of the server leads to.

use std::time::Duration;

use farrier_protocol::{
    CancelUpdate, ErrorCode, ErrorResponse, LongText, MsgId, RequestDownloadReadiness, RequestVci,
    ServerBody, StartDownload, StartRollback, UnixMillis, VehicleBody, vci_digest,
};
use farrier_vehicle_update::{Event, Phase, Plan, VehicleUpdate};

use super::bases::WithDeltas;
use super::{Agent, GatewayFailure, TaskResult};
use crate::clock;
use crate::error_text::with_causes;
use crate::inventory;
use crate::journal::Entry;
use crate::readiness;
use crate::server_link::Received;

/// When to ask again while an update is under way, in seconds.
const BUSY_RETRY_S: u64 = 30;
/// When to ask again after the signals could not be read, in seconds.
const SIGNALS_RETRY_S: u64 = 60;
/// When to ask again while the journal is damaged, in seconds: only a workshop can change that.
const FAULT_RETRY_S: u64 = 7_200;
/// How long ECUs may take for an inventory that has no deadline.
const INVENTORY_PATIENCE: Duration = Duration::from_secs(30);

impl Agent {
    /// Carries out a command, or says why not.
    pub(super) async fn take(&mut self, received: Received) -> Result<(), GatewayFailure> {
        let Received { msg_id: command, message, received_at } = received;
        let message = match message {
            Ok(message) => message,
            Err(refusal) => {
                return self.send(error(&command, ErrorCode::Unsupported, &refusal.to_string())).await;
            }
        };
        let expires_at = message.expires_at(received_at);
        tracing::info!(%command, what = message.message_type().name(), "A command came in.");
        if expires_at.is_some_and(|expires_at| clock::now() >= expires_at) {
            let detail = "the command had expired when it was looked at";
            return self.send(error(&command, ErrorCode::Expired, detail)).await;
        }
        if let Some(refused) = self.refused_for_a_fault(&command, &message.body) {
            return self.send(refused).await;
        }
        match message.body {
            ServerBody::RequestVci(request) => self.request_vci(command, request, expires_at).await,
            ServerBody::RequestDownloadReadiness(request) => self.request_readiness(command, request).await,
            ServerBody::StartDownload(start) => self.start_download(command, start).await,
            ServerBody::StartRollback(rollback) => self.start_rollback(command, &rollback).await,
            ServerBody::CancelUpdate(cancel) => self.cancel_update(command, &cancel).await,
            ServerBody::MessageRejected(rejected) => {
                tracing::error!(
                    message = ?rejected.correlation_id, code = ?rejected.code, detail = %rejected.detail,
                    "The server refused a message of this gateway."
                );
                self.close(command).await
            }
        }
    }

    /// With a damaged journal nobody knows what state the ECUs were left in: no update begins, ends or is undone
    /// until a workshop has cleared the fault. What the vehicle runs is still told.
    fn refused_for_a_fault(&self, command: &MsgId, body: &ServerBody) -> Option<VehicleBody> {
        let fault = self.journal.fault()?;
        let detail = format!("the gateway's journal is damaged (found {fault}); have the vehicle checked");
        match body {
            ServerBody::RequestVci(_) | ServerBody::MessageRejected(_) => None,
            ServerBody::StartDownload(_) | ServerBody::StartRollback(_) => {
                Some(error(command, ErrorCode::ServiceRequired, &detail))
            }
            ServerBody::RequestDownloadReadiness(_) => Some(busy(command, &detail, FAULT_RETRY_S)),
            ServerBody::CancelUpdate(_) => Some(error(command, ErrorCode::CancelRefused, &detail)),
        }
    }

    async fn request_vci(
        &mut self,
        command: MsgId,
        request: RequestVci,
        expires_at: Option<UnixMillis>,
    ) -> Result<(), GatewayFailure> {
        if self.uses_ecus() {
            return self.send(busy(&command, "ECUs are being written or restarted", BUSY_RETRY_S)).await;
        }
        let (links, config) = (self.links.clone(), self.config.clone());
        let (signals, results) = (self.signals.clone(), self.results.clone());
        let patience = patience(expires_at);
        self.tasks.spawn(async move {
            let measured = signals.measure();
            let vci = inventory::collect(&links, &config, &command, &request, measured, patience).await;
            let mut entry = Entry::default();
            let body = match vci {
                Ok(vci) => {
                    entry.vci_digest = Some(vci_digest(&vci));
                    entry.vci_fields = Some(request.fields);
                    VehicleBody::SendVci(vci)
                }
                Err(incomplete) => {
                    tracing::warn!(why = incomplete.detail, "The inventory is not complete.");
                    VehicleBody::ErrorResponse(ErrorResponse {
                        correlation_id: command,
                        code: ErrorCode::VciIncomplete,
                        detail: LongText::beginning_of(&incomplete.detail),
                        failed_ecus: Some(incomplete.failed_ecus),
                        pkg_ids: None,
                        retry_after_s: None,
                    })
                }
            };
            results.send(TaskResult::Answer(Box::new(entry), vec![body])).await.ok();
        });
        Ok(())
    }

    async fn request_readiness(
        &mut self,
        command: MsgId,
        request: RequestDownloadReadiness,
    ) -> Result<(), GatewayFailure> {
        if self.is_updating() {
            return self.send(busy(&command, "an update is under way", BUSY_RETRY_S)).await;
        }
        self.compare_bases(command, WithDeltas::Readiness(request)).await
    }

    pub(super) async fn judge_readiness(
        &mut self,
        command: &MsgId,
        request: &RequestDownloadReadiness,
    ) -> Result<(), GatewayFailure> {
        let body = match self.signals.measure() {
            Ok(signals) => {
                let needed_bytes =
                    readiness::needed_bytes(request).saturating_add(self.rebuilt_bytes(request));
                let policy = &self.config.readiness_policy;
                let verdict = policy.judge(&signals, needed_bytes, &self.not_ready);
                self.not_ready.clone_from(&verdict.reasons);
                readiness::report(command, request, &signals, verdict)
            }
            Err(unavailable) => {
                let why = with_causes(&unavailable);
                tracing::error!(why, "The vehicle's signals cannot be read.");
                busy(command, "the vehicle's signals cannot be read", SIGNALS_RETRY_S)
            }
        };
        self.send(body).await
    }

    async fn start_download(&mut self, command: MsgId, start: StartDownload) -> Result<(), GatewayFailure> {
        if self.is_updating() || self.comparing.contains_key(&start.update_id) {
            return self.already_updating(command, &start).await;
        }
        self.compare_bases(command, WithDeltas::Start(start)).await
    }

    /// The same update told again goes on, and answers the command that began it.
    async fn already_updating(
        &mut self,
        command: MsgId,
        start: &StartDownload,
    ) -> Result<(), GatewayFailure> {
        let update = self.update.as_ref().filter(|_| self.is_updating());
        let is_same = update.is_some_and(|update| update.plan().start.update_id == start.update_id);
        if is_same || self.comparing.contains_key(&start.update_id) {
            self.close(command).await
        } else {
            self.send(busy(&command, "another update is under way", BUSY_RETRY_S)).await
        }
    }

    /// Begins an update whose deltas can be applied.
    pub(super) async fn start_update(
        &mut self,
        command: MsgId,
        start: StartDownload,
    ) -> Result<(), GatewayFailure> {
        if self.is_updating() {
            return self.already_updating(command, &start).await;
        }
        match Plan::new(command.clone(), clock::now(), start) {
            Ok(plan) => {
                let (update, commands) = VehicleUpdate::begin(plan, self.config.update_bounds.clone());
                self.begin_update(update);
                self.carry_out(commands).await
            }
            Err(unacceptable) => {
                self.send(error(&command, unacceptable.code(), &unacceptable.to_string())).await
            }
        }
    }

    async fn start_rollback(
        &mut self,
        command: MsgId,
        rollback: &StartRollback,
    ) -> Result<(), GatewayFailure> {
        let undone = self
            .update
            .as_mut()
            .filter(|update| update.plan().start.update_id == rollback.update_id)
            .and_then(|update| update.undo(command.clone(), clock::now()));
        match undone {
            Some(commands) => self.carry_out(commands).await,
            None => {
                let detail = "this is not the committed update whose earlier software the ECUs still hold";
                self.send(error(&command, ErrorCode::RollbackUnavailable, detail)).await
            }
        }
    }

    async fn cancel_update(&mut self, command: MsgId, cancel: &CancelUpdate) -> Result<(), GatewayFailure> {
        let is_known =
            self.update.as_ref().is_some_and(|update| update.plan().start.update_id == cancel.update_id);
        if is_known {
            return self.update_event(Event::CancelRequested { command }).await;
        }
        // One whose deltas are still being compared never begins, also not after a restart.
        let closes = self.comparing.remove(&cancel.update_id).into_iter().collect();
        let detail = "this gateway does not work on that update";
        let answer = error(&command, ErrorCode::Cancelled, detail);
        self.store(Entry { closes, ..Entry::default() }, vec![answer]).await
    }

    /// Whether an update is under way in any phase.
    pub(super) fn is_updating(&self) -> bool {
        self.update.as_ref().is_some_and(|update| update.phase() != Phase::Ended)
    }

    /// Whether questions to the ECUs would come in the way of an update.
    pub(super) fn uses_ecus(&self) -> bool {
        self.update.as_ref().is_some_and(|update| match update.phase() {
            Phase::Processing
            | Phase::Barrier
            | Phase::Activating
            | Phase::VehicleChecking
            | Phase::Committing
            | Phase::Finishing
            | Phase::RollingBack => true,
            Phase::Syncing | Phase::Transferring | Phase::Waiting | Phase::CleaningUp | Phase::Ended => false,
        })
    }
}

/// Leaves a tenth of the time for the answer's own way.
fn patience(expires_at: Option<UnixMillis>) -> Duration {
    let Some(expires_at) = expires_at else { return INVENTORY_PATIENCE };
    let left_ms = u64::try_from(expires_at.0.saturating_sub(clock::now().0)).unwrap_or(0);
    Duration::from_millis(left_ms - left_ms / 10)
}

fn error_response(command: &MsgId, code: ErrorCode, detail: &str) -> ErrorResponse {
    ErrorResponse {
        correlation_id: command.clone(),
        code,
        detail: LongText::beginning_of(detail),
        failed_ecus: None,
        pkg_ids: None,
        retry_after_s: None,
    }
}

fn error(command: &MsgId, code: ErrorCode, detail: &str) -> VehicleBody {
    VehicleBody::ErrorResponse(error_response(command, code, detail))
}

fn busy(command: &MsgId, detail: &str, retry_after_s: u64) -> VehicleBody {
    let response = error_response(command, ErrorCode::Busy, detail);
    VehicleBody::ErrorResponse(ErrorResponse { retry_after_s: Some(retry_after_s), ..response })
}
