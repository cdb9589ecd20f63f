//! What one vehicle, and all together, may take; each limit is reached here, and found to hold.

use super::*;

fn limits() -> MqttLimits {
    MqttLimits::default()
}

fn other_certificate(running: &Running) -> std::path::PathBuf {
    let out = running.bed.path("other certificate");
    if !out.exists() {
        running.bed.pki.issue_vehicle(&own(), &out, crate::pki::LEAF_VALIDITY, false, now()).unwrap();
    }
    out
}

/// Refused with this reason; 5.0 is told in words too.
async fn expect_refused<S: AsyncRead + AsyncWrite + Unpin>(
    vehicle: &mut Client<S>,
    modern: u8,
    older: u8,
    words: &str,
) {
    let answer = vehicle.frame().await.unwrap();
    let reason = if vehicle.version == Version::V5_0 { modern } else { older };
    assert_eq!((answer.kind, &answer.body[..2]), (2, &[0, reason][..]), "{answer:?}");
    if vehicle.version == Version::V5_0 {
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(told.contains(words), "{told:?}");
    }
    assert_eq!(vehicle.frame().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_that_sends_too_much_is_told_so_at_a_bounded_rate_and_closed_when_it_goes_on() {
    let limits = MqttLimits { messages_per_second: 1, message_burst: 3, rate_refusals: 5, ..limits() };
    let WithoutTls { mut vehicle, task, shared, mut given } = without_tls(Version::V5_0, limits);
    vehicle.connect("VEH_001_CCU_001").await;
    vehicle.frame().await.unwrap();
    for packet_id in 1..=3 {
        vehicle.publish(UP, Some(packet_id), b"{}").await;
        assert_eq!(vehicle.expect_puback(packet_id).await, None);
    }
    for packet_id in 4..=8 {
        vehicle.publish(UP, Some(packet_id), format!("too much {packet_id}").as_bytes()).await;
        assert_eq!(vehicle.expect_puback(packet_id).await, Some(0x97));
    }
    let told: Vec<_> =
        shared.desk.refused_for_rate.lock().unwrap().iter().map(|inbound| inbound.payload.clone()).collect();
    assert_eq!(told, ["too much 4"], "the others are refused without a word in the store");
    // After a second there is room for one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    vehicle.publish(UP, Some(9), b"{}").await;
    assert_eq!(vehicle.expect_puback(9).await, None);
    for packet_id in 10..=11 {
        vehicle.publish(UP, Some(packet_id), b"{}").await;
    }
    assert_eq!(vehicle.expect_puback(10).await, Some(0x97));
    vehicle.expect_closed(0x96).await;
    drop(vehicle);
    task.await.unwrap();
    let mut arrived = 0;
    while given.arrived.try_recv().is_ok() {
        arrived += 1;
    }
    assert_eq!(arrived, 4);
}

#[tokio::test(start_paused = true)]
async fn an_older_vehicle_is_read_more_slowly_and_loses_nothing() {
    let limits = MqttLimits { messages_per_second: 10, message_burst: 5, ..limits() };
    let WithoutTls { mut vehicle, given: _given, .. } = without_tls(Version::V3_1_1, limits);
    vehicle.connect("VEH_001_CCU_001").await;
    vehicle.frame().await.unwrap();
    let start = tokio::time::Instant::now();
    for packet_id in 1..=25 {
        vehicle.publish(UP, Some(packet_id), b"{}").await;
    }
    for packet_id in 1..=25 {
        assert_eq!(vehicle.expect_puback(packet_id).await, None);
    }
    let taken_in = start.elapsed().as_millis();
    assert!((1_900..2_100).contains(&taken_in), "20 above the burst at 10 a second: {taken_in} ms");
}

#[tokio::test(start_paused = true)]
async fn octets_above_the_share_are_read_more_slowly() {
    for version in BOTH {
        let limits = MqttLimits { kib_per_second: 100, kib_burst: 512, ..limits() };
        let WithoutTls { mut vehicle, given: _given, .. } = without_tls(version, limits);
        vehicle.connect("VEH_001_CCU_001").await;
        vehicle.frame().await.unwrap();
        let start = tokio::time::Instant::now();
        for packet_id in 1..=10 {
            vehicle.publish(UP, Some(packet_id), &vec![b' '; 102_400]).await;
        }
        for packet_id in 1..=10 {
            assert_eq!(vehicle.expect_puback(packet_id).await, None);
        }
        let taken_in = start.elapsed().as_millis();
        assert!((4_800..5_000).contains(&taken_in), "488 KiB above the burst at 100 a second: {taken_in} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn subscribing_again_and_again_closes_the_connection() {
    for version in BOTH {
        let limits = MqttLimits { message_burst: 3, ..limits() };
        let WithoutTls { mut vehicle, mut given, .. } = without_tls(version, limits);
        vehicle.connect("VEH_001_CCU_001").await;
        vehicle.frame().await.unwrap();
        for _ in 0..3 {
            vehicle.subscribe(&[(DOWN, 1)]).await;
            vehicle.expect_suback().await;
        }
        vehicle.subscribe(&[(DOWN, 1)]).await;
        vehicle.expect_closed(0x96).await;
        assert_eq!(given.reported.recv().await, Some(PeerEvent::RateIgnored));
    }
}

#[tokio::test]
async fn whoever_connects_too_often_is_banned_and_operators_are_told_once() {
    for version in BOTH {
        let mut running =
            Running::start_with(MqttLimits { connects_per_minute: 3, ban_s: 90, ..limits() }).await;
        // Connections that never say CONNECT count too.
        for _ in 0..2 {
            drop(running.vehicle(version).await);
        }
        let mut silent = running.dial(&own(), version).await;
        silent.send(0xc0, &[]).await;
        assert_eq!(silent.frame().await, None);
        for _ in 0..2 {
            let mut banned = running.dial(&own(), version).await;
            banned.connect("VEH_001_CCU_001").await;
            expect_refused(&mut banned, 0x97, 3, "try again in").await;
        }
        assert_eq!(running.reported.recv().await, Some(PeerEvent::Banned));
        assert!(running.reported.try_recv().is_err());
        // It is that certificate which is banned, and no other vehicle's.
        let mut other = running.dial(&binding("VEH_002", "CCU_001"), version).await;
        other.connect("VEH_002_CCU_001").await;
        assert_eq!(other.frame().await.unwrap().body[..2], [0, 0]);
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_that_the_server_is_busy() {
    for version in BOTH {
        let running = Running::start_with(MqttLimits { connections: 1, ..limits() }).await;
        let first = running.vehicle(version).await;
        let mut other = running.dial(&binding("VEH_002", "CCU_001"), version).await;
        other.connect("VEH_002_CCU_001").await;
        expect_refused(&mut other, 0x89, 3, "try again in 30 s").await;
        // A vehicle that comes again takes its own place.
        let again = running.vehicle(version).await;
        drop((first, again));
    }
}

#[tokio::test]
async fn another_certificate_does_not_push_a_connected_vehicle_out() {
    for version in BOTH {
        let mut running = Running::start().await;
        let mut first = running.vehicle(version).await;
        let other = other_certificate(&running);
        let stream = connect(running.bed.usual_client(&other), running.port).await.unwrap();
        let mut second = Client::new(stream, version);
        second.connect("VEH_001_CCU_001").await;
        expect_refused(&mut second, 0x87, 5, "another certificate").await;
        assert_eq!(running.reported.recv().await, Some(PeerEvent::OtherCertificate));
        first.ping().await;
        first.expect_pong().await;
        // Once the first has gone, it may come in: which certificate is the vehicle's, the conversation knows.
        first.send(0xe0, &[]).await;
        assert_eq!(first.frame().await, None);
        while running.connections.is_connected(&own()) {
            tokio::task::yield_now().await;
        }
        let stream = connect(running.bed.usual_client(&other), running.port).await.unwrap();
        let mut second = Client::new(stream, version);
        second.connect("VEH_001_CCU_001").await;
        assert_eq!(second.frame().await.unwrap().body[..2], [0, 0]);
    }
}

#[tokio::test]
async fn what_is_not_a_vehicles_own_is_reported_at_a_bounded_rate() {
    let mut running = Running::start().await;
    let mut vehicle = running.vehicle(Version::V5_0).await;
    for packet_id in 1..=5 {
        vehicle.publish("ota/VEH_002/CCU_001/up/vci", Some(packet_id), b"{}").await;
        assert_eq!(vehicle.expect_puback(packet_id).await, Some(0x87));
    }
    assert_eq!(running.reported.recv().await, Some(PeerEvent::ForeignTopic));
    assert!(running.reported.try_recv().is_err());
    let mut other = running.dial(&binding("VEH_002", "CCU_001"), Version::V5_0).await;
    other.connect("VEH_001_CCU_001").await;
    expect_refused(&mut other, 0x85, 2, "not the common name").await;
    assert_eq!(running.reported.recv().await, Some(PeerEvent::ForeignClientId));
}

#[tokio::test]
async fn all_vehicles_together_hold_a_bounded_number_of_messages() {
    // 64 places: two vehicles with 32 messages each take them all.
    let mut running = Running::start_with(MqttLimits { in_flight_mib: 1, ..limits() }).await;
    let mut vehicles = Vec::new();
    for name in ["VEH_001", "VEH_002", "VEH_003"] {
        let mut vehicle = running.dial(&binding(name, "CCU_001"), Version::V5_0).await;
        vehicle.connect(&format!("{name}_CCU_001")).await;
        vehicle.frame().await.unwrap();
        vehicles.push((name, vehicle));
    }
    for (name, vehicle) in &mut vehicles[..2] {
        for packet_id in 1..=32 {
            vehicle.publish(&format!("ota/{name}/CCU_001/up/vci"), Some(packet_id), b"slow").await;
            running.arrived.recv().await.unwrap();
        }
    }
    let (_, third) = &mut vehicles[2];
    third.publish("ota/VEH_003/CCU_001/up/vci", Some(1), b"third").await;
    // Whoever comes now is told to come later: then the third one's message has surely been looked at.
    for version in BOTH {
        let mut late = running.dial(&binding("VEH_004", "CCU_001"), version).await;
        late.connect("VEH_004_CCU_001").await;
        expect_refused(&mut late, 0x89, 3, "try again in 30 s").await;
    }
    assert!(running.arrived.try_recv().is_err(), "the third vehicle's message waits");
    running.desk.let_through.add_permits(1);
    assert_eq!(running.arrived.recv().await.unwrap().payload.as_ref(), b"third");
    let (_, third) = &mut vehicles[2];
    assert_eq!(third.expect_puback(1).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_large_packet_is_not_read_before_there_is_room_for_it() {
    for version in BOTH {
        let WithoutTls { mut vehicle, shared, mut given, .. } = without_tls(version, limits());
        vehicle.connect("VEH_001_CCU_001").await;
        vehicle.frame().await.unwrap();
        let all = shared.places.available_permits();
        let taken = shared.places.acquire_many(u32::try_from(all).unwrap()).await.unwrap();
        {
            let payload = vec![b' '; 300_000];
            let publishing = vehicle.publish(UP, Some(1), &payload);
            tokio::pin!(publishing);
            // The pipe holds 64 KiB: what is not read cannot be written.
            let waited = timeout(Duration::from_secs(600), publishing.as_mut()).await;
            assert!(waited.is_err(), "the packet went in without room for it");
            drop(taken);
            publishing.await;
        }
        assert_eq!(vehicle.expect_puback(1).await, None);
        assert_eq!(given.arrived.recv().await.unwrap().payload.len(), 300_000);
        assert_eq!(shared.places.available_permits(), all, "the room is given back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_packet_that_is_not_finished_closes_the_connection() {
    for version in BOTH {
        let WithoutTls { mut vehicle, given: _given, .. } = without_tls(version, limits());
        vehicle.connect("VEH_001_CCU_001").await;
        vehicle.frame().await.unwrap();
        let start = tokio::time::Instant::now();
        vehicle.stream.write_all(&[0x32, 0xff, 0x7f]).await.unwrap();
        // An octet now and then does not keep it open.
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            vehicle.stream.write_all(b" ").await.unwrap();
        }
        vehicle.expect_closed(0x83).await;
        assert!((60..61).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_expired_while_it_waited_is_not_taken() {
    let WithoutTls { mut vehicle, shared, mut given, .. } = without_tls(Version::V5_0, limits());
    vehicle.connect("VEH_001_CCU_001").await;
    vehicle.frame().await.unwrap();
    let all = u32::try_from(shared.places.available_permits()).unwrap();
    for (expiry_s, answer, is_taken) in [(5_u8, Some(0x83), false), (20, None, true)] {
        let taken = shared.places.acquire_many(all).await.unwrap();
        let properties = [5, 2, 0, 0, 0, expiry_s];
        vehicle.send(0x32, &[&text(UP)[..], &[0, 7], &properties, b"{}"].concat()).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(taken);
        assert_eq!(vehicle.expect_puback(7).await, answer, "worth {expiry_s} s");
        assert_eq!(given.arrived.try_recv().is_ok(), is_taken, "worth {expiry_s} s");
    }
}

#[tokio::test]
async fn acknowledgements_that_are_ready_together_go_out_in_one_write() {
    let (mut theirs, ours) = tokio::io::duplex(64 * 1024);
    let writes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = CountedWrites { stream: ours, writes: Arc::clone(&writes) };
    let (endpoint, mut given) = endpoint(limits());
    let MqttEndpoint { desk, connections, topics, clock, limits } = endpoint;
    let peer = PeerIdentity {
        common_name: "VEH_001_CCU_001".to_owned(),
        thumbprint: farrier_protocol::Thumbprint::of_certificate(b""),
        certificate: None,
    };
    let shared = Arc::new(Shared::new(Arc::clone(&desk), connections, topics, clock, limits));
    tokio::spawn(connection::serve(counted, peer, shared));
    let mut vehicle = Client::new(&mut theirs, Version::V5_0);
    vehicle.connect("VEH_001_CCU_001").await;
    vehicle.frame().await.unwrap();
    let before = writes.load(Ordering::SeqCst);
    for packet_id in 1..=20 {
        vehicle.publish(UP, Some(packet_id), b"slow").await;
        given.arrived.recv().await.unwrap();
    }
    desk.let_through.add_permits(20);
    for packet_id in 1..=20 {
        vehicle.expect_puback(packet_id).await;
    }
    assert_eq!(writes.load(Ordering::SeqCst) - before, 1);
}

/// Counts the writes to a stream.
struct CountedWrites {
    stream: DuplexStream,
    writes: Arc<std::sync::atomic::AtomicUsize>,
}

impl AsyncRead for CountedWrites {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CountedWrites {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        octets: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        std::pin::Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
