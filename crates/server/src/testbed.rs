//! A server without sockets for tests: a store in a folder, time that tests move, cars that speak JSON.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farrier_campaign::{
    ApprovalRule, DeltaSettings, GateRecord, Image, Release, ReleaseRules, Rollout, Settings,
};
use farrier_protocol::{
    Binding, MessageType, ServerBody, ServerMessage, Sha256, StartDownload, Text, Thumbprint, UnixMillis,
    UpTopic,
};
use serde_json::{Value, json};

use crate::config::Enroll;
use crate::conversation::{Presence, ReadMessage, Rules, go_on_starting, receive, start, take_in_first};
use crate::desk::{Inbound, PeerIdentity, Receipt};
use crate::gatekeeper::look_at_gate;
use crate::runner::{look_at_a_campaign, run_due};
use crate::store::campaigns::Campaign;
use crate::store::intake::{Intake, KnownQueries};
use crate::store::messages::RefusedMessage;
use crate::store::releases::{KnownReleases, StoredImage};
use crate::store::security_events::{self, SecurityEvent};
use crate::store::test_database::TestDatabase;
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::Vehicle;
use crate::store::{Store, StoreError, Tx, campaigns, commands, messages, releases, updates, vehicles};

pub(crate) const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// The server.
pub(crate) struct World {
    database: TestDatabase,
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) now: UnixMillis,
    /// Whether all cars are connected.
    connected: Arc<AtomicBool>,
    pub(crate) woken: Arc<Mutex<Vec<Binding>>>,
    last_run: UnixMillis,
}

pub(crate) fn text(value: &str) -> Text {
    value.parse().unwrap()
}

impl World {
    /// Vehicles enrol themselves and are asked to report failures.
    pub(crate) fn new() -> Self {
        Self::with(Enroll::Auto, Settings::default())
    }

    pub(crate) fn with(enroll: Enroll, settings: Settings) -> Self {
        Self::with_database(TestDatabase::chosen(), enroll, settings)
    }

    /// The same on a database of the test's choice.
    pub(crate) fn on(database: TestDatabase) -> Self {
        Self::with_database(database, Enroll::Auto, Settings::default())
    }

    /// The same where vehicles connect to a broker.
    pub(crate) fn at_a_broker() -> Self {
        let mut world = Self::new();
        Arc::get_mut(&mut world.rules).unwrap().presence = Presence::Broker;
        world
    }

    /// What another server that shares the database sees of it.
    pub(crate) fn another_store(&self) -> Store {
        self.database.open(Arc::new(|_| {}))
    }

    /// Where its SQLite file is.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.database.folder()
    }

    fn with_database(database: TestDatabase, enroll: Enroll, settings: Settings) -> Self {
        let connected = Arc::new(AtomicBool::new(true));
        let is_connected = Arc::clone(&connected);
        let rules = Arc::new(Rules {
            settings,
            deltas: DeltaSettings::default(),
            set_aside_after: 3,
            enroll,
            releases: KnownReleases::default(),
            queries: KnownQueries::default(),
            approval: ApprovalRule::default(),
            base_url: "https://localhost:8443".parse().unwrap(),
            max_kb_per_msg: 512,
            failure_report: true,
            presence: Presence::Connections(Arc::new(move |_| is_connected.load(Ordering::Relaxed))),
        });
        let woken = Arc::default();
        let store = open(&database, &woken);
        Self { database, store, rules, now: START, connected, woken, last_run: START }
    }

    /// Stops the server and starts it again on what it has stored.
    pub(crate) async fn restart(&mut self) {
        self.store.close().await;
        self.store = open(&self.database, &self.woken);
        self.last_run = self.now;
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Lets time pass and does what is due.
    pub(crate) async fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus_seconds(seconds);
        self.run_due().await;
    }

    pub(crate) async fn run_due(&mut self) {
        let (rules, since, now) = (Arc::clone(&self.rules), self.last_run, self.now);
        self.store.write::<_, StoreError>(move |tx| run_due(tx, &rules, since, now)).await.unwrap();
        while self.write(look_at_a_campaign).await {}
        while go_on_starting(&self.store, &self.rules, now).await.unwrap() {}
        self.look_at_gates().await;
        while self.write(look_at_a_campaign).await {}
        self.last_run = now;
    }

    /// Looks at the gates of all campaigns under way until there is nothing more to do.
    pub(crate) async fn look_at_gates(&self) {
        for name in self.read(campaigns::under_way).await {
            loop {
                let name = name.clone();
                let looked = self.write(move |tx, rules, now| look_at_gate(tx, rules, &name, now)).await;
                if !looked.has_more {
                    break;
                }
            }
        }
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>, &Rules, UnixMillis) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        let (rules, now) = (Arc::clone(&self.rules), self.now);
        self.store.write(move |tx| job(tx, &rules, now)).await.unwrap()
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.read(job).await.unwrap()
    }

    /// A release of version 2 for hardware HW-1, its image 1,000 octets long.
    pub(crate) async fn release(&self, name: &str, version: &str) {
        let (name, version) = (text(name), text(version));
        self.write(move |tx, _, now| {
            let sha256 = Sha256::of(version.as_str().as_bytes());
            let image = StoredImage { sha256, size_bytes: 1_000, signature: vec![0x30, 1] };
            releases::put_image(tx, &image, now)?;
            let image = Image::new(text("HW-1"), version, sha256, 1_000);
            releases::create(tx, &name, &Release::new(vec![image]).unwrap(), now)
        })
        .await;
    }

    /// A release of several images, each for a hardware with a version, and its rules.
    pub(crate) async fn release_of(
        &self,
        name: Text,
        images: Vec<(&'static str, &'static str)>,
        rules: ReleaseRules,
    ) {
        self.write(move |tx, _, now| {
            let mut made = Vec::new();
            for (hardware, version) in images {
                let sha256 = Sha256::of(format!("{hardware} {version}").as_bytes());
                let image = StoredImage { sha256, size_bytes: 1_000, signature: vec![0x30, 1] };
                releases::put_image(tx, &image, now)?;
                made.push(Image::new(text(hardware), text(version), sha256, 1_000));
            }
            releases::create(tx, &name, &Release::with_rules(made, rules).unwrap(), now)
        })
        .await;
    }

    /// A running campaign for these cars, or for every vehicle.
    pub(crate) async fn campaign(&self, name: &str, release: &str, cars: Option<&[&Car]>) {
        self.campaign_by_waves(name, release, cars, Rollout::default()).await;
    }

    /// The same that goes out in its own manner.
    pub(crate) async fn campaign_by_waves(
        &self,
        name: &str,
        release: &str,
        cars: Option<&[&Car]>,
        rollout: Rollout,
    ) {
        self.campaign_of(name, release, cars, rollout, Intake::default()).await;
    }

    /// The same with its own rule of who is in it; one that follows a query names no cars.
    pub(crate) async fn campaign_of(
        &self,
        name: &str,
        release: &str,
        cars: Option<&[&Car]>,
        rollout: Rollout,
        intake: Intake,
    ) {
        let named: Vec<_> =
            cars.unwrap_or_default().iter().map(|car| car.binding.vehicle_id.clone()).collect();
        let campaign = Campaign {
            name: text(name),
            release: text(release),
            every_vehicle: cars.is_none() && !intake.follows,
            update_deadline_s: Some(3_600),
            created_at: self.now,
            started_at: None,
            paused_at: None,
            aborted: None,
            rollout,
            gate: GateRecord::default(),
            stopped: None,
            starting: None,
            intake,
        };
        self.write(move |tx, rules, now| {
            campaigns::create(tx, &campaign, &named)?;
            start(tx, &campaign, now)?;
            take_in_first(tx, rules, &campaign.name, now)
        })
        .await;
    }

    /// Version 2 for every vehicle.
    pub(crate) async fn campaign_for_all(&self) {
        self.release("R2", "2").await;
        self.campaign("C2", "R2", None).await;
    }
}

fn open(database: &TestDatabase, woken: &Arc<Mutex<Vec<Binding>>>) -> Store {
    let woken = Arc::clone(woken);
    let on_commit = move |committed: crate::store::Committed| woken.lock().unwrap().extend(committed.wake);
    database.open(Arc::new(on_commit))
}

/// A vehicle with its gateway.
pub(crate) struct Car {
    pub(crate) binding: Binding,
    pub(crate) peer: PeerIdentity,
    /// Then the server does not see its certificate.
    is_at_a_broker: bool,
    boot_seq: u64,
    messages: AtomicU64,
    /// What its ECUs run, `e0`, `e1`, …
    pub(crate) versions: Vec<&'static str>,
    /// Of which hardware they are, where it is not HW-1.
    pub(crate) hardware: Vec<&'static str>,
}

impl Car {
    pub(crate) fn new(vehicle: &str) -> Self {
        let binding = Binding { vehicle_id: vehicle.parse().unwrap(), gateway_id: "CCU".parse().unwrap() };
        let peer = PeerIdentity {
            common_name: binding.client_id(),
            thumbprint: Thumbprint::of_certificate(vehicle.as_bytes()),
            certificate: None,
        };
        Self {
            binding,
            peer,
            is_at_a_broker: false,
            boot_seq: 1,
            messages: AtomicU64::new(0),
            versions: vec!["1", "1"],
            hardware: Vec::new(),
        }
    }

    pub(crate) fn at_a_broker(vehicle: &str) -> Self {
        Self { is_at_a_broker: true, ..Self::new(vehicle) }
    }

    /// A car that the server knows: it woke up and told its inventory.
    pub(crate) async fn known(world: &World, vehicle: &str) -> Self {
        let car = Self::new(vehicle);
        car.wake_up(world).await;
        car.answer_vci(world).await;
        car
    }

    pub(crate) fn boot_id(&self) -> String {
        format!("boot-{}", self.boot_seq)
    }

    pub(crate) fn message(&self, message_type: &str, body: Value) -> Value {
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({
            "msg_id": format!("VMG-{number}"), "proto_ver": "1.0", "type": message_type,
            "vehicle_id": self.binding.vehicle_id, "gateway_id": self.binding.gateway_id, "ts": START.0,
        });
        let (Value::Object(to), Value::Object(from)) = (&mut message, body) else { panic!("not an object") };
        to.extend(from);
        message
    }

    pub(crate) async fn send(&self, world: &World, topic: UpTopic, message: &Value) -> Receipt {
        self.send_octets(world, topic, message.to_string().into()).await
    }

    pub(crate) async fn send_octets(&self, world: &World, topic: UpTopic, payload: Bytes) -> Receipt {
        let inbound = Inbound {
            peer: (!self.is_at_a_broker).then(|| Arc::new(self.peer.clone())),
            binding: self.binding.clone(),
            topic,
            payload,
            received_at: world.now,
        };
        world.write(move |tx, rules, _| receive(tx, rules, &ReadMessage::of(inbound))).await
    }

    /// Sends a message that must be taken.
    pub(crate) async fn tell(&self, world: &World, topic: UpTopic, message_type: &str, body: Value) {
        let message = self.message(message_type, body);
        let receipt = self.send(world, topic, &message).await;
        assert_eq!(receipt, Receipt::Accepted, "{message}: {:?}", self.refused(world).await);
    }

    pub(crate) fn wake_up_message(&self, uptime_ms: u64) -> Value {
        self.message(
            "WakeUp",
            json!({
                "boot_id": self.boot_id(), "boot_seq": self.boot_seq, "uptime_ms": uptime_ms,
                "client_cert_thumbprint": self.peer.thumbprint,
            }),
        )
    }

    pub(crate) async fn wake_up(&self, world: &World) {
        let message = self.wake_up_message(100_000);
        assert_eq!(self.send(world, UpTopic::Wakeup, &message).await, Receipt::Accepted);
    }

    pub(crate) async fn reboot(&mut self, world: &World, uptime_ms: u64) {
        self.boot_seq += 1;
        let message = self.wake_up_message(uptime_ms);
        assert_eq!(self.send(world, UpTopic::Wakeup, &message).await, Receipt::Accepted);
    }

    pub(crate) fn vci(&self, correlation_id: &str) -> Value {
        let ecu = |(number, version): (usize, &&str)| {
            json!({
                "ecu_id": format!("e{number}"), "supplier_code": "S",
                "hw_part_no": self.hardware.get(number).unwrap_or(&"HW-1"), "sw_part_no": "SW",
                "sw_version": version, "bootloader_ver": "B", "calibration_id": "C", "can_id": "0x100",
                "functional_group": {"domain_zone_bit": 0, "domain": "body", "index": number + 1},
            })
        };
        let ecus: Vec<_> = self.versions.iter().enumerate().map(ecu).collect();
        self.message(
            "SendVCI",
            json!({
                "correlation_id": correlation_id, "region": "KR", "fw_sw_version": "1", "bootloader_ver": "1",
                "ecu_inventory": ecus,
            }),
        )
    }

    /// All commands that wait for the car; it takes them.
    pub(crate) async fn commands(&self, world: &World) -> Vec<ServerMessage> {
        let (binding, now) = (self.binding.clone(), world.now);
        let pending = world.read(move |tx| commands::pending(tx, &binding, now, 100)).await;
        let mut taken = Vec::new();
        for command in pending {
            taken.push(ServerMessage::parse(command.payload.as_bytes()).unwrap());
            let (binding, msg_id) = (self.binding.clone(), command.msg_id);
            world.write(move |tx, _, now| commands::delivered(tx, &binding, &msg_id, now)).await;
        }
        taken
    }

    /// The types of all commands that wait for the car; it takes them.
    pub(crate) async fn command_types(&self, world: &World) -> Vec<MessageType> {
        self.commands(world).await.iter().map(ServerMessage::message_type).collect()
    }

    /// The one command that waits for the car; it takes it.
    #[track_caller]
    pub(crate) fn command<'a>(
        &'a self,
        world: &'a World,
        expected: MessageType,
    ) -> impl Future<Output = ServerMessage> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let mut commands = self.commands(world).await;
            let types: Vec<_> = commands.iter().map(ServerMessage::message_type).collect();
            assert_eq!(types, [expected], "at {caller}");
            commands.remove(0)
        }
    }

    /// The types of the commands that wait for the car; it takes none.
    pub(crate) async fn waiting_types(&self, world: &World) -> Vec<MessageType> {
        let (binding, now) = (self.binding.clone(), world.now);
        let pending = world.read(move |tx| commands::pending(tx, &binding, now, 16)).await;
        let parse = |command: commands::Pending| ServerMessage::parse(command.payload.as_bytes()).unwrap();
        pending.into_iter().map(|command| parse(command).message_type()).collect()
    }

    /// Answers the RequestVCI that waits.
    pub(crate) async fn answer_vci(&self, world: &World) {
        let request = self.command(world, MessageType::RequestVci).await;
        let vci = self.vci(request.msg_id.as_str());
        let receipt = self.send(world, UpTopic::Vci, &vci).await;
        assert_eq!(receipt, Receipt::Accepted, "{:?}", self.refused(world).await);
    }

    /// Says that it is ready to the RequestDownloadReadiness that waits.
    pub(crate) async fn answer_ready(&self, world: &World) {
        let request = self.command(world, MessageType::RequestDownloadReadiness).await;
        let body = json!({
            "correlation_id": request.msg_id, "ready": true, "requested_fields": {"power.battery_12v_v": 12.4},
        });
        self.tell(world, UpTopic::Readiness, "ReadinessReportForDownload", body).await;
    }

    /// Says that it is not ready, and when to ask again.
    pub(crate) async fn answer_not_ready(&self, world: &World, retry_after_s: u64) {
        let request = self.command(world, MessageType::RequestDownloadReadiness).await;
        let body = json!({
            "correlation_id": request.msg_id, "ready": false, "not_ready_reasons": ["POWER_LOW"],
            "retry_after_s": retry_after_s, "requested_fields": {"power.battery_12v_v": 11.4},
        });
        self.tell(world, UpTopic::Readiness, "ReadinessReportForDownload", body).await;
    }

    /// Goes from RequestVCI to StartDownload, which it takes.
    pub(crate) async fn to_start_download(&self, world: &World) -> (String, StartDownload) {
        self.answer_vci(world).await;
        self.answer_ready(world).await;
        let command = self.command(world, MessageType::StartDownload).await;
        let ServerBody::StartDownload(start) = command.body else { panic!("another command") };
        (command.msg_id.to_string(), start)
    }

    pub(crate) fn result(&self, correlation_id: &str, operation: &str) -> Value {
        self.message(
            "UpdateSuccessResult",
            json!({
                "correlation_id": correlation_id, "operation": operation,
                "ecu_count": self.versions.len(), "verified_integrity": true,
            }),
        )
    }

    pub(crate) async fn report(&self, world: &World, correlation_id: &str, operation: &str) -> Receipt {
        self.send(world, UpTopic::Result, &self.result(correlation_id, operation)).await
    }

    /// Answers a command with an error that must be taken.
    pub(crate) async fn fail(&self, world: &World, correlation_id: &str, code: &str, more: Value) {
        let mut body = json!({"correlation_id": correlation_id, "code": code, "detail": "words"});
        let (Value::Object(to), Value::Object(from)) = (&mut body, more) else { panic!("not an object") };
        to.extend(from);
        self.tell(world, UpTopic::Error, "ErrorResponse", body).await;
    }

    pub(crate) async fn vehicle(&self, world: &World) -> Option<Vehicle> {
        let vehicle_id = self.binding.vehicle_id.clone();
        world.read(move |tx| vehicles::by_id(tx, &vehicle_id)).await
    }

    pub(crate) async fn update(&self, world: &World, campaign: &str) -> VehicleUpdate {
        let (campaign, vehicle_id) = (text(campaign), self.binding.vehicle_id.clone());
        world.read(move |tx| updates::of_vehicle_in(tx, &campaign, &vehicle_id)).await.unwrap()
    }

    /// The name of the state of its update in campaign C2.
    pub(crate) async fn state(&self, world: &World) -> &'static str {
        self.update(world, "C2").await.state.name()
    }

    pub(crate) async fn refused(&self, world: &World) -> Vec<RefusedMessage> {
        let vehicle_id = self.binding.vehicle_id.clone();
        world.read(move |tx| messages::refused_of(tx, &vehicle_id, 100)).await
    }

    pub(crate) async fn security_events(&self, world: &World) -> Vec<SecurityEvent> {
        let vehicle_id = self.binding.vehicle_id.clone();
        world.read(move |tx| security_events::of_vehicle(tx, &vehicle_id, 100)).await
    }
}
