//! The server, its vehicles and their operator, moved by one happening after another, and what must be true when
//! nothing is under way any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use farrier_campaign::{
    ApprovalRule, DeltaSettings, Event, GateRecord, Image, PlannedPackage, Release, Rollout, Settings, State,
};
use farrier_protocol::{Binding, MsgId, ServerMessage, Sha256, Text, UnixMillis};

use super::course::{Connection, Course, Happening, MINUTE, Order, Published, SECOND};
use super::ecu::{Ecu, HARDWARE};
use super::gateway::Gateway;
use super::tape::Tape;
use crate::config::Enroll;
use crate::conversation::{Presence, ReadMessage, Rules, advance, receive, start, take_in_first};
use crate::desk::{Inbound, Receipt};
use crate::runner::{look_at_a_campaign, run_due};
use crate::store::campaigns::{Aborted, Campaign};
use crate::store::in_memory::InMemory;
use crate::store::intake::{Intake, KnownQueries};
use crate::store::packages::Grant;
use crate::store::releases::{KnownReleases, StoredImage};
use crate::store::updates::VehicleUpdate;
use crate::store::{StoreError, Tx, campaigns, commands, messages, packages, releases, senders, updates};
use crate::testbed::{START, text};

/// Commands that are on their way at the same time.
const WINDOW: usize = 8;
/// What happens in one world before it counts as one that finds no rest.
const MOST_HAPPENINGS: u32 = 20_000;
const UPDATE_DEADLINE_S: u64 = 3_600;
/// The campaign that brings version 2 once more.
const AGAIN: u8 = 4;

/// The server's end of a connection.
struct Line {
    connection: Connection,
    on_their_way: BTreeSet<MsgId>,
}

struct Server<'s> {
    store: &'s InMemory,
    rules: Rules,
    connected: Arc<Mutex<BTreeSet<Binding>>>,
    /// One per vehicle.
    lines: Vec<Option<Line>>,
    is_up: bool,
    last_run: UnixMillis,
    /// Which waking of the runner counts.
    waking: u64,
    connections: Connection,
}

pub(super) struct World<'s> {
    pub(super) course: Course,
    server: Server<'s>,
    gateways: Vec<Gateway>,
    /// Ids of accepted messages whose acknowledgement went out, per vehicle.
    acknowledged: BTreeSet<(usize, u64)>,
    /// Once nothing goes wrong any more.
    is_calm: bool,
}

impl<'s> World<'s> {
    pub(super) fn new(store: &'s InMemory, mut tape: Tape, logs: bool) -> Self {
        let failure_report = !tape.chance(100);
        let vehicles = if tape.chance(60) { 2 } else { 1 };
        let gateways: Vec<_> = (0..vehicles)
            .map(|number| {
                let knows_all = !tape.chance(80);
                let boasts = tape.chance(20);
                let ecus = 1 + (1 + tape.below(3)) % 3;
                Gateway::new(number, knows_all, boasts, ecus)
            })
            .collect();
        let connected = Arc::new(Mutex::new(BTreeSet::<Binding>::new()));
        let seen = Arc::clone(&connected);
        let rules = Rules {
            settings: Settings::default(),
            deltas: DeltaSettings { at_most_percent: 0, ..DeltaSettings::default() },
            set_aside_after: 3,
            enroll: Enroll::Auto,
            releases: KnownReleases::default(),
            queries: KnownQueries::default(),
            approval: ApprovalRule::default(),
            base_url: "https://localhost:8443".parse().unwrap(),
            max_kb_per_msg: 512,
            failure_report,
            presence: Presence::Connections(Arc::new(move |binding| seen.lock().unwrap().contains(binding))),
        };
        let server = Server {
            store,
            rules,
            connected,
            lines: gateways.iter().map(|_| None).collect(),
            is_up: true,
            last_run: START,
            waking: 0,
            connections: 0,
        };
        let course = Course::new(tape, logs);
        let mut world = Self { course, server, gateways, acknowledged: BTreeSet::new(), is_calm: false };
        world.plan_the_day();
        world
    }

    /// Vehicles start, the operator starts a campaign, and perhaps acts again later.
    fn plan_the_day(&mut self) {
        for version in [2, 3] {
            self.job(true, |tx, _, now| release(tx, version, now));
        }
        for vehicle in 0..self.gateways.len() {
            let after_ms = self.course.some_time(0, 2 * SECOND);
            self.course.after(after_ms, Happening::PowerComes { vehicle });
        }
        self.course.after(MINUTE, Happening::OperatorActs(Order::Start { version: 2 }));
        for _ in 0..3 {
            let (kind, version) = (self.course.tape.draw(), 2 + u8::from(self.course.tape.chance(60)));
            let vehicle = self.course.tape.below(self.gateways.len());
            let at_ms = self.course.some_time(MINUTE, MINUTE);
            let order = match kind {
                0..140 => continue,
                140..180 => Order::Cancel { vehicle, version },
                180..215 => Order::RollBack { vehicle, version },
                215..240 => Order::Start { version: 3 },
                240..248 => Order::Start { version: AGAIN },
                248.. => Order::Abort { version },
            };
            self.course.after(at_ms, Happening::OperatorActs(order));
        }
    }

    /// Lives until nothing is to come; says what is wrong then, if anything is.
    pub(super) fn live(&mut self) -> Result<(), String> {
        self.until_rest()?;
        self.check(Rest::Quiet)?;
        // The next day: what was broken is mended, and whatever could not be found out before, a WakeUp tells.
        self.course.tape.end();
        self.calm_down();
        for vehicle in 0..self.gateways.len() {
            self.gateways[vehicle].power_is_cut(&mut self.course);
            self.break_line(vehicle);
        }
        self.until_rest()?;
        self.check(Rest::NextDay)
    }

    fn until_rest(&mut self) -> Result<(), String> {
        for _ in 0..MOST_HAPPENINGS {
            if self.course.tape.is_used_up() {
                self.calm_down();
            }
            self.perhaps_fault();
            let Some(happening) = self.course.next() else { return Ok(()) };
            self.happens(happening);
        }
        Err(format!("there is no rest after {MOST_HAPPENINGS} happenings"))
    }

    /// Nothing is broken any more; what was done stays as it is.
    fn calm_down(&mut self) {
        if std::mem::replace(&mut self.is_calm, true) {
            return;
        }
        self.course.note(|| "from now on nothing goes wrong".to_owned());
        for gateway in &mut self.gateways {
            gateway.ahead_ms = 0;
            gateway.cut_off_until = UnixMillis(0);
            gateway.ecus.values_mut().for_each(|ecu| ecu.is_dead = false);
        }
    }

    fn perhaps_fault(&mut self) {
        if !self.course.tape.chance(7) {
            return;
        }
        let vehicle = self.course.tape.below(self.gateways.len());
        match self.course.tape.below(9) {
            0 => self.break_line(vehicle),
            1 => {
                let ms = self.course.some_time(MINUTE, MINUTE);
                self.gateways[vehicle].cut_off_until = UnixMillis(self.course.now.0 + ms);
                self.course.note(|| format!("V{vehicle}: out of reach for {} s", ms / SECOND));
                self.break_line(vehicle);
            }
            2 => {
                self.gateways[vehicle].power_is_cut(&mut self.course);
                self.break_line(vehicle);
            }
            3 => self.server_dies(),
            4 => self.with_ecu(vehicle, "restarts", Ecu::start),
            5 => self.with_ecu(vehicle, "answers no more", |ecu| ecu.is_dead = true),
            6 => self.with_ecu(vehicle, "answers again", |ecu| ecu.is_dead = false),
            7 => self.with_ecu(vehicle, "ends its trial", Ecu::end_trial),
            _ => {
                let ahead_min = [-120, -10, 10, 120][self.course.tape.below(4)];
                self.gateways[vehicle].ahead_ms = ahead_min * MINUTE;
                self.course.note(|| format!("V{vehicle}: its clock is {ahead_min} min ahead"));
            }
        }
    }

    fn with_ecu(&mut self, vehicle: usize, does: &str, change: impl FnOnce(&mut Ecu)) {
        let ecus = &mut self.gateways[vehicle].ecus;
        let position = self.course.tape.below(ecus.len());
        let (ecu_id, ecu) = ecus.iter_mut().nth(position).unwrap();
        if !ecu.is_dead || does == "answers again" {
            change(ecu);
            self.course.note(|| format!("V{vehicle}: {ecu_id} {does}"));
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Up { vehicle, connection, message } => self.up(vehicle, connection, &message),
            Happening::UpAcknowledged { vehicle, connection, sequence } => {
                let gateway = &mut self.gateways[vehicle];
                if gateway.connection == Some(connection) {
                    gateway.acknowledged(sequence, &mut self.course);
                }
            }
            Happening::Down { vehicle, connection, msg_id, payload } => {
                let gateway = &mut self.gateways[vehicle];
                if gateway.connection == Some(connection) {
                    let acknowledgement = Happening::DownAcknowledged { vehicle, connection, msg_id };
                    gateway.takes_in(&payload, &mut self.course);
                    self.course.send(vehicle, connection, acknowledgement);
                }
            }
            Happening::DownAcknowledged { vehicle, connection, msg_id } => {
                self.down_acknowledged(vehicle, connection, msg_id);
            }
            Happening::Connects { vehicle } => self.connects(vehicle),
            Happening::GatewayLoses { vehicle, connection } => {
                let gateway = &mut self.gateways[vehicle];
                if gateway.connection == Some(connection) {
                    self.course.note(|| format!("V{vehicle}: loses its connection"));
                    gateway.loses_connection(&mut self.course);
                }
            }
            Happening::ServerLoses { vehicle, connection } => self.server_loses(vehicle, connection),
            Happening::PowerComes { vehicle } => self.gateways[vehicle].power_comes(&mut self.course),
            Happening::TaskEnds { vehicle, boot, task } => {
                let may_fetch = self.may_fetch(vehicle);
                self.gateways[vehicle].task_ends(boot, task, may_fetch, &mut self.course);
            }
            Happening::DeadlinePasses { vehicle, boot, command } => {
                self.gateways[vehicle].deadline_passes(boot, &command, &mut self.course);
            }
            Happening::TrialEnds { vehicle, ecu } => {
                let ecu = self.gateways[vehicle].ecus.values_mut().nth(ecu).unwrap();
                ecu.end_trial();
            }
            Happening::RunnerWakes { number } if self.server.is_up && number == self.server.waking => {
                self.run_due();
            }
            Happening::RunnerWakes { .. } => {}
            Happening::ServerStarts => {
                self.course.note(|| "the server starts".to_owned());
                self.server.is_up = true;
                self.server.last_run = self.course.now;
                self.wake_runner(0);
            }
            Happening::OperatorActs(order) => self.operator_acts(order),
        }
    }

    /// Runs a job of the server, and does what follows from its commit.
    fn job<T>(
        &mut self,
        keep: bool,
        job: impl FnOnce(&Tx<'_>, &Rules, UnixMillis) -> Result<T, StoreError>,
    ) -> T {
        let (rules, now) = (&self.server.rules, self.course.now);
        let (value, committed) = self.server.store.job(keep, |tx| job(tx, rules, now));
        if keep {
            for binding in committed.wake {
                let vehicle = self.gateways.iter().position(|gateway| gateway.binding == binding);
                self.look_into_outbox(vehicle.unwrap());
            }
            if committed.due_changed {
                self.wake_runner(0);
            }
        }
        value
    }

    fn wake_runner(&mut self, after_ms: i64) {
        self.server.waking += 1;
        self.course.after(after_ms, Happening::RunnerWakes { number: self.server.waking });
    }

    fn run_due(&mut self) {
        let since = self.server.last_run;
        let ran = self.job(true, |tx, rules, now| run_due(tx, rules, since, now));
        let has_more_to_look_at = self.job(true, look_at_a_campaign);
        let now = self.course.now;
        self.server.last_run = now;
        let next_ms = ran.next.map(|next| (next.0 - now.0).max(0));
        if let Some(next_ms) = if ran.has_more || has_more_to_look_at { Some(0) } else { next_ms } {
            self.wake_runner(next_ms);
        }
    }

    fn up(&mut self, vehicle: usize, connection: Connection, message: &Published) {
        // Whether the connection still stands does not matter: it may have arrived before that broke.
        if !self.server.is_up {
            return;
        }
        let fate = self.course.tape.draw();
        let keep = fate < 253;
        let gateway = &self.gateways[vehicle];
        let inbound = Inbound {
            peer: Some(Arc::new(gateway.peer.clone())),
            binding: gateway.binding.clone(),
            topic: message.topic,
            payload: message.payload.clone().into(),
            received_at: self.course.now,
        };
        let before = self.shown_states(vehicle);
        let receipt = self.job(keep, |tx, rules, _| receive(tx, rules, &ReadMessage::of(inbound)));
        let after = self.shown_states(vehicle);
        self.course.note(|| {
            let shown = String::from_utf8_lossy(&message.payload);
            let what = message.topic.name();
            format!("V{vehicle} → {what}: {receipt:?} ({before} → {after}) {shown}")
        });
        if fate >= 250 {
            return self.server_dies();
        }
        if receipt == Receipt::Accepted {
            self.acknowledged.insert((vehicle, message.sequence));
        }
        let sequence = message.sequence;
        let acknowledgement = Happening::UpAcknowledged { vehicle, connection, sequence };
        self.course.send(vehicle, connection, acknowledgement);
    }

    fn look_into_outbox(&mut self, vehicle: usize) {
        let now = self.course.now;
        let Some(line) = self.server.lines[vehicle].as_mut().filter(|_| self.server.is_up) else { return };
        let binding = &self.gateways[vehicle].binding;
        let (pending, _) = self.server.store.job(false, |tx| commands::pending(tx, binding, now, WINDOW));
        for command in pending {
            if line.on_their_way.len() >= WINDOW || !line.on_their_way.insert(command.msg_id.clone()) {
                continue;
            }
            let connection = line.connection;
            let (msg_id, payload) = (command.msg_id, command.payload.into_bytes());
            self.course.note(|| {
                let what = ServerMessage::parse(&payload).unwrap().message_type();
                format!("server → V{vehicle}: {what} {msg_id}")
            });
            self.course.send(vehicle, connection, Happening::Down { vehicle, connection, msg_id, payload });
        }
    }

    fn down_acknowledged(&mut self, vehicle: usize, connection: Connection, msg_id: MsgId) {
        let line = self.server.lines[vehicle].as_mut().filter(|line| line.connection == connection);
        let Some(line) = line.filter(|_| self.server.is_up) else { return };
        if !line.on_their_way.remove(&msg_id) {
            return;
        }
        let binding = self.gateways[vehicle].binding.clone();
        self.job(true, |tx, _, now| commands::delivered(tx, &binding, &msg_id, now));
        self.look_into_outbox(vehicle);
    }

    fn connects(&mut self, vehicle: usize) {
        let gateway = &mut self.gateways[vehicle];
        if !gateway.is_on || gateway.connection.is_some() {
            return;
        }
        let out_of_reach_ms = gateway.cut_off_until.0 - self.course.now.0;
        if !self.server.is_up || out_of_reach_ms > 0 {
            let wait_ms = out_of_reach_ms.max(30 * SECOND);
            return self.course.after(wait_ms, Happening::Connects { vehicle });
        }
        self.server.connections += 1;
        let connection = self.server.connections;
        self.course.note(|| format!("V{vehicle}: connects"));
        self.server.lines[vehicle] = Some(Line { connection, on_their_way: BTreeSet::new() });
        self.server.connected.lock().unwrap().insert(gateway.binding.clone());
        gateway.connected(connection, &mut self.course);
        self.look_into_outbox(vehicle);
    }

    fn server_loses(&mut self, vehicle: usize, connection: Connection) {
        if self.server.lines[vehicle].as_ref().is_some_and(|line| line.connection == connection) {
            self.server.lines[vehicle] = None;
            self.server.connected.lock().unwrap().remove(&self.gateways[vehicle].binding);
        }
    }

    fn break_line(&mut self, vehicle: usize) {
        if let Some(line) = &self.server.lines[vehicle] {
            self.course.breaks(vehicle, line.connection, 0);
        }
    }

    fn server_dies(&mut self) {
        if !std::mem::replace(&mut self.server.is_up, false) {
            return;
        }
        self.course.note(|| "the server dies".to_owned());
        self.server.connected.lock().unwrap().clear();
        for vehicle in 0..self.gateways.len() {
            self.server.lines[vehicle] = None;
            self.gateways[vehicle].loses_connection(&mut self.course);
        }
        let down_ms = self.course.some_time(SECOND, 20 * SECOND);
        self.course.after(down_ms, Happening::ServerStarts);
    }

    fn may_fetch(&self, vehicle: usize) -> bool {
        let gateway = &self.gateways[vehicle];
        let (vehicle_id, now) = (&gateway.binding.vehicle_id, self.course.now);
        gateway.wanted().iter().all(|(pkg_id, sha256)| {
            let (grant, _) =
                self.server.store.job(false, |tx| packages::grant(tx, vehicle_id, pkg_id, sha256, now));
            matches!(grant, Grant::Open { .. })
        })
    }

    fn operator_acts(&mut self, order: Order) {
        if !self.server.is_up {
            return;
        }
        self.course.note(|| format!("the operator: {order:?}"));
        match order {
            Order::Start { version } => {
                self.job(true, |tx, rules, now| start_campaign(tx, rules, version, now))
            }
            Order::Cancel { vehicle, version } => {
                let event = Event::CancelAsked { reason: text("changed our minds") };
                self.order(vehicle, version, event);
            }
            Order::RollBack { vehicle, version } => self.order(vehicle, version, Event::RollbackAsked),
            Order::Abort { version } => self.job(true, |tx, _, at| {
                let name = campaign_name(version);
                match campaigns::by_name(tx, &name)? {
                    Some(_) => campaigns::abort(tx, &name, &Aborted { at, reason: text("enough") }),
                    None => Ok(()),
                }
            }),
        }
    }

    fn order(&mut self, vehicle: usize, version: u8, event: Event<'_>) {
        let vehicle_id = self.gateways[vehicle].binding.vehicle_id.clone();
        self.job(true, |tx, rules, now| {
            match updates::of_vehicle_in(tx, &campaign_name(version), &vehicle_id)? {
                Some(update) => advance(tx, rules, update, event, None, now),
                None => Ok(()),
            }
        });
    }

    fn updates(&self, vehicle: usize) -> Vec<VehicleUpdate> {
        let vehicle_id = &self.gateways[vehicle].binding.vehicle_id;
        self.server.store.job(false, |tx| updates::of_vehicle(tx, vehicle_id)).0
    }

    fn shown_states(&self, vehicle: usize) -> String {
        if !self.course.logs() {
            return String::new();
        }
        let states = self.updates(vehicle);
        let states: Vec<_> = states.iter().map(|u| format!("{} {}", u.campaign, u.state.name())).collect();
        states.join(", ")
    }

    /// What must be true when nothing is under way any more.
    fn check(&self, rest: Rest) -> Result<(), String> {
        for campaign in (2..=AGAIN).map(campaign_name) {
            let wrong = self.server.store.job(false, |tx| campaigns::wrong_counters(tx, &campaign)).0;
            if !wrong.is_empty() {
                return Err(format!("{rest:?}: counters differ from a count: {}", wrong.join(", ")));
            }
        }
        for (vehicle, gateway) in self.gateways.iter().enumerate() {
            let updates = self.updates(vehicle);
            let wrong = |update: &VehicleUpdate, why: &str| {
                let runs: Vec<_> = gateway.ecus.values().map(Ecu::version).collect();
                let sentence = update.state.sentence(self.course.now);
                let campaign = &update.campaign;
                let state = update.state.name();
                Err(format!(
                    "V{vehicle} {campaign} {rest:?}: {why}: its ECUs run {runs:?}, the record is {state}: {sentence}"
                ))
            };
            for update in &updates {
                if !update.state.is_final() {
                    return wrong(update, "something is waited for without end");
                }
            }
            let latest = updates.iter().filter(|update| update.attempt_id.is_some());
            let latest = latest.max_by_key(|update| update.attempt_id.as_ref().map(ToString::to_string));
            let Some(latest) = latest else { continue };
            let earlier =
                updates.iter().filter(|update| update.attempt_id.is_some() && update.id != latest.id);
            for update in earlier {
                // One that was begun, went back to waiting and came again keeps the time of its first beginning.
                let began = latest.started_at.filter(|began| update.started_at < Some(*began));
                if began.is_some_and(|began| update.updated_at > began) {
                    return wrong(update, "it was changed after a later update had begun");
                }
            }
            let may_be_unknown = rest == Rest::Quiet
                && (matches!(latest.state, State::Unknown { .. }) || gateway.needed_service);
            if !may_be_unknown && !is_true(&latest.state, gateway) {
                return wrong(latest, "the record is not what the vehicle runs");
            }
        }
        self.check_acknowledged()
    }

    /// What was accepted and acknowledged is stored, and was not refused when it came once more.
    fn check_acknowledged(&self) -> Result<(), String> {
        for (vehicle, sequence) in &self.acknowledged {
            let (binding, msg_id) = (&self.gateways[*vehicle].binding, format!("VMG-{sequence}"));
            let msg_id: MsgId = msg_id.parse().unwrap();
            let (stored, _) =
                self.server.store.job(false, |tx| senders::of_message(tx, binding, Some(&msg_id)));
            if stored.and_then(|sender| sender.content_before).is_none() {
                return Err(format!("V{vehicle}: {msg_id} was acknowledged and is not stored"));
            }
        }
        for (vehicle, gateway) in self.gateways.iter().enumerate() {
            let vehicle_id = &gateway.binding.vehicle_id;
            let (refused, _) = self.server.store.job(false, |tx| messages::refused_of(tx, vehicle_id, 1_000));
            for msg_id in refused.into_iter().filter_map(|refused| refused.msg_id) {
                let sequence = msg_id.strip_prefix("VMG-").and_then(|sequence| sequence.parse().ok());
                if sequence.is_some_and(|sequence| self.acknowledged.contains(&(vehicle, sequence))) {
                    return Err(format!("V{vehicle}: {msg_id} was accepted, and refused when it came again"));
                }
            }
        }
        Ok(())
    }
}

/// When it is looked at the world.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rest {
    Quiet,
    NextDay,
}

/// Succeeded where all ECUs run the new version, inconsistent where they run a mix, else neither of them. Where ECUs
/// were left in different states they change by themselves: then no ECU may run what a success or a roll-back denies.
fn is_true(state: &State, gateway: &Gateway) -> bool {
    let packages = state.plan().map(|plan| plan.packages.as_slice()).unwrap_or_default();
    let runs = |package: &PlannedPackage, version: &Text| {
        gateway.ecus[&package.ecu_id].version().to_string() == version.as_str()
    };
    let is_new = |package: &PlannedPackage| runs(package, &package.version);
    let is_earlier = |package: &PlannedPackage| runs(package, &package.earlier_version);
    let all_new = packages.iter().all(is_new);
    let all_earlier = packages.iter().all(is_earlier);
    let changes = gateway.needed_service;
    let all_alike = gateway.ecus.values().map(Ecu::version).collect::<BTreeSet<_>>().len() == 1;
    match state {
        State::Succeeded { .. } => all_new || changes && !packages.iter().any(is_earlier),
        State::RolledBack { .. } | State::Cancelled { plan: Some(_), .. } => {
            all_earlier || changes && !packages.iter().any(is_new)
        }
        State::Inconsistent { .. } => !all_new && !all_earlier,
        State::Cancelled { plan: None, .. } | State::UpToDate | State::Ineligible { .. } => {
            all_alike || changes
        }
        State::Unknown { .. }
        | State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. } => false,
    }
}

fn campaign_name(version: u8) -> Text {
    text(&format!("C{version}"))
}

fn release(tx: &Tx<'_>, version: u8, now: UnixMillis) -> Result<(), StoreError> {
    let sha256 = Sha256::of(&[version]);
    releases::put_image(tx, &StoredImage { sha256, size_bytes: 1_000, signature: vec![0x30, 1] }, now)?;
    let version = text(&version.to_string());
    let image = Image::new(text(HARDWARE), version.clone(), sha256, 1_000);
    releases::create(tx, &version, &Release::new(vec![image]).unwrap(), now)
}

/// Starts a campaign for every vehicle, unless it was started before.
fn start_campaign(tx: &Tx<'_>, rules: &Rules, version: u8, now: UnixMillis) -> Result<(), StoreError> {
    let (name, version_text) = (campaign_name(version), version.to_string());
    let campaign = Campaign {
        name,
        release: text(if version == AGAIN { "2" } else { &version_text }),
        every_vehicle: true,
        update_deadline_s: Some(UPDATE_DEADLINE_S),
        created_at: now,
        started_at: None,
        paused_at: None,
        aborted: None,
        rollout: Rollout::default(),
        gate: GateRecord::default(),
        stopped: None,
        starting: None,
        intake: Intake::default(),
    };
    if campaigns::by_name(tx, &campaign.name)?.is_some() {
        return Ok(());
    }
    campaigns::create(tx, &campaign, &[])?;
    start(tx, &campaign, now)?;
    take_in_first(tx, rules, &campaign.name, now)
}
