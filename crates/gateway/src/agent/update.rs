//! Carries out the commands of an update and feeds their results back.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use farrier_diagnostics::{IdentificationField, Running, Trial, WriteJob};
use farrier_protocol::EcuId;
use farrier_vehicle_update::{
    Command, EarlierSoftware, EcuCall, EcuOutcome, Ending, Event, Phase, Plan, Record, Runs,
    Trial as UpdateTrial, VehicleUpdate,
};
use tokio::sync::watch;

use super::{Agent, GatewayFailure, TaskResult};
use crate::clock;
use crate::download::Downloader;
use crate::ecu_link::{EcuError, EcuLinks, Image};
use crate::error_text::with_causes;
use crate::image_store::ImageStore;
use crate::journal::Entry;
use crate::status::{EcuProgress, Status};

impl Agent {
    /// Goes on with the update of the journal, or cleans up after it.
    pub(super) async fn resume_update(&mut self) -> Result<(), GatewayFailure> {
        let records = self.journal.records().await?;
        if records.is_empty() {
            return Ok(());
        }
        let bounds = self.config.update_bounds.clone();
        let (update, commands) = VehicleUpdate::resume(records, bounds, clock::now())?;
        let (update_id, phase) = (update.plan().update_id(), update.phase());
        tracing::info!(%update_id, %phase, "The journal holds an update.");
        self.begin_update(update);
        self.carry_out(commands).await
    }

    /// Makes this the update under way.
    pub(super) fn begin_update(&mut self, update: VehicleUpdate) {
        let plan = update.plan().clone();
        self.status.send_modify(|status| {
            status.update_id = Some(plan.update_id().clone());
            status.downloaded_bytes = 0;
            status.download_total_bytes = plan.download_bytes();
            let progress = |size: &u64| EcuProgress { written_bytes: 0, total_bytes: *size };
            let ecus = plan.start.packages.iter();
            status.ecus = ecus
                .map(|package| (package.target_component.clone(), progress(&package.image_size_bytes)))
                .collect();
        });
        self.update = Some(update);
        self.watch_deadline(&plan);
    }

    /// Says when the StartDownload expires.
    fn watch_deadline(&mut self, plan: &Plan) {
        let left_ms = plan.start.expires_at_ms.0.saturating_sub(clock::now().0);
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let (results, command) = (self.results.clone(), plan.command.clone());
        self.tasks.spawn(async move {
            tokio::time::sleep(left).await;
            results.send(TaskResult::Update { command, event: Event::DeadlinePassed }).await.ok();
        });
    }

    /// Feeds an event to the update and does what it says.
    pub(super) async fn update_event(&mut self, event: Event) -> Result<(), GatewayFailure> {
        let Some(update) = self.update.as_mut() else { return Ok(()) };
        if let Event::EcuAnswered { ecu_id, call, outcome: EcuOutcome::Failed(why) } = &event {
            tracing::warn!(%ecu_id, ?call, why, "An ECU call failed.");
        }
        let commands = update.handle(event, clock::now());
        self.carry_out(commands).await
    }

    /// Carries out commands, and those that follow from them at once.
    pub(super) async fn carry_out(&mut self, commands: Vec<Command>) -> Result<(), GatewayFailure> {
        let mut queue = VecDeque::from(commands);
        self.show_phase();
        while let Some(command) = queue.pop_front() {
            match command {
                Command::Persist { record, reports } => {
                    tracing::info!(record = record.name(), "The update takes a step.");
                    let entry = self.entry(record).await?;
                    self.store(entry, reports).await?;
                    let Some(update) = self.update.as_mut() else { return Ok(()) };
                    queue.extend(update.handle(Event::Persisted, clock::now()));
                }
                Command::Report(body) => self.send(body).await?,
                Command::Download => self.download(),
                Command::AwaitReady { before } => self.await_ready(before),
                Command::CallEcu { ecu_id, call, wait } => self.call_ecu(ecu_id, call, wait),
                Command::Interrupt => {
                    std::mem::take(&mut self.interrupt).cancel();
                }
                Command::DeletePackages => self.delete_packages(),
            }
            self.show_phase();
        }
        Ok(())
    }

    /// What is stored with a record. The command that it takes on needs no further work of its own: the record
    /// stands for it.
    async fn entry(&self, record: Record) -> Result<Entry, GatewayFailure> {
        let mut entry = Entry::default();
        match &record {
            Record::Accepted(plan) => entry.closes = vec![plan.command.clone()],
            Record::Undo { command, .. } => entry.closes = vec![command.clone()],
            Record::Synced(found) => self.compare_with_accepted(found).await?,
            Record::Ended(ending) => {
                entry.accepted_versions =
                    self.update.as_ref().map(|update| update.proven_versions(ending)).unwrap_or_default();
            }
            Record::Transferred
            | Record::Consented
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. } => {}
        }
        Ok(Entry { record: Some(record), ..entry })
    }

    /// An ECU that was exchanged or written by somebody else is no reason against an update, but worth knowing.
    async fn compare_with_accepted(&self, found: &[EarlierSoftware]) -> Result<(), GatewayFailure> {
        let accepted: HashMap<String, String> = self.journal.accepted_versions().await?.into_iter().collect();
        for software in found {
            let last = accepted.get(software.ecu_id.as_str()).filter(|last| **last != software.version);
            if let Some(accepted) = last {
                let (ecu_id, runs) = (&software.ecu_id, &software.version);
                tracing::warn!(%ecu_id, runs, accepted, "An ECU does not run what it proved to run after its last update.");
            }
        }
        Ok(())
    }

    fn show_phase(&self) {
        let Some(update) = &self.update else { return };
        let (phase, ending) = (Some(update.phase()), update.ending().cloned());
        self.status.send_if_modified(|status| {
            let changed = status.phase != phase || status.ending != ending;
            if phase != Some(Phase::Waiting) {
                status.waits_for = None;
            }
            if let Some(ending) = ending.as_ref().filter(|ending| status.ending.as_ref() != Some(*ending)) {
                log_ending(update, ending);
            }
            (status.phase, status.ending) = (phase, ending);
            changed
        });
    }

    fn download(&mut self) {
        let Some(plan) = self.update.as_ref().map(|update| update.plan().clone()) else { return };
        let (downloader, status) = (self.downloader.clone(), self.status.clone());
        self.spawn(
            plan.command.clone(),
            async move {
                let progress = |bytes| status.send_modify(|status| status.downloaded_bytes = bytes);
                match downloader.fetch_all(&plan, progress).await {
                    Ok(()) => Event::Downloaded,
                    Err(error) => Event::DownloadFailed(with_causes(&error)),
                }
            },
            Event::DownloadFailed("the download was given up".to_owned()),
        );
    }

    fn call_ecu(&mut self, ecu_id: EcuId, call: EcuCall, wait: Duration) {
        let Some(plan) = self.update.as_ref().map(|update| update.plan().clone()) else { return };
        let command = plan.command.clone();
        let (links, downloader, status) = (self.links.clone(), self.downloader.clone(), self.status.clone());
        let answered =
            move |ecu_id: &EcuId, outcome| Event::EcuAnswered { ecu_id: ecu_id.clone(), call, outcome };
        let given_up = answered(&ecu_id, EcuOutcome::Failed("the call was given up".to_owned()));
        self.spawn(
            command,
            async move {
                tokio::time::sleep(wait).await;
                let outcome = carry_out_call(&links, &downloader, &plan, &ecu_id, call, &status).await;
                let outcome = outcome.unwrap_or_else(|error| EcuOutcome::Failed(with_causes(&error)));
                answered(&ecu_id, outcome)
            },
            given_up,
        );
    }

    fn delete_packages(&mut self) {
        let Some(update) = &self.update else { return };
        let (plan, ending) = (update.plan().clone(), update.ending().cloned());
        let command = plan.command.clone();
        let (downloader, images, results) =
            (self.downloader.clone(), self.images.clone(), self.results.clone());
        self.tasks.spawn(async move {
            let cleaned_up = tokio::task::spawn_blocking(move || {
                if let Err(error) = keep_images(&images, &plan, ending, &downloader) {
                    tracing::warn!(why = with_causes(&error), "The bases of later deltas could not be kept.");
                }
                downloader.delete_all()
            });
            if let Err(error) = cleaned_up.await.map_err(std::io::Error::other).and_then(|deleted| deleted) {
                // They are looked for again at the next start; nothing else depends on them.
                tracing::warn!(why = with_causes(&error), "Packages could not be deleted.");
            }
            results.send(TaskResult::Update { command, event: Event::PackagesDeleted }).await.ok();
        });
    }

    /// Runs work of this update beside the agent; where it is interrupted, `interrupted` is its result.
    pub(super) fn spawn(
        &mut self,
        command: farrier_protocol::MsgId,
        work: impl Future<Output = Event> + Send + 'static,
        interrupted: Event,
    ) {
        let (results, interrupt) = (self.results.clone(), self.interrupt.clone());
        self.tasks.spawn(async move {
            let event = tokio::select! {
                event = work => event,
                () = interrupt.cancelled() => interrupted,
            };
            results.send(TaskResult::Update { command, event }).await.ok();
        });
    }
}

/// What ECUs run now is what later deltas begin with; what they do not run any more is of no use.
fn keep_images(
    images: &ImageStore,
    plan: &Plan,
    ending: Option<Ending>,
    downloader: &Downloader,
) -> std::io::Result<()> {
    match ending {
        Some(Ending::Committed) => images.keep(plan, clock::now(), |hash| downloader.image_path(hash)),
        Some(Ending::Undone | Ending::ServiceRequired(_)) => images.forget(plan.ecus()),
        Some(Ending::RolledBack(_) | Ending::Cancelled | Ending::ConsentDenied(_)) | None => Ok(()),
    }
}

/// One line about the end of an update, for the log.
fn log_ending(update: &VehicleUpdate, ending: &Ending) {
    let update_id = update.plan().update_id();
    match ending {
        Ending::Committed => tracing::info!(%update_id, "The update is committed on every ECU."),
        Ending::Undone => tracing::info!(%update_id, "The update is undone on every ECU."),
        Ending::Cancelled => tracing::info!(%update_id, "The update is cancelled."),
        Ending::ConsentDenied(why) => {
            tracing::warn!(%update_id, why = why.detail, "The update ends before anything was written.");
        }
        Ending::RolledBack(why) => {
            tracing::warn!(%update_id, why = why.detail, "The update failed; every ECU runs its earlier software.");
        }
        Ending::ServiceRequired(why) => {
            tracing::error!(%update_id, why = why.detail, "ECUs could not be brought to one state; service is required.");
        }
    }
}

async fn carry_out_call(
    links: &EcuLinks,
    downloader: &Downloader,
    plan: &Plan,
    ecu_id: &EcuId,
    call: EcuCall,
    status: &watch::Sender<Status>,
) -> Result<EcuOutcome, EcuError> {
    let done = |()| EcuOutcome::Done;
    match call {
        EcuCall::Identify => {
            let hardware = links.read_identification(ecu_id, &[IdentificationField::HwPartNo]).await?;
            let runs = runs(links.running(ecu_id).await?);
            let hw_part_no = hardware.get(IdentificationField::HwPartNo).unwrap_or_default().to_owned();
            Ok(EcuOutcome::Identified { hw_part_no, runs })
        }
        EcuCall::AskWhatRuns => Ok(EcuOutcome::Runs(runs(links.running(ecu_id).await?))),
        EcuCall::WriteInactiveBank => write(links, downloader, plan, ecu_id, status).await.map(done),
        EcuCall::Activate => links.activate(ecu_id).await.map(done),
        EcuCall::Reset => links.reset_and_wait(ecu_id).await.map(|_| EcuOutcome::Done),
        EcuCall::Confirm => links.confirm(ecu_id).await.map(done),
        EcuCall::RollBack => links.roll_back(ecu_id).await.map(done),
    }
}

async fn write(
    links: &EcuLinks,
    downloader: &Downloader,
    plan: &Plan,
    ecu_id: &EcuId,
    status: &watch::Sender<Status>,
) -> Result<(), EcuError> {
    let Some(package) = plan.package(ecu_id) else {
        return Err(EcuError::UnknownEcu { ecu_id: ecu_id.clone() });
    };
    let job = WriteJob {
        size: package.image_size_bytes,
        sha256: *package.image_sha256.as_bytes(),
        version: package.target_version.to_string(),
        hw_part_no: package.hw_part_no.to_string(),
    };
    let path = downloader.image_path(&package.image_sha256);
    let progress = |bytes| {
        status.send_modify(|status| {
            if let Some(ecu) = status.ecus.get_mut(ecu_id) {
                ecu.written_bytes = bytes;
            }
        });
    };
    links.write_inactive_bank(ecu_id, Image { path: &path, job }, progress).await
}

fn runs(running: Running) -> Runs {
    Runs {
        version: running.version,
        bank: running.active_bank,
        other_version: running.other_bank_version,
        trial: match running.trial {
            Trial::None => UpdateTrial::None,
            Trial::OnTrial => UpdateTrial::OnTrial,
            Trial::Confirmed => UpdateTrial::Confirmed,
        },
    }
}
