//! The endpoint over real TLS, played by hand-built packets in both versions; `rumqttc` at the end.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use farrier_protocol::{Binding, MsgId, UnixMillis};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::desk::{
    ClientSession, DeskUnavailable, Inbound, PeerEvent, PeerIdentity, PendingCommand, Receipt,
};
use crate::tls::testbed::{Testbed, binding, connect, now};
use frame::{Frame, FrameBuffer};
use packet::Version;

mod limits;
mod noted;
mod pieces;
mod real_server;
mod vectors;

const BOTH: [Version; 2] = [Version::V5_0, Version::V3_1_1];
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A desk whose answers the test gives: a message that says "slow" waits until it is let through.
struct FakeDesk {
    arrived: mpsc::UnboundedSender<Inbound>,
    let_through: Semaphore,
    fails: AtomicBool,
    outbox: Mutex<Vec<PendingCommand>>,
    /// A look into the outbox says what it saw only once it is let through, and tells here that it has seen it.
    slow_look: Mutex<Option<oneshot::Sender<()>>>,
    delivered: mpsc::UnboundedSender<MsgId>,
    /// Messages that were refused for their rate and stored.
    refused_for_rate: Mutex<Vec<Inbound>>,
    reported: mpsc::UnboundedSender<PeerEvent>,
    sessions: Mutex<Vec<ClientSession>>,
}

impl FakeDesk {
    /// Why connections ended, in the order in which they began; none of those that last.
    fn ends(&self) -> Vec<Option<&'static str>> {
        let mut ends = std::collections::BTreeMap::new();
        for session in self.sessions.lock().unwrap().iter() {
            let end = session.end.as_ref().map(|end| end.why.name());
            assert!(ends.insert(session.id.clone(), end).flatten().is_none(), "{session:?} ended twice");
        }
        ends.into_values().collect()
    }
}

impl MessageDesk for FakeDesk {
    async fn receive(&self, inbound: Inbound) -> Result<Receipt, DeskUnavailable> {
        let payload = inbound.payload.clone();
        self.arrived.send(inbound).unwrap();
        match payload.as_ref() {
            b"slow" => self.let_through.acquire().await.unwrap().forget(),
            b"unparsable" => return Ok(Receipt::RefusedUnparsable),
            b"identity" => return Ok(Receipt::RefusedIdentity),
            b"rate" => return Ok(Receipt::RefusedRate),
            b"refused" => return Ok(Receipt::Refused),
            _ => {}
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(DeskUnavailable("the disk is full".into()));
        }
        Ok(Receipt::Accepted)
    }

    async fn refuse_for_rate(&self, inbound: Inbound) -> Result<(), DeskUnavailable> {
        self.refused_for_rate.lock().unwrap().push(inbound);
        Ok(())
    }

    async fn report(&self, _: &PeerIdentity, event: PeerEvent, _: String) -> Result<(), DeskUnavailable> {
        // Not every test listens.
        let _ = self.reported.send(event);
        Ok(())
    }

    fn session(&self, session: ClientSession) {
        self.sessions.lock().unwrap().push(session);
    }

    async fn pending(&self, _: &Binding, limit: usize) -> Result<Vec<PendingCommand>, DeskUnavailable> {
        let seen = self.outbox.lock().unwrap().iter().take(limit).cloned().collect();
        let slow = self.slow_look.lock().unwrap().take();
        if let Some(has_seen) = slow {
            has_seen.send(()).unwrap();
            self.let_through.acquire().await.unwrap().forget();
        }
        Ok(seen)
    }

    async fn delivered(&self, _: &Binding, msg_id: &MsgId) -> Result<(), DeskUnavailable> {
        self.outbox.lock().unwrap().retain(|command| command.msg_id != *msg_id);
        self.delivered.send(msg_id.clone()).unwrap();
        Ok(())
    }
}

/// A server that runs until it is stopped.
struct Running {
    bed: Testbed,
    port: u16,
    desk: Arc<FakeDesk>,
    arrived: mpsc::UnboundedReceiver<Inbound>,
    delivered: mpsc::UnboundedReceiver<MsgId>,
    reported: mpsc::UnboundedReceiver<PeerEvent>,
    connections: Arc<Connections>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

/// What the fake desk was given.
struct Given {
    arrived: mpsc::UnboundedReceiver<Inbound>,
    delivered: mpsc::UnboundedReceiver<MsgId>,
    reported: mpsc::UnboundedReceiver<PeerEvent>,
}

fn endpoint(limits: MqttLimits) -> (MqttEndpoint<FakeDesk>, Given) {
    let (arrived_sender, arrived) = mpsc::unbounded_channel();
    let (delivered_sender, delivered) = mpsc::unbounded_channel();
    let (reported_sender, reported) = mpsc::unbounded_channel();
    let desk = FakeDesk {
        arrived: arrived_sender,
        let_through: Semaphore::new(0),
        fails: AtomicBool::new(false),
        outbox: Mutex::default(),
        slow_look: Mutex::default(),
        delivered: delivered_sender,
        refused_for_rate: Mutex::default(),
        reported: reported_sender,
        sessions: Mutex::default(),
    };
    let endpoint = MqttEndpoint {
        desk: Arc::new(desk),
        connections: Arc::new(Connections::new()),
        topics: Topics::default(),
        clock: Arc::new(|| NOW),
        limits,
    };
    (endpoint, Given { arrived, delivered, reported })
}

impl Running {
    async fn start() -> Self {
        Self::start_with(MqttLimits::default()).await
    }

    async fn start_with(limits: MqttLimits) -> Self {
        let bed = Testbed::new();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (endpoint, Given { arrived, delivered, reported }) = endpoint(limits);
        let (desk, connections) = (Arc::clone(&endpoint.desk), Arc::clone(&endpoint.connections));
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, bed.tls(), endpoint, shutdown.clone()));
        Self { bed, port, desk, arrived, delivered, reported, connections, shutdown, server }
    }

    /// A vehicle whose TLS connection stands; its certificate is made at its first.
    async fn dial(&self, binding: &Binding, version: Version) -> Client<TlsStream<TcpStream>> {
        let folder = self.bed.path(&binding.client_id());
        if !folder.exists() {
            self.bed.vehicle(binding);
        }
        let stream = connect(self.bed.usual_client(&folder), self.port).await.unwrap();
        Client::new(stream, version)
    }

    /// A vehicle that is connected.
    async fn vehicle(&self, version: Version) -> Client<TlsStream<TcpStream>> {
        let mut client = self.dial(&own(), version).await;
        client.connect("VEH_001_CCU_001").await;
        assert_eq!(client.frame().await.unwrap().body[..2], [0, 0], "accepted, without session");
        client
    }

    fn put_in_outbox(&self, names: &[&str]) {
        self.desk.outbox.lock().unwrap().extend(names.iter().map(|name| PendingCommand {
            msg_id: name.parse().unwrap(),
            payload: Bytes::from(format!("command {name}")),
            expires_at: Some(NOW.plus_seconds(30)),
        }));
    }
}

fn own() -> Binding {
    binding("VEH_001", "CCU_001")
}

const UP: &str = "ota/VEH_001/CCU_001/up/wakeup";
const DOWN: &str = "ota/VEH_001/CCU_001/down";

/// A vehicle that speaks in octets.
struct Client<S> {
    stream: S,
    version: Version,
    frames: FrameBuffer,
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(stream: S, version: Version) -> Self {
        Self { stream, version, frames: FrameBuffer::default() }
    }

    /// What 5.0 has where 3.1.1 has nothing.
    fn no_properties(&self) -> &'static [u8] {
        match self.version {
            Version::V3_1_1 => &[],
            Version::V5_0 => &[0],
        }
    }

    async fn send(&mut self, first: u8, body: &[u8]) {
        let mut octets = vec![first];
        let mut left = body.len();
        loop {
            let more = if left > 127 { 0x80 } else { 0 };
            octets.push(u8::try_from(left & 0x7f).unwrap() | more);
            left >>= 7;
            if more == 0 {
                break;
            }
        }
        octets.extend_from_slice(body);
        self.stream.write_all(&octets).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn connect(&mut self, client_id: &str) {
        self.connect_with(0b10, self.no_properties(), &text(client_id)).await;
    }

    async fn connect_with(&mut self, flags: u8, properties: &[u8], payload: &[u8]) {
        let level = match self.version {
            Version::V3_1_1 => 4,
            Version::V5_0 => 5,
        };
        self.send(0x10, &[b"\x00\x04MQTT", &[level, flags, 0, 60][..], properties, payload].concat()).await;
    }

    /// QoS 1 with a packet id, else QoS 0.
    async fn publish(&mut self, topic: &str, packet_id: Option<u16>, payload: &[u8]) {
        let (first, id) = match packet_id {
            Some(id) => (0x32, id.to_be_bytes().to_vec()),
            None => (0x30, Vec::new()),
        };
        self.send(first, &[&text(topic), &id, self.no_properties(), payload].concat()).await;
    }

    async fn subscribe(&mut self, filters: &[(&str, u8)]) {
        let filters: Vec<u8> =
            filters.iter().flat_map(|(filter, qos)| [text(filter), vec![*qos]].concat()).collect();
        self.send(0x82, &[&[0, 9], self.no_properties(), &filters].concat()).await;
    }

    async fn ping(&mut self) {
        self.send(0xc0, &[]).await;
    }

    async fn puback(&mut self, packet_id: u16) {
        self.send(0x40, &packet_id.to_be_bytes()).await;
    }

    /// The next packet, or nothing once the server has closed.
    async fn frame(&mut self) -> Option<Frame> {
        let mut octets = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next(usize::MAX).unwrap() {
                return Some(frame);
            }
            match timeout(Duration::from_secs(20), self.stream.read(&mut octets)).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.frames.extend(&octets[..read]),
            }
        }
    }

    async fn expect_pong(&mut self) {
        assert_eq!(self.frame().await.unwrap().kind, 13);
    }

    async fn expect_puback(&mut self, packet_id: u16) -> Option<u8> {
        let frame = self.frame().await.unwrap();
        assert_eq!((frame.kind, &frame.body[..2]), (4, &packet_id.to_be_bytes()[..]));
        frame.body.get(2).copied()
    }

    /// The packet id, the payload, and whether it says when it expires.
    async fn expect_command(&mut self) -> (u16, String, bool) {
        let frame = self.frame().await.unwrap();
        assert_eq!((frame.kind, frame.flags), (3, 0b0010), "QoS 1, not retained, no duplicate");
        let rest = frame.body.strip_prefix(&text(DOWN)[..]).unwrap();
        let (id, rest) = rest.split_at(2);
        let expiry = [5, 2, 0, 0, 0, 30];
        let (expires, payload) = match (self.version, rest.strip_prefix(&expiry)) {
            (Version::V5_0, Some(payload)) => (true, payload),
            (Version::V5_0 | Version::V3_1_1, _) => (false, rest),
        };
        (u16::from_be_bytes([id[0], id[1]]), String::from_utf8(payload.to_vec()).unwrap(), expires)
    }

    async fn expect_suback(&mut self) -> Vec<u8> {
        let frame = self.frame().await.unwrap();
        assert_eq!((frame.kind, &frame.body[..2]), (9, &[0, 9][..]));
        frame.body[2 + self.no_properties().len()..].to_vec()
    }

    /// Says that it goes, and waits until the server has done all that it said before.
    async fn leave(mut self) {
        self.send(0xe0, &[]).await;
        while self.frame().await.is_some() {}
    }

    /// The server says why to 5.0, and closes.
    async fn expect_closed(&mut self, reason: u8) {
        if self.version == Version::V5_0 {
            let frame = self.frame().await.unwrap();
            assert_eq!((frame.kind, frame.body[0]), (14, reason), "{frame:?}");
        }
        assert_eq!(self.frame().await, None);
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_after_the_desk_has_it_and_in_order() {
    for version in BOTH {
        let mut running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        vehicle.publish(UP, Some(7), b"slow").await;
        vehicle.publish(UP, Some(8), b"quick").await;
        let first = running.arrived.recv().await.unwrap();
        let second = running.arrived.recv().await.unwrap();
        assert_eq!((first.payload.as_ref(), second.payload.as_ref()), (&b"slow"[..], &b"quick"[..]));
        assert_eq!(
            (&first.binding, first.topic, first.received_at),
            (&own(), farrier_protocol::UpTopic::Wakeup, NOW)
        );
        assert_eq!(first.peer.unwrap().common_name, "VEH_001_CCU_001");
        vehicle.ping().await;
        vehicle.expect_pong().await;
        running.desk.let_through.add_permits(1);
        assert_eq!(vehicle.expect_puback(7).await, None);
        assert_eq!(vehicle.expect_puback(8).await, None);
    }
}

#[tokio::test]
async fn refusals_have_reason_codes_where_the_version_has_them() {
    for version in BOTH {
        let running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        for (payload, reason) in
            [("unparsable", Some(0x99)), ("identity", Some(0x87)), ("rate", Some(0x97)), ("refused", None)]
        {
            vehicle.publish(UP, Some(3), payload.as_bytes()).await;
            let expected = reason.filter(|_| version == Version::V5_0);
            assert_eq!(vehicle.expect_puback(3).await, expected, "{payload}");
        }
    }
}

#[tokio::test]
async fn a_message_with_qos_0_is_taken_without_acknowledgement() {
    let mut running = Running::start().await;
    let mut vehicle = running.vehicle(Version::V5_0).await;
    vehicle.publish(UP, None, b"{}").await;
    running.arrived.recv().await.unwrap();
    vehicle.ping().await;
    vehicle.expect_pong().await;
}

#[tokio::test]
async fn nothing_is_processed_of_what_is_published_on_anothers_topic() {
    for topic in
        ["ota/VEH_002/CCU_001/up/wakeup", "ota/VEH_001/CCU_001/up/other", DOWN, "ota/VEH_001/CCU_001/up"]
    {
        let mut running = Running::start().await;
        let mut modern = running.vehicle(Version::V5_0).await;
        modern.publish(topic, Some(1), b"{}").await;
        assert_eq!(modern.expect_puback(1).await, Some(0x87));
        modern.ping().await;
        modern.expect_pong().await;
        let mut older = running.vehicle(Version::V3_1_1).await;
        older.publish(topic, Some(1), b"{}").await;
        older.expect_closed(0).await;
        assert!(running.arrived.try_recv().is_err(), "{topic}");
    }
}

#[tokio::test]
async fn a_client_id_that_is_not_the_certificates_is_refused() {
    for version in BOTH {
        let running = Running::start().await;
        for client_id in ["VEH_002_CCU_001", "", "VEH_001_CCU_0011"] {
            let mut vehicle = running.dial(&own(), version).await;
            vehicle.connect(client_id).await;
            let answer = vehicle.frame().await.unwrap();
            let expected = if version == Version::V5_0 { 0x85 } else { 2 };
            assert_eq!((answer.kind, &answer.body[..2]), (2, &[0, expected][..]), "{client_id}");
            assert_eq!(vehicle.frame().await, None);
            assert!(!running.connections.is_connected(&own()));
        }
    }
}

#[tokio::test]
async fn wills_and_enhanced_authentication_are_refused() {
    let running = Running::start().await;
    let id = text("VEH_001_CCU_001");
    let will = |properties: &[u8]| [&id, properties, &text(UP), &text("bye")].concat();
    let mut older = running.dial(&own(), Version::V3_1_1).await;
    older.connect_with(0b110, &[], &will(&[])).await;
    assert_eq!(older.frame().await.unwrap().body[..2], [0, 5]);
    let mut modern = running.dial(&own(), Version::V5_0).await;
    modern.connect_with(0b110, &[0], &will(&[0])).await;
    assert_eq!(modern.frame().await.unwrap().body[..2], [0, 0x87]);
    let mut modern = running.dial(&own(), Version::V5_0).await;
    modern.connect_with(0b10, &[&[6, 0x15][..], &text("abc")].concat(), &id).await;
    assert_eq!(modern.frame().await.unwrap().body[..2], [0, 0x8c]);
}

#[tokio::test]
async fn versions_that_are_not_spoken_are_told_so_and_what_is_no_mqtt_is_told_nothing() {
    let running = Running::start().await;
    for connect in
        [&b"\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x00"[..], b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00"]
    {
        let mut vehicle = running.dial(&own(), Version::V5_0).await;
        vehicle.send(0x10, connect).await;
        assert_eq!(vehicle.frame().await.unwrap().body[..2], [0, 0x84]);
    }
    for (first, body) in
        [(0x10, &b"GET / HTTP/1.1\r\n"[..]), (0x30, b"\x00\x01a"), (0xc0, b""), (0x11, b"\x00\x04MQTT\x05")]
    {
        let mut vehicle = running.dial(&own(), Version::V5_0).await;
        vehicle.send(first, body).await;
        assert_eq!(vehicle.frame().await, None);
    }
}

#[tokio::test]
async fn a_modern_vehicle_is_told_what_the_server_can() {
    let running = Running::start().await;
    let mut vehicle = running.dial(&own(), Version::V5_0).await;
    // Clean start is not asked for, a session of an hour and no keep alive are.
    let body =
        [b"\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10", &text("VEH_001_CCU_001")[..]].concat();
    vehicle.send(0x10, &body).await;
    let connack = vehicle.frame().await.unwrap();
    assert_eq!(connack.body[..2], [0, 0], "no session is present");
    let properties: HashSet<&[u8]> = [
        &[0x11, 0, 0, 0, 0][..],
        &[0x21, 0, 32],
        &[0x24, 1],
        &[0x25, 0],
        &[0x27, 0, 8, 0, 0],
        &[0x28, 0],
        &[0x29, 0],
        &[0x2a, 0],
        &[0x13, 0x0e, 0x10],
    ]
    .into();
    assert_eq!(usize::from(connack.body[2]), properties.iter().map(|property| property.len()).sum::<usize>());
    for property in properties {
        let found = connack.body.windows(property.len()).any(|window| window == property);
        assert!(found, "{property:?} in {connack:?}");
    }
}

#[tokio::test]
async fn only_the_own_command_topic_is_granted() {
    for version in BOTH {
        let running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        let filters = [
            (DOWN, 1),
            (DOWN, 2),
            ("#", 1),
            ("ota/+/+/down", 1),
            ("ota/VEH_002/CCU_001/down", 1),
            (UP, 1),
            (DOWN, 0),
        ];
        vehicle.subscribe(&filters).await;
        let no = if version == Version::V5_0 { 0x87 } else { 0x80 };
        let without_qos = if version == Version::V5_0 { 0x83 } else { 0x80 };
        assert_eq!(vehicle.expect_suback().await, [1, 1, no, no, no, no, without_qos]);
        vehicle.subscribe(&[("$share/all/ota/VEH_001/CCU_001/down", 1)]).await;
        assert_eq!(vehicle.expect_suback().await, [no]);
        vehicle.subscribe(&[(DOWN, 1); 9]).await;
        vehicle.expect_closed(0x97).await;
    }
}

#[tokio::test]
async fn a_command_that_was_not_acknowledged_comes_again_after_a_reconnect() {
    for version in BOTH {
        let mut running = Running::start().await;
        running.put_in_outbox(&["m1"]);
        let mut vehicle = running.vehicle(version).await;
        vehicle.subscribe(&[(DOWN, 1)]).await;
        assert_eq!(vehicle.expect_suback().await, [1]);
        let (_, payload, expires) = vehicle.expect_command().await;
        assert_eq!((payload.as_str(), expires), ("command m1", version == Version::V5_0));
        drop(vehicle);

        let mut vehicle = running.vehicle(version).await;
        vehicle.subscribe(&[(DOWN, 1)]).await;
        vehicle.expect_suback().await;
        let (packet_id, payload, _) = vehicle.expect_command().await;
        assert_eq!(payload, "command m1");
        // On one connection it is not sent twice, however often the vehicle is woken.
        running.put_in_outbox(&["m2"]);
        running.connections.wake(&own());
        assert_eq!(vehicle.expect_command().await.1, "command m2");
        vehicle.puback(packet_id).await;
        assert_eq!(running.delivered.recv().await.unwrap().as_str(), "m1");
    }
}

#[tokio::test]
async fn a_command_acknowledged_while_the_outbox_is_looked_into_is_not_sent_again() {
    let running = Running::start().await;
    running.put_in_outbox(&["m1"]);
    let mut vehicle = running.vehicle(Version::V5_0).await;
    vehicle.subscribe(&[(DOWN, 1)]).await;
    vehicle.expect_suback().await;
    let (packet_id, _, _) = vehicle.expect_command().await;
    let (has_seen, seen) = oneshot::channel();
    *running.desk.slow_look.lock().unwrap() = Some(has_seen);
    running.connections.wake(&own());
    seen.await.unwrap();
    vehicle.puback(packet_id).await;
    vehicle.ping().await;
    vehicle.expect_pong().await;
    running.desk.let_through.add_permits(1);
    running.put_in_outbox(&["m2"]);
    running.connections.wake(&own());
    assert_eq!(vehicle.expect_command().await.1, "command m2");
}

#[tokio::test]
async fn many_commands_go_out_as_the_vehicle_acknowledges() {
    let mut running = Running::start().await;
    let names: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
    running.put_in_outbox(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut vehicle = running.vehicle(Version::V5_0).await;
    vehicle.subscribe(&[(DOWN, 1)]).await;
    vehicle.expect_suback().await;
    let mut in_flight = Vec::new();
    for name in &names[..16] {
        let (packet_id, payload, _) = vehicle.expect_command().await;
        assert_eq!(payload, format!("command {name}"));
        in_flight.push(packet_id);
    }
    vehicle.ping().await;
    vehicle.expect_pong().await;
    for name in &names[16..] {
        vehicle.puback(in_flight.remove(0)).await;
        running.delivered.recv().await.unwrap();
        let (packet_id, payload, _) = vehicle.expect_command().await;
        assert_eq!(payload, format!("command {name}"));
        in_flight.push(packet_id);
    }
}

#[tokio::test]
async fn the_later_connection_of_a_vehicle_takes_over() {
    for version in BOTH {
        let mut running = Running::start().await;
        let mut earlier = running.vehicle(version).await;
        let mut later = running.vehicle(version).await;
        earlier.expect_closed(0x8e).await;
        assert_eq!(running.desk.ends(), [Some("TAKEN_OVER"), None]);
        assert!(running.connections.is_connected(&own()));
        later.publish(UP, Some(1), b"{}").await;
        later.expect_puback(1).await;
        running.arrived.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_payload_above_its_topics_limit_reaches_the_desk_and_a_packet_above_the_limit_does_not() {
    for version in BOTH {
        let mut running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        vehicle.publish(UP, Some(1), &vec![b' '; 400_000]).await;
        assert_eq!(running.arrived.recv().await.unwrap().payload.len(), 400_000);
        vehicle.expect_puback(1).await;
        vehicle.publish(UP, Some(2), &vec![b' '; 512 * 1024]).await;
        vehicle.expect_closed(0x95).await;
        assert!(running.arrived.try_recv().is_err());
    }
}

#[tokio::test]
async fn what_the_endpoint_does_not_do_closes_the_connection() {
    for version in BOTH {
        let running = Running::start().await;
        let id = [0, 1];
        let publish =
            |topic: &str, id: &[u8], properties: &[u8]| [&text(topic), id, properties, b"{}"].concat();
        let none: &[u8] = if version == Version::V5_0 { &[0] } else { &[] };
        let mut cases = vec![
            ("retained", 0x33, publish(UP, &id, none), 0x9a),
            ("QoS 2", 0x34, publish(UP, &id, none), 0x9b),
            ("QoS 3", 0x36, publish(UP, &id, none), 0x81),
            ("duplicate with QoS 0", 0x38, publish(UP, &[], none), 0x82),
            ("packet id 0", 0x32, publish(UP, &[0, 0], none), 0x82),
            ("wildcard", 0x32, publish("ota/+/up", &id, none), 0x90),
            ("NUL", 0x32, publish("ota/\0/up", &id, none), 0x90),
            ("no topic", 0x32, publish("", &id, none), 0x90),
            ("reserved flags", 0x80, [&id, none, &text(DOWN), &[1]].concat(), 0x81),
            ("reserved flags of a ping", 0xc1, vec![], 0x81),
            ("a ping with a body", 0xc0, vec![0], 0x81),
            ("second CONNECT", 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00".to_vec(), 0x82),
            ("CONNACK", 0x20, vec![0, 0, 0], 0x82),
            ("PUBREL", 0x62, vec![0, 1], 0x82),
            ("no packet", 0x00, vec![], 0x82),
            (
                "subscription to nothing",
                0x82,
                [&id, none].concat(),
                if version == Version::V5_0 { 0x82 } else { 0 },
            ),
        ];
        if version == Version::V5_0 {
            cases.push(("topic alias", 0x32, publish(UP, &id, &[3, 0x23, 0, 1]), 0x94));
            let identified = [&id[..], &[2, 0x0b, 1], &text(DOWN), &[1]].concat();
            cases.push(("subscription identifier", 0x82, identified, 0xa1));
            cases.push(("AUTH", 0xf0, vec![], 0x82));
        }
        for (name, first, body, reason) in cases {
            let mut vehicle = running.vehicle(version).await;
            vehicle.send(first, &body).await;
            println!("{name}");
            vehicle.expect_closed(reason).await;
            assert_eq!(running.desk.ends().pop(), Some(Some("VIOLATION")));
        }
    }
}

#[tokio::test]
async fn a_message_that_could_not_be_stored_is_not_acknowledged() {
    for version in BOTH {
        let running = Running::start().await;
        running.desk.fails.store(true, Ordering::SeqCst);
        let mut vehicle = running.vehicle(version).await;
        vehicle.publish(UP, Some(1), b"{}").await;
        vehicle.expect_closed(0x89).await;
    }
}

#[tokio::test]
async fn a_stop_lets_the_desk_finish_and_tells_the_vehicles() {
    for version in BOTH {
        let mut running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        let mut silent = running.dial(&binding("VEH_002", "CCU_001"), version).await;
        vehicle.publish(UP, Some(1), b"slow").await;
        running.arrived.recv().await.unwrap();
        running.shutdown.cancel();
        running.desk.let_through.add_permits(1);
        vehicle.expect_puback(1).await;
        vehicle.expect_closed(0x8b).await;
        assert_eq!(silent.frame().await, None);
        drop(vehicle);
        running.server.await.unwrap();
        assert!(!running.connections.is_connected(&own()));
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_cut_at_once() {
    for version in BOTH {
        let running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        for thumbprint in running.bed.pki.revoke(&own(), now()).unwrap() {
            running.connections.cut_certificate(&thumbprint);
        }
        vehicle.expect_closed(0x87).await;
        assert_eq!(running.desk.ends(), [Some("REVOKED")]);
    }
}

/// One connection without TLS, so that time can be advanced.
struct WithoutTls {
    vehicle: Client<DuplexStream>,
    task: JoinHandle<()>,
    shared: Arc<Shared<FakeDesk>>,
    given: Given,
}

fn without_tls(version: Version, limits: MqttLimits) -> WithoutTls {
    let (theirs, ours) = tokio::io::duplex(64 * 1024);
    let (endpoint, given) = endpoint(limits);
    let peer = PeerIdentity {
        common_name: "VEH_001_CCU_001".to_owned(),
        thumbprint: farrier_protocol::Thumbprint::of_certificate(b""),
        certificate: None,
    };
    let MqttEndpoint { desk, connections, topics, clock, limits } = endpoint;
    let shared = Arc::new(Shared::new(desk, connections, topics, clock, limits));
    let task = tokio::spawn(connection::serve(ours, peer, Arc::clone(&shared)));
    WithoutTls { vehicle: Client::new(theirs, version), task, shared, given }
}

#[tokio::test(start_paused = true)]
async fn a_silent_vehicle_is_closed_after_one_and_a_half_keep_alives() {
    let WithoutTls { mut vehicle, task, shared, .. } = without_tls(Version::V5_0, MqttLimits::default());
    vehicle.connect("VEH_001_CCU_001").await;
    vehicle.frame().await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(89)).await;
        vehicle.ping().await;
        vehicle.expect_pong().await;
    }
    let start = tokio::time::Instant::now();
    let mut octets = Vec::new();
    vehicle.stream.read_to_end(&mut octets).await.unwrap();
    assert_eq!(octets, [0xe0, 1, 0x8d]);
    assert_eq!(start.elapsed().as_secs(), 90);
    assert_eq!(shared.desk.ends(), [Some("KEEP_ALIVE")]);
    drop(vehicle);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed() {
    let WithoutTls { mut vehicle, task, .. } = without_tls(Version::V5_0, MqttLimits::default());
    let start = tokio::time::Instant::now();
    let mut octets = Vec::new();
    vehicle.stream.read_to_end(&mut octets).await.unwrap();
    assert_eq!((octets.len(), start.elapsed().as_secs()), (0, 10));
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_that_does_not_read_is_closed() {
    let WithoutTls { mut vehicle, task, shared, .. } = without_tls(Version::V5_0, MqttLimits::default());
    shared.desk.outbox.lock().unwrap().push(PendingCommand {
        msg_id: "m1".parse().unwrap(),
        payload: Bytes::from(vec![b' '; 200_000]),
        expires_at: None,
    });
    vehicle.connect("VEH_001_CCU_001").await;
    vehicle.subscribe(&[(DOWN, 1)]).await;
    let start = tokio::time::Instant::now();
    task.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30);
    assert!(!shared.connections.is_connected(&own()));
}

#[tokio::test]
async fn no_more_is_taken_at_a_time_than_was_announced() {
    for version in BOTH {
        let mut running = Running::start().await;
        let mut vehicle = running.vehicle(version).await;
        for packet_id in 1..=40 {
            vehicle.publish(UP, Some(packet_id), b"slow").await;
        }
        for _ in 0..32 {
            running.arrived.recv().await.unwrap();
        }
        // What comes after waits in the socket, a ping too, until the desk has answered.
        vehicle.ping().await;
        assert!(running.arrived.try_recv().is_err());
        for packet_id in 1..=9 {
            running.desk.let_through.add_permits(1);
            vehicle.expect_puback(packet_id).await;
        }
        // By now the last message is taken, and there was room for the ping behind it.
        vehicle.expect_pong().await;
        running.desk.let_through.add_permits(31);
        for packet_id in 10..=40 {
            vehicle.expect_puback(packet_id).await;
        }
    }
}

#[tokio::test]
async fn an_independent_client_publishes_and_takes_commands() {
    use rumqttc::mqttbytes::QoS;
    use rumqttc::mqttbytes::v5::Packet;
    use rumqttc::{AsyncClient, Event, MqttOptions, PublishOptions, TlsConfiguration, Transport};

    let mut running = Running::start().await;
    running.put_in_outbox(&["m1"]);
    let folder = running.bed.vehicle(&own());
    let mut options = MqttOptions::new("VEH_001_CCU_001", ("localhost", running.port));
    let tls = TlsConfiguration::Rustls(Arc::new(running.bed.usual_client(&folder)));
    options.set_clean_start(true).set_transport(Transport::tls_with_config(tls));
    let (client, mut events) = AsyncClient::builder(options).capacity(8).build();
    client.subscribe(DOWN, QoS::AtLeastOnce).await.unwrap();
    client.publish(UP, "{}", PublishOptions::new(QoS::AtLeastOnce)).await.unwrap();
    let (mut acknowledged, mut commanded) = (false, false);
    while !acknowledged || !commanded {
        match timeout(Duration::from_secs(20), events.poll()).await.unwrap().unwrap() {
            Event::Incoming(Packet::PubAck(_)) => acknowledged = true,
            Event::Incoming(Packet::Publish(publish)) => {
                assert_eq!(publish.payload.as_ref(), b"command m1");
                commanded = true;
            }
            Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_) => {}
        }
    }
    let driving = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    assert_eq!(running.arrived.recv().await.unwrap().payload.as_ref(), b"{}");
    assert_eq!(running.delivered.recv().await.unwrap().as_str(), "m1");
    driving.abort();
}
