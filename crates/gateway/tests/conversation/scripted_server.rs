//! The server's endpoints, with a desk that sends what a test says and checks each answer against its command.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use bytes::Bytes;
use farrier_protocol::{
    Binding, DownloadTransfer, MsgId, OfferedPackage, Operation, Package, PkgId, ProtoVer, ReceivedMessage,
    ServerBody, ServerMessage, Sha256, StartDownload, Topics, Transfer, TransferProtocol, UnixMillis,
    UpdateSuccessResult, VehicleBody, VehicleMessage,
};
use farrier_server::desk::{
    ClientSession, DeskUnavailable, Download, FileAnswer, Inbound, MessageDesk, PackageDesk, PeerEvent,
    PeerIdentity, PendingCommand, Receipt,
};
use farrier_server::files::{self, HttpsLimits};
use farrier_server::mqtt::{self, Connections, MqttEndpoint, MqttLimits};
use farrier_server::pki::{LEAF_VALIDITY, Pki};
use farrier_server::tls::{TlsFiles, VehicleTls};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a test waits for an answer; never slept through.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn now() -> UnixMillis {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(since_1970.as_millis().try_into().unwrap())
}

/// An expiry that no test reaches.
pub(crate) fn later() -> UnixMillis {
    now().plus_seconds(600)
}

pub(crate) fn binding() -> Binding {
    Binding { vehicle_id: "VEH_001".parse().unwrap(), gateway_id: "CCU_001".parse().unwrap() }
}

#[derive(Default)]
struct Script {
    commands: HashMap<String, ServerMessage>,
    pending: Vec<PendingCommand>,
    received: Vec<VehicleMessage>,
    raw: Vec<(Option<MsgId>, Bytes)>,
    packages: HashMap<Sha256, (PathBuf, Vec<u8>, u64)>,
    fail_answers: usize,
    hold_packages: bool,
    wrong: Vec<String>,
}

struct Desk {
    script: Mutex<Script>,
    changed: watch::Sender<()>,
    package_requests: Mutex<HashMap<Sha256, usize>>,
}

impl MessageDesk for Desk {
    async fn receive(&self, inbound: Inbound) -> Result<Receipt, DeskUnavailable> {
        let mut script = self.script.lock().unwrap();
        match ReceivedMessage::parse(inbound.topic, &inbound.payload, Some(&inbound.binding)) {
            Err(refused) => script.wrong.push(refused.refusal.to_string()),
            Ok(received) => {
                let correlation = received.message.correlation_id().cloned();
                script.raw.push((correlation.clone(), inbound.payload.clone()));
                if correlation.is_some() && script.fail_answers > 0 {
                    script.fail_answers -= 1;
                    return Err(DeskUnavailable("the store is full".into()));
                }
                let command =
                    correlation.as_ref().and_then(|command| script.commands.get(command.as_str())).cloned();
                if let Some(command) = &command {
                    let checked = received
                        .check_correlation(command)
                        .and_then(|()| received.check_content(Some(command)));
                    script.wrong.extend(checked.err().map(|refusal| refusal.to_string()));
                }
                if !script.received.iter().any(|known| known.msg_id == received.message.msg_id) {
                    script.received.push(received.message);
                }
            }
        }
        self.changed.send_replace(());
        Ok(Receipt::Accepted)
    }

    async fn refuse_for_rate(&self, _: Inbound) -> Result<(), DeskUnavailable> {
        self.script.lock().unwrap().wrong.push("the gateway sends too much".to_owned());
        Ok(())
    }

    async fn report(&self, _: &PeerIdentity, event: PeerEvent, _: String) -> Result<(), DeskUnavailable> {
        self.script.lock().unwrap().wrong.push(event.name().to_owned());
        Ok(())
    }

    fn session(&self, _: ClientSession) {}

    async fn pending(&self, _: &Binding, limit: usize) -> Result<Vec<PendingCommand>, DeskUnavailable> {
        Ok(self.script.lock().unwrap().pending.iter().take(limit).cloned().collect())
    }

    async fn delivered(&self, _: &Binding, msg_id: &MsgId) -> Result<(), DeskUnavailable> {
        self.script.lock().unwrap().pending.retain(|command| &command.msg_id != msg_id);
        Ok(())
    }
}

impl PackageDesk for Desk {
    async fn package(
        &self,
        _: &PeerIdentity,
        _: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        *self.package_requests.lock().unwrap().entry(*hash).or_default() += 1;
        self.changed.send_replace(());
        let script = self.script.lock().unwrap();
        if script.hold_packages {
            return Err(DeskUnavailable("packages are held back".into()));
        }
        Ok(match script.packages.get(hash) {
            Some((path, _, size_bytes)) => {
                FileAnswer::Serve { path: path.clone(), size_bytes: *size_bytes, limit: None }
            }
            None => FileAnswer::Unknown,
        })
    }

    async fn signature(
        &self,
        _: &PeerIdentity,
        _: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        let script = self.script.lock().unwrap();
        Ok(match script.packages.get(hash) {
            Some((_, signature, _)) => FileAnswer::Signature(signature.clone()),
            None => FileAnswer::Unknown,
        })
    }

    async fn downloading(&self, downloads: Vec<Download>) -> Result<Vec<bool>, DeskUnavailable> {
        Ok(vec![true; downloads.len()])
    }
}

pub(crate) struct ScriptedServer {
    desk: Arc<Desk>,
    connections: Arc<Connections>,
    folder: tempfile::TempDir,
    pki: Pki,
    pub(crate) mqtt_port: u16,
    https_port: u16,
    stop: CancellationToken,
    sent: AtomicUsize,
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ScriptedServer {
    pub(crate) async fn start() -> Self {
        if let Ok(filter) = std::env::var("FARRIER_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
        }
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::init(&folder.path().join("pki"), false, now()).unwrap();
        let own = folder.path().join("server");
        pki.issue_server(&["localhost".to_owned()], &own, LEAF_VALIDITY, false, now()).unwrap();
        pki.issue_vehicle(&binding(), &folder.path().join("vehicle"), LEAF_VALIDITY, false, now()).unwrap();
        let tls_files = TlsFiles {
            certificate_chain: own.join("cert.pem"),
            private_key: own.join("key.pem"),
            client_roots: pki.root_certificate(),
            revoked: pki.crl(),
            allow_classical_key_exchange: false,
            allow_expired_revocation_list: false,
        };
        let tls = Arc::new(VehicleTls::load(&tls_files, now()).unwrap());
        let desk = Arc::new(Desk {
            script: Mutex::default(),
            changed: watch::Sender::new(()),
            package_requests: Mutex::default(),
        });
        let connections = Arc::new(Connections::new());
        let stop = CancellationToken::new();
        let mqtt_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let https_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mqtt_port = mqtt_listener.local_addr().unwrap().port();
        let https_port = https_listener.local_addr().unwrap().port();
        let endpoint = MqttEndpoint {
            desk: desk.clone(),
            connections: connections.clone(),
            topics: Topics::default(),
            clock: Arc::new(now),
            limits: MqttLimits::default(),
        };
        tokio::spawn(mqtt::serve(mqtt_listener, tls.clone(), endpoint, stop.clone()));
        tokio::spawn(files::serve(https_listener, tls, desk.clone(), HttpsLimits::default(), stop.clone()));
        Self { desk, connections, folder, pki, mqtt_port, https_port, stop, sent: AtomicUsize::new(0) }
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.path().join("vehicle")
    }

    pub(crate) fn release_public_key(&self) -> PathBuf {
        self.pki.release_public_key()
    }

    /// Signs and serves images for every ECU, two contents in all, and says which StartDownload asks for them.
    pub(crate) fn offer(&self, ecus: usize, version: &str) -> StartDownload {
        let packages = (1..=ecus).map(|number| {
            let hash = self.image(number % 2);
            let pkg_id: PkgId = format!("PKG-{number}").parse().unwrap();
            Package {
                url: format!("/v1/packages/{pkg_id}/{hash}").parse().unwrap(),
                pkg_id,
                target_component: format!("ecu_{number:03}").parse().unwrap(),
                target_version: version.parse().unwrap(),
                delta_from: None,
                size_bytes: 100_000,
                hash_sha256: hash,
                image_sha256: hash,
                image_size_bytes: 100_000,
                hw_part_no: "HW-1".parse().unwrap(),
                install_order: number as u64 / 2,
            }
        });
        StartDownload {
            correlation_id: "VMG-readiness".parse().unwrap(),
            expires_at_ms: later(),
            deadline_s: None,
            update_id: format!("UPD-{}", self.sent.fetch_add(1, Ordering::Relaxed)).parse().unwrap(),
            campaign_id: None,
            failure_report: true,
            transfer: DownloadTransfer {
                protocol: TransferProtocol::Https,
                allow_chunking: true,
                max_kb_per_msg: 32,
                base_url: format!("https://localhost:{}", self.https_port).parse().unwrap(),
            },
            packages: packages.collect(),
            director_targets_version: None,
        }
    }

    fn image(&self, kind: usize) -> Sha256 {
        let content: Vec<u8> = (0..100_000_usize).map(|at| (at / 7 + at * kind) as u8).collect();
        self.publish(&content)
    }

    /// The same ECUs again, by deltas from the images of `earlier`.
    pub(crate) fn offer_deltas(&self, earlier: &StartDownload, from: &str, version: &str) -> StartDownload {
        let mut start = earlier.clone();
        start.update_id = format!("UPD-{}", self.sent.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
        for package in &mut start.packages {
            let base = std::fs::read(self.folder.path().join(package.image_sha256.to_string())).unwrap();
            let mut image = base.clone();
            image[50_000..50_100].fill(9);
            let delta = farrier_delta::make(&base, &image).unwrap();
            package.delta_from = Some(from.parse().unwrap());
            package.target_version = version.parse().unwrap();
            (package.hash_sha256, package.size_bytes) = (self.publish(&delta), delta.len() as u64);
            package.image_sha256 = Sha256::of(&image);
            package.url = format!("/v1/packages/{}/{}", package.pkg_id, package.hash_sha256).parse().unwrap();
        }
        start
    }

    fn publish(&self, content: &[u8]) -> Sha256 {
        let hash = Sha256::of(content);
        let path = self.folder.path().join(hash.to_string());
        std::fs::write(&path, content).unwrap();
        let signature = self.signature_of(content);
        let size_bytes = content.len() as u64;
        self.desk.script.lock().unwrap().packages.insert(hash, (path, signature, size_bytes));
        hash
    }

    /// Changes one byte of every image that is served, but not what was said of it.
    pub(crate) fn spoil_images(&self) {
        for (path, _, _) in self.desk.script.lock().unwrap().packages.values() {
            let mut content = std::fs::read(path).unwrap();
            *content.last_mut().unwrap() ^= 1;
            std::fs::write(path, content).unwrap();
        }
    }

    /// Serves signatures of something else.
    pub(crate) fn spoil_signatures(&self) {
        let of_something_else = self.signature_of(b"something else");
        for (_, signature, _) in self.desk.script.lock().unwrap().packages.values_mut() {
            signature.clone_from(&of_something_else);
        }
    }

    fn signature_of(&self, content: &[u8]) -> Vec<u8> {
        let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_file(self.pki.release_key()).unwrap() else {
            panic!("the release key is PKCS#8");
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der()).unwrap();
        pair.sign(&SystemRandom::new(), content).unwrap().as_ref().to_vec()
    }

    /// How many packages were asked for at all.
    pub(crate) fn served_packages(&self) -> usize {
        self.desk.package_requests.lock().unwrap().len()
    }

    fn new_msg_id(&self) -> MsgId {
        format!("SRV-{}", self.sent.fetch_add(1, Ordering::Relaxed)).parse().unwrap()
    }

    pub(crate) fn send(&self, body: ServerBody) -> MsgId {
        let message = ServerMessage {
            msg_id: self.new_msg_id(),
            proto_ver: ProtoVer::CURRENT,
            vehicle_id: binding().vehicle_id,
            gateway_id: binding().gateway_id,
            ts: Some(now()),
            body,
        };
        let payload = message.to_json();
        let msg_id = message.msg_id.clone();
        self.desk.script.lock().unwrap().commands.insert(msg_id.to_string(), message);
        self.put(msg_id, payload)
    }

    pub(crate) fn send_raw(&self, payload: impl FnOnce(&MsgId) -> String) -> MsgId {
        let msg_id = self.new_msg_id();
        let payload = payload(&msg_id).into_bytes();
        self.put(msg_id, payload)
    }

    fn put(&self, msg_id: MsgId, payload: Vec<u8>) -> MsgId {
        let command = PendingCommand { msg_id: msg_id.clone(), payload: payload.into(), expires_at: None };
        self.desk.script.lock().unwrap().pending.push(command);
        self.connections.wake(&binding());
        msg_id
    }

    /// The next so many answers cannot be stored: no PUBACK, the connection is closed.
    pub(crate) fn fail_next_answers(&self, count: usize) {
        self.desk.script.lock().unwrap().fail_answers = count;
    }

    /// Whether packages are refused with "try again later".
    pub(crate) fn hold_packages(&self, hold: bool) {
        self.desk.script.lock().unwrap().hold_packages = hold;
    }

    /// Resolves once any package was asked for.
    pub(crate) async fn package_was_asked_for(&self) {
        let mut changed = self.desk.changed.subscribe();
        while self.served_packages() == 0 {
            changed.changed().await.unwrap();
        }
    }

    /// What was received, each message once; every one of them must have been right.
    pub(crate) fn bodies(&self) -> Vec<VehicleBody> {
        let script = self.desk.script.lock().unwrap();
        assert!(script.wrong.is_empty(), "{:?}", script.wrong);
        script.received.iter().map(|message| message.body.clone()).collect()
    }

    pub(crate) fn raw_answers(&self, command: &MsgId) -> Vec<Bytes> {
        let script = self.desk.script.lock().unwrap();
        let is_answer = |raw: &&(Option<MsgId>, Bytes)| raw.0.as_ref() == Some(command);
        script.raw.iter().filter(is_answer).map(|(_, payload)| payload.clone()).collect()
    }

    /// Waits until so many messages are there that fit.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        count: usize,
        fits: impl Fn(&VehicleBody) -> bool,
    ) -> Vec<VehicleBody> {
        let mut changed = self.desk.changed.subscribe();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let found: Vec<VehicleBody> = self.bodies().into_iter().filter(|body| fits(body)).collect();
                if found.len() >= count {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}; received {:#?}", self.bodies()),
        }
    }

    /// The answer to a command that is no success result.
    pub(crate) async fn answer(&self, command: &MsgId) -> VehicleBody {
        let is_answer = |body: &VehicleBody| match body {
            VehicleBody::SendVci(vci) => &vci.correlation_id == command,
            VehicleBody::ReadinessReport(report) => &report.correlation_id == command,
            VehicleBody::ErrorResponse(error) => &error.correlation_id == command,
            VehicleBody::WakeUp(_) | VehicleBody::UpdateSuccessResult(_) => false,
        };
        self.wait_for("an answer", 1, is_answer).await.remove(0)
    }

    /// Resolves when the server has been told how an update ended.
    pub(crate) fn last_word(&self, command: &MsgId) -> impl Future<Output = ()> + use<> {
        let (desk, command) = (self.desk.clone(), command.clone());
        let is_last = move |message: &VehicleMessage| {
            message.correlation_id() == Some(&command)
                && match &message.body {
                    VehicleBody::UpdateSuccessResult(result) => {
                        matches!(result.operation, Operation::Commit | Operation::Rollback)
                    }
                    VehicleBody::ErrorResponse(_) => true,
                    VehicleBody::WakeUp(_) | VehicleBody::SendVci(_) | VehicleBody::ReadinessReport(_) => {
                        false
                    }
                }
        };
        async move {
            let mut changed = desk.changed.subscribe();
            while !desk.script.lock().unwrap().received.iter().any(&is_last) {
                changed.changed().await.unwrap();
            }
        }
    }

    pub(crate) async fn ask(&self, body: ServerBody) -> VehicleBody {
        let command = self.send(body);
        self.answer(&command).await
    }

    /// The success result of this operation.
    pub(crate) async fn result(&self, command: &MsgId, operation: Operation) -> UpdateSuccessResult {
        let is_result = |body: &VehicleBody| match body {
            VehicleBody::UpdateSuccessResult(result) => {
                &result.correlation_id == command && result.operation == operation
            }
            VehicleBody::WakeUp(_)
            | VehicleBody::SendVci(_)
            | VehicleBody::ReadinessReport(_)
            | VehicleBody::ErrorResponse(_) => false,
        };
        let result = self.wait_for("a result", 1, is_result).await.remove(0);
        let VehicleBody::UpdateSuccessResult(result) = result else { panic!("{result:?}") };
        result
    }
}

/// The packages of a StartDownload as a RequestDownloadReadiness names them.
pub(crate) fn offered(start: &StartDownload) -> Vec<OfferedPackage> {
    let offered = |package: &Package| OfferedPackage {
        pkg_id: package.pkg_id.clone(),
        target_component: package.target_component.clone(),
        target_version: package.target_version.clone(),
        delta_from: package.delta_from.clone(),
        size_bytes: package.size_bytes,
        hash_sha256: package.hash_sha256,
    };
    start.packages.iter().map(offered).collect()
}

pub(crate) fn transfer(start: &StartDownload) -> Transfer {
    Transfer {
        protocol: TransferProtocol::Https,
        allow_chunking: start.transfer.allow_chunking,
        max_kb_per_msg: start.transfer.max_kb_per_msg,
    }
}
