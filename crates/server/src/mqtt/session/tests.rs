use proptest::prelude::*;

use super::super::frame::FrameBuffer;
use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn connect(version: Version) -> Connect {
    Connect {
        version,
        client_id: "VEH_A_B".to_owned(),
        keep_alive_s: 60,
        has_will: false,
        wants_enhanced_authentication: false,
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
    }
}

fn peer() -> PeerIdentity {
    PeerIdentity {
        common_name: "VEH_A_B".to_owned(),
        thumbprint: farrier_protocol::Thumbprint::of_certificate(b"certificate"),
        certificate: None,
    }
}

fn session(connect: Connect) -> Session {
    Session::open(connect, &peer(), &Arc::new(Topics::default()), &MqttLimits::default()).unwrap().0
}

fn subscribed(connect: Connect) -> Session {
    let mut session = session(connect);
    let filters = vec![("ota/VEH/A_B/down".to_owned(), Qos::AtLeastOnce)];
    assert!(matches!(session.handle(Packet::Subscribe { packet_id: 1, filters }), Ok(Step::Subscribed(_))));
    session
}

fn publish(topic: &str, packet_id: Option<u16>) -> Packet {
    Packet::Publish(Publish {
        topic: topic.to_owned(),
        packet_id,
        payload: Bytes::from_static(b"{}"),
        expiry_s: None,
    })
}

fn command(number: usize, expires_at: Option<UnixMillis>) -> PendingCommand {
    PendingCommand {
        msg_id: format!("m{number}").parse().unwrap(),
        payload: Bytes::from_static(b"{}"),
        expires_at,
    }
}

/// The packet ids of the PUBLISH packets in what is sent.
fn sent_packet_ids(octets: &[u8]) -> Vec<u16> {
    let mut frames = FrameBuffer::default();
    frames.extend(octets);
    let mut ids = Vec::new();
    while let Some(frame) = frames.next(usize::MAX).unwrap() {
        assert_eq!((frame.kind, frame.flags), (3, 0b0010), "QoS 1, not retained, not a duplicate");
        let topic_length = usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
        ids.push(u16::from_be_bytes([frame.body[2 + topic_length], frame.body[3 + topic_length]]));
    }
    ids
}

#[test]
fn a_connection_is_one_of_the_bindings_that_its_client_id_can_mean() {
    let mut session = session(connect(Version::V5_0));
    assert!(matches!(session.handle(publish("ota/VEH/A_B/up/vci", Some(1))), Ok(Step::Receive(_))));
    let foreign = session.handle(publish("ota/VEH_A/B/up/vci", Some(2)));
    assert_eq!(foreign, Ok(Step::Acknowledge { packet_id: 2, reason: PubackReasonCode::NotAuthorized }));
    let filters = vec![("ota/VEH_A/B/down".to_owned(), Qos::AtLeastOnce)];
    assert!(matches!(session.handle(Packet::Subscribe { packet_id: 3, filters }), Ok(Step::Send(_))));
    assert_eq!(session.subscriber(), None);
}

#[test]
fn what_cannot_be_refused_by_an_acknowledgement_closes_the_connection() {
    for (version, packet_id) in [(Version::V5_0, None), (Version::V3_1_1, None), (Version::V3_1_1, Some(1))] {
        let result = session(connect(version)).handle(publish("ota/OTHER/A_B/up/vci", packet_id));
        assert_eq!(result.unwrap_err().reason, DisconnectReasonCode::NotAuthorized);
    }
}

#[test]
fn commands_keep_to_the_window_and_are_sent_once() {
    let connect = Connect { receive_maximum: 3, ..connect(Version::V5_0) };
    let mut session = subscribed(connect);
    let waiting: Vec<_> = (0..5).map(|number| command(number, None)).collect();
    assert_eq!(sent_packet_ids(&session.commands(&waiting, NOW).unwrap()), [1, 2, 3]);
    assert!(session.commands(&waiting, NOW).unwrap().is_empty());
    let step = session.handle(Packet::Puback { packet_id: 2, refused: false }).unwrap();
    let Step::Delivered { msg_id, binding } = step else { panic!("{step:?}") };
    assert_eq!((msg_id.as_str(), binding.to_string().as_str()), ("m1", "VEH/A_B"));
    assert_eq!(session.handle(Packet::Puback { packet_id: 2, refused: false }), Ok(Step::Nothing));
    assert!(session.forget(&msg_id), "there are more");
    let waiting: Vec<_> = waiting.into_iter().filter(|command| command.msg_id != msg_id).collect();
    assert_eq!(sent_packet_ids(&session.commands(&waiting, NOW).unwrap()), [4]);
}

#[test]
fn expired_commands_and_those_that_are_too_large_stay_here() {
    let connect = Connect { maximum_packet_size: 100, ..connect(Version::V5_0) };
    let mut session = subscribed(connect);
    let large = PendingCommand { payload: Bytes::from(vec![b' '; 100]), ..command(2, None) };
    let waiting = [command(1, Some(NOW)), large, command(3, Some(UnixMillis(NOW.0 + 1)))];
    assert_eq!(sent_packet_ids(&session.commands(&waiting, NOW).unwrap()).len(), 1);
    assert_eq!(session.in_flight.len(), 1);
    assert_eq!(session.in_flight[0].msg_id.as_str(), "m3");
    assert_eq!(seconds_until(UnixMillis(NOW.0 + 1), NOW), 1, "rounded up");
}

#[test]
fn what_goes_out_at_once_is_bounded_and_the_rest_follows() {
    let mut session = subscribed(connect(Version::V5_0));
    let large =
        |number| PendingCommand { payload: Bytes::from(vec![b' '; 200_000]), ..command(number, None) };
    let waiting: Vec<_> = (0..5).map(large).collect();
    assert_eq!(session.commands(&waiting, NOW).unwrap().len() / 200_000, 2);
    assert!(session.forget(&"m0".parse().unwrap()), "there are more");
    let waiting = waiting.get(2..).unwrap();
    assert_eq!(session.commands(waiting, NOW).unwrap().len() / 200_000, 2);
}

#[test]
fn nothing_is_sent_to_a_vehicle_that_does_not_listen() {
    let mut session = subscribed(connect(Version::V3_1_1));
    let filters = vec!["ota/VEH/A_B/down".to_owned()];
    assert!(matches!(session.handle(Packet::Unsubscribe { packet_id: 7, filters }), Ok(Step::Send(_))));
    assert_eq!(session.commands(&[command(1, None)], NOW), Ok(Vec::new()));
}

#[test]
fn packet_ids_go_round_without_zero_and_without_meeting_one_in_flight() {
    let mut session = subscribed(connect(Version::V3_1_1));
    session.commands(&[command(0, None)], NOW).unwrap();
    session.last_packet_id = u16::MAX;
    assert_eq!(sent_packet_ids(&session.commands(&[command(1, None)], NOW).unwrap()), [2]);
}

#[test]
fn a_dead_connection_has_an_end_even_without_keep_alive() {
    for (asked, expected) in [(60, 90), (0, 5400), (u16::MAX, 5400)] {
        let session = session(Connect { keep_alive_s: asked, ..connect(Version::V5_0) });
        assert_eq!(session.longest_silence(), Duration::from_secs(expected));
    }
}

/// Feeds octets as a connection would; what it decides does not matter, that it decides does.
fn feed(mut session: Session, octets: &[u8]) {
    let mut frames = FrameBuffer::default();
    frames.extend(octets);
    while let Ok(Some(frame)) = frames.next(MAXIMUM_CONNECT_SIZE) {
        let Ok(packet) = packet::decode(session.version(), &frame) else { return };
        if session.handle(packet).is_err() {
            return;
        }
    }
}

/// Octets that look like a packet, so that the parsers behind the framing are reached.
fn almost_a_packet() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..120)).prop_map(|(first, body)| {
        let mut octets = vec![first, u8::try_from(body.len()).unwrap()];
        octets.extend(body);
        octets
    })
}

/// Valid packets with a few octets changed.
fn damaged_packet() -> impl Strategy<Value = Vec<u8>> {
    let good: Vec<Vec<u8>> = vec![
        b"\x32\x1c\x00\x12ota/VEH/A_B/up/vci\x00\x01\x00{\"a\":1}".to_vec(),
        b"\x82\x16\x00\x01\x00\x00\x10ota/VEH/A_B/down\x01".to_vec(),
        b"\x82\x15\x00\x01\x00\x10ota/VEH/A_B/down\x01".to_vec(),
        b"\xa2\x15\x00\x01\x00\x00\x10ota/VEH/A_B/down".to_vec(),
        b"\x40\x04\x00\x01\x87\x00".to_vec(),
        b"\xe0\x02\x00\x00".to_vec(),
        b"\x32\x20\x00\x12ota/VEH/A_B/up/vci\x00\x01\x05\x02\x00\x00\x00\x0a{}{".to_vec(),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(good), changes).prop_map(|(mut octets, changes)| {
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_never_panics(
        packets in proptest::collection::vec(prop_oneof![almost_a_packet(), damaged_packet()], 1..4),
    ) {
        let octets = packets.concat();
        feed(subscribed(connect(Version::V5_0)), &octets);
        feed(subscribed(connect(Version::V3_1_1)), &octets);
    }

    #[test]
    fn a_damaged_connect_never_panics(
        changes in proptest::collection::vec((0_usize..35, any::<u8>()), 0..5),
        version in 3_u8..7,
    ) {
        let mut octets = b"\x10\x21\x00\x04MQTT\x05\x02\x00\x3c\x0d\x11\x00\x00\x00\x0a\x21\x00\x14\x27\x00\x00\x10\x00\x00\x07VEH_A_B".to_vec();
        let undamaged = version == 5 && changes.is_empty();
        octets[8] = version;
        for (at, octet) in changes {
            octets[at] = octet;
        }
        let mut frames = FrameBuffer::default();
        frames.extend(&octets);
        let opened = match frames.next(MAXIMUM_CONNECT_SIZE) {
            Ok(Some(frame)) => packet::decode_connect(&frame)
                .is_ok_and(|connect| Session::open(connect, &peer(), &Arc::new(Topics::default()), &MqttLimits::default()).is_ok()),
            Ok(None) | Err(_) => false,
        };
        prop_assert!(opened || !undamaged);
    }

    #[test]
    fn random_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        feed(session(connect(Version::V5_0)), &octets);
        feed(session(connect(Version::V3_1_1)), &octets);
    }
}
