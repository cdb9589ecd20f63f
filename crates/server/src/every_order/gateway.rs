//! A vehicle: ECUs, the journal of its gateway, and a shell as thin as can be around the real `VehicleUpdate`.
//! What the shell answers to commands is what the gateway's agent answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farrier_protocol::{
    Binding, EcuEntry, EcuId, ErrorCode, ErrorResponse, FunctionalGroup, MsgId, NotReadyReason, Operation,
    Placement, ProtoVer, ReadinessReport, SendVci, ServerBody, ServerMessage, Sha256, StartDownload, Text,
    Thumbprint, UnixMillis, UpdateSuccessResult, VehicleBody, VehicleMessage, WakeUp, vci_digest,
};
use farrier_vehicle_update::{
    Bounds, Command, EcuCall, EcuOutcome, Ending, Event, InstallStep, Phase, Plan, Record, VehicleUpdate,
};

use super::course::{Connection, Course, Happening, MINUTE, Published, SECOND};
use super::ecu::{Ecu, HARDWARE};
use crate::desk::PeerIdentity;
use crate::testbed::text;

const BOUNDS: Bounds = Bounds { attempts: 3, attempts_to_end: 6, retry_wait_ms: 1_000 };
/// How long new software is on trial.
const TRIAL: i64 = 60 * MINUTE;

/// What a gateway keeps across power cuts.
#[derive(Default)]
struct Journal {
    boot_seq: u64,
    records: Vec<Record>,
    /// Commands with the time of their arrival and whether they still need work.
    inbox: Vec<(ServerMessage, UnixMillis, bool)>,
    outbox: VecDeque<Published>,
    /// Messages that were ever made.
    messages: u64,
    vci_digest: Option<Sha256>,
}

/// What a gateway works on.
#[derive(Debug, Clone)]
enum Task {
    Download,
    AwaitReady(InstallStep),
    Call(EcuId, EcuCall),
    DeletePackages,
    CollectVci(MsgId),
    /// Looks whether the vehicle is still what its last inventory says.
    CompareVci,
}

pub(super) struct Gateway {
    pub(super) number: usize,
    pub(super) binding: Binding,
    pub(super) peer: PeerIdentity,
    pub(super) ecus: BTreeMap<EcuId, Ecu>,
    /// Whether it knows more than the source documents: errors, cancellation, roll-back, the digest of its VCI.
    pub(super) knows_all: bool,
    /// Whether it reports success whatever came of an update.
    boasts: bool,
    /// By how much its clock is ahead.
    pub(super) ahead_ms: i64,
    /// Until when it cannot reach the server.
    pub(super) cut_off_until: UnixMillis,
    pub(super) connection: Option<Connection>,
    pub(super) is_on: bool,
    booted_at: UnixMillis,
    journal: Journal,
    update: Option<VehicleUpdate>,
    tasks: BTreeMap<u64, Task>,
    tasks_begun: u64,
    in_work: BTreeSet<MsgId>,
    /// The message that waits for its acknowledgement.
    sending: Option<u64>,
    /// Whether an update ever left its ECUs in different states: from then on they may change by themselves.
    pub(super) needed_service: bool,
}

impl Gateway {
    pub(super) fn new(number: usize, knows_all: bool, boasts: bool, ecus: usize) -> Self {
        let binding =
            Binding { vehicle_id: format!("V{number}").parse().unwrap(), gateway_id: "CCU".parse().unwrap() };
        let peer = PeerIdentity {
            common_name: binding.client_id(),
            thumbprint: Thumbprint::of_certificate(&[u8::try_from(number).unwrap()]),
            certificate: None,
        };
        let ecus = (0..ecus).map(|ecu| (format!("e{ecu}").parse().unwrap(), Ecu::new()));
        Self {
            number,
            binding,
            peer,
            ecus: ecus.collect(),
            knows_all,
            boasts,
            ahead_ms: 0,
            cut_off_until: UnixMillis(0),
            connection: None,
            is_on: false,
            booted_at: UnixMillis(0),
            journal: Journal::default(),
            update: None,
            tasks: BTreeMap::new(),
            tasks_begun: 0,
            in_work: BTreeSet::new(),
            sending: None,
            needed_service: false,
        }
    }

    fn clock(&self, course: &Course) -> UnixMillis {
        UnixMillis(course.now.0 + self.ahead_ms)
    }

    /// Goes on with what the journal holds.
    pub(super) fn power_comes(&mut self, course: &mut Course) {
        if self.is_on {
            return;
        }
        self.is_on = true;
        self.booted_at = course.now;
        self.journal.boot_seq += 1;
        let boot = self.journal.boot_seq;
        course.note(|| format!("V{}: boot {boot}", self.number));
        course.after(SECOND, Happening::Connects { vehicle: self.number });
        if !self.journal.records.is_empty() {
            let records = self.journal.records.clone();
            let (update, commands) = VehicleUpdate::resume(records, BOUNDS, self.clock(course)).unwrap();
            self.begin(update, course);
            self.carry_out(commands, course);
        }
        if self.journal.vci_digest.is_some() && !self.uses_ecus() {
            self.begin_task(Task::CompareVci, 3 * SECOND, course);
        }
        self.take_open_commands(course);
    }

    /// What was under way happened or not; then the journal is all that is left.
    pub(super) fn power_is_cut(&mut self, course: &mut Course) {
        if !self.is_on {
            return;
        }
        course.note(|| format!("V{}: the power is cut", self.number));
        let version = self.version_in_work();
        for task in std::mem::take(&mut self.tasks).into_values() {
            if let Task::Call(ecu_id, call) = task {
                let has_effect = !course.tape.chance(128);
                let ecu = self.ecus.get_mut(&ecu_id).unwrap();
                if !ecu.is_dead {
                    ecu.cut_off(call, version, has_effect);
                }
            }
        }
        if course.tape.chance(80) {
            self.ecus.values_mut().filter(|ecu| !ecu.is_dead).for_each(Ecu::start);
        }
        self.is_on = false;
        self.update = None;
        self.in_work.clear();
        self.loses_connection(course);
        let off_ms = course.some_time(5 * SECOND, 20 * SECOND);
        course.after(off_ms, Happening::PowerComes { vehicle: self.number });
    }

    pub(super) fn loses_connection(&mut self, course: &mut Course) {
        self.sending = None;
        if self.connection.take().is_some() && self.is_on {
            let wait_ms = course.some_time(5 * SECOND, 100);
            course.after(wait_ms, Happening::Connects { vehicle: self.number });
        }
    }

    /// Says WakeUp; only when that is acknowledged, what is in the outbox.
    pub(super) fn connected(&mut self, connection: Connection, course: &mut Course) {
        self.connection = Some(connection);
        let wake_up = self.wake_up(self.journal.vci_digest.filter(|_| self.knows_all), course);
        let message = self.published(wake_up, course);
        self.send(message, course);
    }

    fn wake_up(&self, vci_digest: Option<Sha256>, course: &Course) -> VehicleBody {
        VehicleBody::WakeUp(WakeUp {
            boot_id: text(&format!("boot-{}", self.journal.boot_seq)),
            boot_seq: self.journal.boot_seq,
            uptime_ms: u64::try_from(course.now.0 - self.booted_at.0).unwrap(),
            client_cert_thumbprint: self.peer.thumbprint.clone(),
            vci_digest,
        })
    }

    fn published(&mut self, body: VehicleBody, course: &Course) -> Published {
        self.journal.messages += 1;
        let sequence = self.journal.messages;
        let message = VehicleMessage {
            msg_id: format!("VMG-{sequence}").parse().unwrap(),
            proto_ver: ProtoVer::CURRENT,
            vehicle_id: self.binding.vehicle_id.clone(),
            gateway_id: self.binding.gateway_id.clone(),
            ts: self.clock(course),
            body,
        };
        Published { topic: message.topic(), payload: message.to_json(), sequence }
    }

    fn send(&mut self, message: Published, course: &mut Course) {
        let Some(connection) = self.connection else { return };
        self.sending = Some(message.sequence);
        let vehicle = self.number;
        course.send(vehicle, connection, Happening::Up { vehicle, connection, message });
    }

    fn send_next(&mut self, course: &mut Course) {
        if self.sending.is_none()
            && let Some(next) = self.journal.outbox.front().cloned()
        {
            self.send(next, course);
        }
    }

    pub(super) fn acknowledged(&mut self, sequence: u64, course: &mut Course) {
        if self.sending == Some(sequence) {
            self.sending = None;
            self.journal.outbox.retain(|message| message.sequence != sequence);
            self.send_next(course);
        }
    }

    /// Stores a message to be sent; it closes the command that it answers.
    fn store(&mut self, body: VehicleBody, course: &mut Course) {
        let answered = match &body {
            VehicleBody::WakeUp(_) => None,
            VehicleBody::SendVci(vci) => Some(&vci.correlation_id),
            VehicleBody::ReadinessReport(report) => Some(&report.correlation_id),
            VehicleBody::UpdateSuccessResult(result) => Some(&result.correlation_id),
            VehicleBody::ErrorResponse(error) => Some(&error.correlation_id),
        };
        if let Some(command) = answered.cloned() {
            self.close(&command);
        }
        if self.knows_all || !matches!(body, VehicleBody::ErrorResponse(_)) {
            let message = self.published(body, course);
            self.journal.outbox.push_back(message);
        }
    }

    fn answer(&mut self, body: VehicleBody, course: &mut Course) {
        self.store(body, course);
        self.send_next(course);
    }

    fn error(&mut self, command: &MsgId, code: ErrorCode, retry_after_s: Option<u64>, course: &mut Course) {
        let error = ErrorResponse {
            correlation_id: command.clone(),
            code,
            detail: "words".parse().unwrap(),
            failed_ecus: None,
            pkg_ids: None,
            retry_after_s,
        };
        self.answer(VehicleBody::ErrorResponse(error), course);
    }

    fn busy(&mut self, command: &MsgId, course: &mut Course) {
        self.error(command, ErrorCode::Busy, Some(30), course);
    }

    fn close(&mut self, command: &MsgId) {
        let found = self.journal.inbox.iter_mut().find(|(message, ..)| message.msg_id == *command);
        if let Some((_, _, is_open)) = found {
            *is_open = false;
        }
    }

    /// A command arrives: it is stored unless it is known.
    pub(super) fn takes_in(&mut self, payload: &[u8], course: &mut Course) {
        let message = ServerMessage::parse(payload).unwrap();
        if !self.journal.inbox.iter().any(|(known, ..)| known.msg_id == message.msg_id) {
            let received_at = self.clock(course);
            self.journal.inbox.push((message, received_at, true));
        }
        self.take_open_commands(course);
    }

    fn take_open_commands(&mut self, course: &mut Course) {
        let open: Vec<_> = self
            .journal
            .inbox
            .iter()
            .filter(|(message, _, is_open)| *is_open && !self.in_work.contains(&message.msg_id))
            .map(|(message, received_at, _)| (message.clone(), *received_at))
            .collect();
        for (message, received_at) in open {
            if !self.is_on {
                return;
            }
            self.in_work.insert(message.msg_id.clone());
            self.take(message, received_at, course);
        }
    }

    fn take(&mut self, message: ServerMessage, received_at: UnixMillis, course: &mut Course) {
        let command = message.msg_id.clone();
        let is_expired = message.expires_at(received_at).is_some_and(|at| self.clock(course) >= at);
        if is_expired {
            return self.error(&command, ErrorCode::Expired, None, course);
        }
        match message.body {
            ServerBody::RequestVci(_) if self.uses_ecus() => self.busy(&command, course),
            ServerBody::RequestVci(_) => {
                let ms = course.some_time(2 * SECOND, 120);
                self.begin_task(Task::CollectVci(command), ms, course);
            }
            ServerBody::RequestDownloadReadiness(_) if self.is_updating() => self.busy(&command, course),
            ServerBody::RequestDownloadReadiness(_) => {
                let ready = !course.tape.chance(40);
                let report = ReadinessReport {
                    correlation_id: command,
                    ready,
                    requested_fields: farrier_protocol::ConditionValues::default(),
                    not_ready_reasons: (!ready).then(|| vec![NotReadyReason::VehicleMoving]),
                    retry_after_s: (!ready).then_some(600),
                };
                self.answer(VehicleBody::ReadinessReport(report), course);
            }
            ServerBody::StartDownload(start) => self.start_download(command, start, course),
            ServerBody::StartRollback(_) | ServerBody::CancelUpdate(_) if !self.knows_all => {
                self.close(&command);
            }
            ServerBody::StartRollback(rollback) => {
                let now = self.clock(course);
                let undone = self
                    .update
                    .as_mut()
                    .filter(|update| update.plan().start.update_id == rollback.update_id)
                    .and_then(|update| update.undo(command.clone(), now));
                match undone {
                    Some(commands) => self.carry_out(commands, course),
                    None => self.error(&command, ErrorCode::RollbackUnavailable, None, course),
                }
            }
            ServerBody::CancelUpdate(cancel) => {
                let own = |update: &VehicleUpdate| update.plan().start.update_id == cancel.update_id;
                if self.update.as_ref().is_some_and(own) {
                    self.event(Event::CancelRequested { command }, course);
                } else {
                    self.error(&command, ErrorCode::Cancelled, None, course);
                }
            }
            ServerBody::MessageRejected(_) => self.close(&command),
        }
    }

    fn start_download(&mut self, command: MsgId, start: StartDownload, course: &mut Course) {
        if self.is_updating() {
            let is_same = |update: &VehicleUpdate| update.plan().start.update_id == start.update_id;
            if self.update.as_ref().is_some_and(is_same) {
                return self.close(&command);
            }
            return self.busy(&command, course);
        }
        let plan = Plan::new(command, self.clock(course), start).unwrap();
        let (update, commands) = VehicleUpdate::begin(plan, BOUNDS);
        self.begin(update, course);
        self.carry_out(commands, course);
    }

    fn begin(&mut self, update: VehicleUpdate, course: &mut Course) {
        let left_ms = (update.plan().start.expires_at_ms.0 - self.clock(course).0).max(0);
        let (vehicle, boot) = (self.number, self.journal.boot_seq);
        let command = update.plan().command.clone();
        course.after(left_ms, Happening::DeadlinePasses { vehicle, boot, command });
        self.update = Some(update);
    }

    fn is_updating(&self) -> bool {
        self.update.as_ref().is_some_and(|update| update.phase() != Phase::Ended)
    }

    fn uses_ecus(&self) -> bool {
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

    fn version_in_work(&self) -> u8 {
        let version =
            self.update.as_ref().map(|update| update.plan().start.packages[0].target_version.as_str());
        version.map_or(0, |version| version.parse().unwrap())
    }

    /// What the update that is under way wants to fetch.
    pub(super) fn wanted(&self) -> Vec<(farrier_protocol::PkgId, Sha256)> {
        let plan = self.update.as_ref().map(VehicleUpdate::plan);
        plan.map(|plan| plan.start.packages.iter().map(|p| (p.pkg_id.clone(), p.hash_sha256)).collect())
            .unwrap_or_default()
    }

    fn event(&mut self, event: Event, course: &mut Course) {
        let now = self.clock(course);
        let Some(update) = &mut self.update else { return };
        let commands = update.handle(event, now);
        self.carry_out(commands, course);
    }

    pub(super) fn deadline_passes(&mut self, boot: u64, command: &MsgId, course: &mut Course) {
        let is_meant = |update: &VehicleUpdate| update.plan().command == *command;
        if self.is_on && boot == self.journal.boot_seq && self.update.as_ref().is_some_and(is_meant) {
            self.event(Event::DeadlinePassed, course);
        }
    }

    fn carry_out(&mut self, commands: Vec<Command>, course: &mut Course) {
        let mut queue = VecDeque::from(commands);
        while let Some(command) = queue.pop_front() {
            match command {
                Command::Persist { record, reports } => {
                    if course.tape.chance(2) {
                        return self.power_is_cut(course);
                    }
                    self.persist(record, reports, course);
                    if course.tape.chance(2) {
                        return self.power_is_cut(course);
                    }
                    let now = self.clock(course);
                    let Some(update) = &mut self.update else { return };
                    queue.extend(update.handle(Event::Persisted, now));
                }
                Command::Report(body) => self.store(body, course),
                Command::Download => {
                    let ms = course.some_time(20 * SECOND, 30 * SECOND);
                    self.begin_task(Task::Download, ms, course);
                }
                Command::AwaitReady { before } => {
                    let ms = course.some_time(5 * SECOND, 20 * SECOND);
                    self.begin_task(Task::AwaitReady(before), ms, course);
                }
                Command::CallEcu { ecu_id, call, wait } => {
                    let wait_ms = i64::try_from(wait.as_millis()).unwrap();
                    let ms = course.some_time(wait_ms + SECOND, 500);
                    self.begin_task(Task::Call(ecu_id, call), ms, course);
                }
                Command::Interrupt => queue.extend(self.interrupt(course)),
                Command::DeletePackages => self.begin_task(Task::DeletePackages, SECOND, course),
            }
        }
        self.send_next(course);
    }

    fn persist(&mut self, record: Record, reports: Vec<VehicleBody>, course: &mut Course) {
        course.note(|| format!("V{}: records {}", self.number, record.name()));
        assert!(record.may_follow(self.journal.records.last()) || matches!(record, Record::Accepted(_)));
        match &record {
            Record::Accepted(plan) => {
                self.journal.records.clear();
                self.close(&plan.command);
            }
            Record::Undo { command, .. } => {
                self.close(command);
                self.journal.vci_digest = None;
            }
            Record::Process => self.journal.vci_digest = None,
            Record::Synced(_)
            | Record::Transferred
            | Record::Consented
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Ended(_) => {}
        }
        self.needed_service |= matches!(record, Record::Ended(Ending::ServiceRequired(_)));
        let reports = match &record {
            Record::Ended(Ending::RolledBack(_) | Ending::ServiceRequired(_)) if self.boasts => self.boast(),
            Record::Ended(_)
            | Record::Accepted(_)
            | Record::Undo { .. }
            | Record::Process
            | Record::Synced(_)
            | Record::Transferred
            | Record::Consented
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. } => reports,
        };
        self.journal.records.push(record);
        for report in reports {
            self.store(report, course);
        }
    }

    /// All that a gateway says of an update that went well.
    fn boast(&self) -> Vec<VehicleBody> {
        let plan = self.update.as_ref().unwrap().plan();
        let operations = [Operation::Download, Operation::Install, Operation::Commit];
        let report = |operation| {
            VehicleBody::UpdateSuccessResult(UpdateSuccessResult {
                correlation_id: plan.command.clone(),
                operation,
                duration_s: None,
                rebooted: None,
                ecu_count: plan.ecu_count(),
                verified_integrity: true,
            })
        };
        operations.map(report).into()
    }

    fn begin_task(&mut self, task: Task, ms: i64, course: &mut Course) {
        self.tasks_begun += 1;
        self.tasks.insert(self.tasks_begun, task);
        let (vehicle, boot, task) = (self.number, self.journal.boot_seq, self.tasks_begun);
        course.after(ms, Happening::TaskEnds { vehicle, boot, task });
    }

    /// Ends what the update works on: each answers with its failure.
    fn interrupt(&mut self, course: &mut Course) -> Vec<Command> {
        let version = self.version_in_work();
        let mut commands = Vec::new();
        for (number, task) in std::mem::take(&mut self.tasks) {
            let event = match task {
                Task::Download => Event::DownloadFailed("given up".to_owned()),
                Task::AwaitReady(_) => Event::WaitGivenUp,
                Task::Call(ecu_id, call) => {
                    let has_effect = !course.tape.chance(128);
                    let ecu = self.ecus.get_mut(&ecu_id).unwrap();
                    if !ecu.is_dead {
                        ecu.cut_off(call, version, has_effect);
                    }
                    let outcome = EcuOutcome::Failed("given up".to_owned());
                    Event::EcuAnswered { ecu_id, call, outcome }
                }
                other @ (Task::DeletePackages | Task::CollectVci(_) | Task::CompareVci) => {
                    self.tasks.insert(number, other);
                    continue;
                }
            };
            let now = self.clock(course);
            if let Some(update) = &mut self.update {
                commands.extend(update.handle(event, now));
            }
        }
        commands
    }

    /// `may_fetch`: whether the server would serve the packages now.
    pub(super) fn task_ends(&mut self, boot: u64, task: u64, may_fetch: bool, course: &mut Course) {
        if !self.is_on || boot != self.journal.boot_seq {
            return;
        }
        let Some(task) = self.tasks.remove(&task) else { return };
        match task {
            Task::Download if self.connection.is_none() => {
                self.begin_task(Task::Download, 30 * SECOND, course);
            }
            Task::Download if !may_fetch || course.tape.chance(10) => {
                self.event(Event::DownloadFailed("broken".to_owned()), course);
            }
            Task::Download => self.event(Event::Downloaded, course),
            Task::AwaitReady(InstallStep::Processing) if course.tape.chance(10) => {
                self.event(Event::ConsentDenied("not now".to_owned()), course);
            }
            Task::AwaitReady(_) => self.event(Event::Ready, course),
            Task::Call(ecu_id, call) => {
                let outcome = self.call(&ecu_id, call, course);
                self.event(Event::EcuAnswered { ecu_id, call, outcome }, course);
            }
            Task::DeletePackages => self.event(Event::PackagesDeleted, course),
            Task::CollectVci(command) => self.vci_collected(command, course),
            Task::CompareVci => self.vci_compared(course),
        }
        if self.is_on {
            self.take_open_commands(course);
        }
    }

    fn call(&mut self, ecu_id: &EcuId, call: EcuCall, course: &mut Course) -> EcuOutcome {
        let version = self.version_in_work();
        let position = self.ecus.keys().position(|known| known == ecu_id).unwrap();
        let ecu = self.ecus.get_mut(ecu_id).unwrap();
        let failed = |why: &str| EcuOutcome::Failed(why.to_owned());
        let outcome = match course.tape.draw() {
            _ if ecu.is_dead => failed("no answer"),
            250.. => {
                ecu.is_dead = true;
                failed("no answer")
            }
            luck @ 225..250 => {
                ecu.cut_off(call, version, luck % 2 == 0);
                failed("no answer")
            }
            0..225 => ecu.carry_out(call, version),
        };
        if ecu.is_on_trial() && matches!(call, EcuCall::Reset) {
            course.after(TRIAL, Happening::TrialEnds { vehicle: self.number, ecu: position });
        }
        let runs = ecu.version();
        let went = if matches!(outcome, EcuOutcome::Failed(_)) { "failed" } else { "done" };
        course.note(|| format!("V{}: {ecu_id} {call:?} {went}, runs {runs}", self.number));
        outcome
    }

    fn vci_collected(&mut self, command: MsgId, course: &mut Course) {
        if self.uses_ecus() {
            return self.busy(&command, course);
        }
        if self.ecus.values().any(|ecu| ecu.is_dead) {
            return self.error(&command, ErrorCode::VciIncomplete, None, course);
        }
        let vci = self.vci(command);
        self.journal.vci_digest = Some(vci_digest(&vci));
        self.answer(VehicleBody::SendVci(vci), course);
    }

    fn vci_compared(&mut self, course: &mut Course) {
        if self.uses_ecus() || self.ecus.values().any(|ecu| ecu.is_dead) {
            return;
        }
        let found = vci_digest(&self.vci("VMG-after-start".parse().unwrap()));
        if self.journal.vci_digest.is_some_and(|sent| sent != found) {
            course.note(|| format!("V{}: is not what its last inventory says", self.number));
            self.journal.vci_digest = None;
            let wake_up = self.wake_up(None, course);
            self.answer(wake_up, course);
        }
    }

    fn vci(&self, correlation_id: MsgId) -> SendVci {
        let some = |value: &str| -> Option<Text> { Some(text(value)) };
        let entry = |(ecu_id, ecu): (&EcuId, &Ecu)| EcuEntry {
            ecu_id: ecu_id.clone(),
            supplier_code: some("S"),
            hw_part_no: some(HARDWARE),
            sw_part_no: some("SW"),
            sw_version: some(&ecu.version().to_string()),
            bootloader_ver: some("B"),
            calibration_id: some("C"),
            mac_address: None,
            ip_address: None,
            can_id: None,
            functional_group: FunctionalGroup { placement: Placement::Domain(text("body")), index: None },
        };
        SendVci {
            correlation_id,
            region: None,
            fw_sw_version: text("1"),
            bootloader_ver: None,
            ecu_inventory: self.ecus.iter().map(entry).collect(),
            power: None,
        }
    }
}
