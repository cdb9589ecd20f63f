//! Connections that break, vehicles that are away, a server that restarts: the update goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use farrier_simulator::vehicle::SimulatedVehicle;
use farrier_system_tests::cutting_proxy::CuttingProxy;
use farrier_system_tests::mqtt_client::MqttClient;
use farrier_system_tests::testbed::{Testbed, assert_all_run, binding, images};
use farrier_system_tests::until;
use rumqttc::mqttbytes::v5::PubAckReason;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_goes_on_where_its_connection_was_cut() {
    const SIZE: usize = 6_000_000;
    let proxy = CuttingProxy::start().await;
    let testbed = Testbed::start_with(|config| {
        config.base_url = Some(format!("https://localhost:{}", proxy.port()));
        config.max_kb_per_msg = 256;
    })
    .await;
    proxy.lead_to(testbed.https());
    proxy.cut_once_after(4_000_000);
    let vehicle = SimulatedVehicle::start(testbed.vehicle(1, 1)).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    let images = images(5, 1, SIZE);
    api.start_campaign("winter", "2.0.0", &images).await;

    api.reaches("winter", "VEH_001", "succeeded").await;
    assert_all_run(&vehicle, "2.0.0", &images);
    assert_eq!(proxy.cuts(), 1, "the connection was cut");
    // Once: the image, TLS records and HTTP headers around it, and at most one range that was under way.
    let allowed = SIZE as u64 + SIZE as u64 / 20 + 256 * 1024;
    let served = proxy.from_target_bytes();
    assert!(served <= allowed, "{served} bytes came for an image of {SIZE}: something was fetched twice");
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vehicle_that_is_away_is_updated_when_it_comes_back() {
    let proxy = CuttingProxy::start().await;
    let testbed = Testbed::start().await;
    proxy.lead_to(testbed.mqtt());
    let mut config = testbed.vehicle(1, 2);
    config.server = format!("localhost:{}", proxy.port());
    let vehicle = SimulatedVehicle::start(config).await.unwrap();
    let api = testbed.api();
    api.sees_connected("VEH_001", true).await;
    proxy.block(true);
    api.sees_connected("VEH_001", false).await;

    let images = images(6, 2, 50_000);
    api.start_campaign("winter", "2.0.0", &images).await;
    let waiting = api.reaches("winter", "VEH_001", "waiting").await;
    assert!(waiting["sentence"].as_str().unwrap().contains("not connected"), "{waiting}");

    proxy.block(false);
    api.reaches("winter", "VEH_001", "succeeded").await;
    assert_all_run(&vehicle, "2.0.0", &images);
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}

/// Nothing depends on an MQTT session: the command waits in the server's store until it was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_was_sent_while_the_vehicle_was_away_waits_for_it() {
    let testbed = Testbed::start().await;
    let who = binding(1);
    let certificates = testbed.certificates(&who);
    let thumbprint = thumbprint(&certificates);
    let wake_up = json!({
        "msg_id": "VMG_1", "proto_ver": "1.0", "type": "WakeUp", "vehicle_id": "VEH_001", "gateway_id": "CCU_001",
        "ts": 1_761_351_123_000_i64, "boot_id": "boot-1", "boot_seq": 1, "uptime_ms": 10,
        "client_cert_thumbprint": thumbprint,
    });

    let mut first =
        MqttClient::connect(testbed.mqtt().port(), &certificates, "VEH_001_CCU_001").await.unwrap();
    let acknowledged = first.publish("ota/VEH_001/CCU_001/up/wakeup", wake_up.to_string()).await;
    assert_eq!(acknowledged, Some(PubAckReason::Success));
    // It leaves without ever having listened on `down`, so the RequestVCI cannot have reached it.
    first.vanish();
    testbed.api().sees_connected("VEH_001", false).await;

    let mut second =
        MqttClient::connect(testbed.mqtt().port(), &certificates, "VEH_001_CCU_001").await.unwrap();
    second.subscribe("ota/VEH_001/CCU_001/down").await.unwrap();
    let command = second.message().await;
    assert_eq!(command["type"], "RequestVCI", "{command}");
    second.vanish();
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_in_mid_campaign_goes_on_with_it() {
    let proxy = CuttingProxy::start().await;
    let mut testbed = Testbed::start_with(|config| {
        config.base_url = Some(format!("https://localhost:{}", proxy.port()));
        config.max_kb_per_msg = 64;
    })
    .await;
    proxy.lead_to(testbed.https());
    // Files cannot be fetched until the server has been restarted: so it is in mid-campaign for sure.
    proxy.block(true);
    let vehicle = SimulatedVehicle::start(testbed.vehicle(1, 2)).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    let images = images(7, 2, 500_000);
    api.start_campaign("winter", "2.0.0", &images).await;
    api.reaches("winter", "VEH_001", "downloading").await;

    testbed.stop_server().await;
    testbed.start_server().await;
    let api = testbed.api();
    let update = api.vehicle_update("winter", "VEH_001").await.expect("the campaign is still there");
    assert_eq!(update["state"], "downloading", "{update}");
    proxy.block(false);
    api.reaches("winter", "VEH_001", "succeeded").await;
    assert_all_run(&vehicle, "2.0.0", &images);
    until("the campaign counts it", async || {
        (api.get("campaigns/winter").await["states"] == json!({ "succeeded": 1 })).then_some(())
    })
    .await;
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}

fn thumbprint(certificates: &std::path::Path) -> String {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let leaf = CertificateDer::from_pem_file(certificates.join("cert.pem")).unwrap();
    farrier_protocol::Thumbprint::of_certificate(&leaf).to_string()
}
