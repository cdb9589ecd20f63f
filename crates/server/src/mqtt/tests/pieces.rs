//! Packets have no seam in the stream: several come in one piece, and one in many.

use std::io::Cursor;

use super::*;

/// The octets of what a vehicle says, before any of it is sent.
async fn octets_of(version: Version, says: impl AsyncFnOnce(&mut Client<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut vehicle = Client::new(Cursor::default(), version);
    says(&mut vehicle).await;
    vehicle.stream.into_inner()
}

#[tokio::test]
async fn a_vehicle_may_say_all_at_once_and_go() {
    for version in BOTH {
        let mut running = Running::start().await;
        let octets = octets_of(version, async |vehicle| {
            vehicle.connect("VEH_001_CCU_001").await;
            vehicle.publish(UP, Some(7), b"all at once").await;
            vehicle.send(0xe0, &[]).await;
        })
        .await;
        let mut vehicle = running.dial(&own(), version).await;
        vehicle.stream.write_all(&octets).await.unwrap();
        assert_eq!(running.arrived.recv().await.unwrap().payload.as_ref(), b"all at once");
        // The vehicle has said that it listens no longer: it may not get its answers, and is let go.
        while vehicle.frame().await.is_some() {}
        running.shutdown.cancel();
        running.server.await.unwrap();
    }
}

#[tokio::test]
async fn each_packet_of_one_piece_has_its_answer() {
    for version in BOTH {
        let running = Running::start().await;
        running.put_in_outbox(&["m1"]);
        let octets = octets_of(version, async |vehicle| {
            vehicle.connect("VEH_001_CCU_001").await;
            vehicle.subscribe(&[(DOWN, 1)]).await;
            vehicle.publish(UP, Some(7), b"first").await;
            vehicle.publish(UP, Some(8), b"second").await;
            vehicle.ping().await;
        })
        .await;
        let mut vehicle = running.dial(&own(), version).await;
        vehicle.stream.write_all(&octets).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..6 {
            answers.push(vehicle.frame().await.unwrap().kind);
        }
        assert_eq!(answers.remove(0), 2, "CONNACK comes before all else");
        answers.sort_unstable();
        assert_eq!(answers, [3, 4, 4, 9, 13], "the command, two PUBACK, SUBACK, PINGRESP");
        running.shutdown.cancel();
        running.server.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn octets_that_come_one_by_one_are_a_packet_and_never_more_time_for_it() {
    for version in BOTH {
        let connect = octets_of(version, async |vehicle| vehicle.connect("VEH_001_CCU_001").await).await;
        let drip = |between: Duration| {
            let connection = without_tls(version, MqttLimits::default());
            let connect = connect.clone();
            async move {
                let WithoutTls { mut vehicle, task, .. } = connection;
                let start = tokio::time::Instant::now();
                for octet in connect {
                    tokio::time::sleep(between).await;
                    if vehicle.stream.write_all(&[octet]).await.is_err() {
                        break;
                    }
                }
                let answer = vehicle.frame().await;
                drop(vehicle);
                task.await.unwrap();
                (answer, start.elapsed())
            }
        };
        let (answer, _) = drip(Duration::from_millis(100)).await;
        assert_eq!(answer.unwrap().body[..2], [0, 0], "within the ten seconds that a CONNECT may take");
        let (answer, after) = drip(Duration::from_secs(1)).await;
        assert_eq!(answer, None, "an octet a second keeps no place");
        assert!(after.as_secs() <= 11, "closed after {after:?}");
    }
}
