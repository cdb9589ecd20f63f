//! Two real servers on one PostgreSQL and one mosquitto: vehicles with real gateways are updated through the broker
//! while servers are killed, and while the broker is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a panic is how they say what is wrong"
)]

#[path = "through_a_broker/fleet.rs"]
mod fleet;
#[path = "through_a_broker/nodes.rs"]
mod nodes;

use std::time::{Duration, Instant};

use farrier_system_tests::mqtt_client::MqttClient;
use farrier_system_tests::testbed::{binding, images};
use farrier_system_tests::until;
use fleet::Fleet;
use nodes::Nodes;
use rumqttc::mqttbytes::v5::PubAckReason;

const VEHICLES: u8 = 4;
const ECUS: u8 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_killed_in_mid_campaign_lose_nothing_and_do_nothing_twice() {
    let began = Instant::now();
    let mut nodes = Nodes::new("killed", VEHICLES);
    // The first one makes the operator's token.
    nodes.start(1);
    nodes.start(0);
    let fleet = Fleet::start(&nodes, VEHICLES, ECUS).await;
    nodes.api().knows_vehicles(usize::from(VEHICLES)).await;

    for (number, kills) in [(1_u64, 6_usize), (2, 6)] {
        let version = format!("{}.0.0", number + 1);
        let campaign = format!("C{number}");
        let new = images(number, ECUS, 300_000);
        nodes.api().start_campaign(&campaign, &version, &new).await;
        for kill in 0..kills {
            tokio::time::sleep(Duration::from_millis(400)).await;
            // The second one serves the files and the API; that it comes back is what everybody waits for.
            let node = kill % 2;
            nodes.kill(node);
            tokio::time::sleep(Duration::from_millis(100)).await;
            nodes.start(node);
        }
        for vehicle in 1..=VEHICLES {
            nodes.api().reaches(&campaign, &format!("VEH_{vehicle:03}"), "succeeded").await;
        }
        fleet.all_run(&version, &new);
        println!("{campaign}: {kills} kills, all updated after {:.1} s", began.elapsed().as_secs_f64());
    }

    // One goes for good: what the broker holds for it is asked for again.
    nodes.kill(0);
    let new = images(3, ECUS, 300_000);
    nodes.api().start_campaign("C3", "4.0.0", &new).await;
    for vehicle in 1..=VEHICLES {
        nodes.api().reaches("C3", &format!("VEH_{vehicle:03}"), "succeeded").await;
    }
    fleet.all_run("4.0.0", &new);
    println!("C3: one server gone for good, all updated after {:.1} s", began.elapsed().as_secs_f64());
    fleet.stop().await;
    nodes.stop(1);
    nodes.assert_nothing_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vehicle_speaks_for_no_other_through_the_broker() {
    let nodes = Nodes::new("rules", 2);
    let certificates = nodes.certificates(&binding(1));
    // The user is the certificate's common name; the client id is whatever a client claims.
    for (topic, is_own) in [
        ("ota/VEH_001/CCU_001/up/wakeup", true),
        ("ota/VEH_002/CCU_002/up/wakeup", false),
        ("ota/VEH_002/CCU_002/down", false),
        ("ota/VEH_001/CCU_001/down", false),
    ] {
        let connected = MqttClient::connect(nodes.broker_port(), &certificates, "VEH_002_CCU_002").await;
        let mut client = connected.expect("a connection with a certificate of the authority");
        let answer = client.publish(topic, "{}").await;
        if is_own {
            assert_eq!(answer, Some(PubAckReason::NoMatchingSubscribers), "{topic}");
        } else {
            // mosquitto 2.0.11 closes the connection behind its refusal.
            assert!(matches!(answer, None | Some(PubAckReason::NotAuthorized)), "{topic}: {answer:?}");
            assert!(
                nodes.broker_log_has(&format!(
                    "Denied PUBLISH from VEH_002_CCU_002 (d0, q1, r0, m1, '{topic}'"
                ))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_vehicles_that_find_no_server_wait_and_go_on() {
    let mut nodes = Nodes::new("waits", VEHICLES);
    // No server listens yet: the broker would drop what the gateways say.
    let fleet = Fleet::start(&nodes, VEHICLES, ECUS).await;
    until("the gateways to be told that nobody listens", async || {
        nodes.broker_log_has("Sending PUBACK to VEH_004_CCU_004").then_some(())
    })
    .await;
    nodes.start(1);
    nodes.api().knows_vehicles(usize::from(VEHICLES)).await;

    nodes.says_of_the_broker("ok").await;
    nodes.kill_broker();
    nodes.says_of_the_broker("failed").await;
    nodes.restart_broker();
    nodes.says_of_the_broker("ok").await;

    let new = images(1, ECUS, 300_000);
    nodes.api().start_campaign("C1", "2.0.0", &new).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        nodes.restart_broker();
    }
    for vehicle in 1..=VEHICLES {
        nodes.api().reaches("C1", &format!("VEH_{vehicle:03}"), "succeeded").await;
    }
    fleet.all_run("2.0.0", &new);
    fleet.stop().await;
    nodes.stop(1);
    nodes.assert_nothing_twice();
}
