//! A vehicle speaks for itself only: topics, payloads and connections of another are refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::PathBuf;
use std::sync::Arc;

use farrier_protocol::Thumbprint;
use farrier_system_tests::mqtt_client::{MqttClient, tls, tls_without_certificate};
use farrier_system_tests::testbed::{Testbed, binding};
use farrier_system_tests::{PATIENCE, until};
use reqwest::Method;
use rumqttc::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

struct Intruder {
    testbed: Testbed,
    certificates: PathBuf,
    client: MqttClient,
}

/// VEH_001 is connected with its own certificate.
async fn intruder() -> Intruder {
    let testbed = Testbed::start().await;
    let certificates = testbed.certificates(&binding(1));
    let client = MqttClient::connect(testbed.mqtt().port(), &certificates, "VEH_001_CCU_001").await.unwrap();
    Intruder { testbed, certificates, client }
}

fn wake_up(vehicle: &str, gateway: &str, certificates: &std::path::Path) -> Value {
    let leaf = CertificateDer::from_pem_file(certificates.join("cert.pem")).unwrap();
    json!({
        "msg_id": "VMG_1", "proto_ver": "1.0", "type": "WakeUp", "vehicle_id": vehicle, "gateway_id": gateway,
        "ts": 1_761_351_123_000_i64, "boot_id": "boot-1", "boot_seq": 1, "uptime_ms": 10,
        "client_cert_thumbprint": Thumbprint::of_certificate(&leaf).to_string(),
    })
}

async fn knows(testbed: &Testbed, vehicle: &str) -> bool {
    testbed.api().ask(Method::GET, &format!("vehicles/{vehicle}"), None).await.0.is_success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_the_topic_of_another_vehicle_is_refused_and_changes_nothing() {
    let Intruder { testbed, certificates, mut client } = intruder().await;
    let stolen = wake_up("VEH_002", "CCU_002", &certificates).to_string();
    let answer = client.publish("ota/VEH_002/CCU_002/up/wakeup", stolen).await;
    assert_eq!(answer, Some(PubAckReason::NotAuthorized));
    assert!(!knows(&testbed, "VEH_002").await, "nobody enrols another");
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_another_vehicle_cannot_be_listened_to() {
    let Intruder { testbed, mut client, .. } = intruder().await;
    for filter in
        ["ota/VEH_002/CCU_002/down", "ota/+/+/down", "ota/#", "#", "$share/x/ota/VEH_002/CCU_002/down"]
    {
        let answer = client.subscribe(filter).await;
        assert!(!matches!(answer, Some(SubscribeReasonCode::Success(_))), "{filter}: {answer:?}");
    }
    // The other one is there and gets its command; the intruder hears nothing of it.
    let certificates = testbed.certificates(&binding(2));
    let mut other =
        MqttClient::connect(testbed.mqtt().port(), &certificates, "VEH_002_CCU_002").await.unwrap();
    other.subscribe("ota/VEH_002/CCU_002/down").await.unwrap();
    let own = wake_up("VEH_002", "CCU_002", &certificates).to_string();
    assert_eq!(other.publish("ota/VEH_002/CCU_002/up/wakeup", own).await, Some(PubAckReason::Success));
    assert_eq!(other.message().await["type"], "RequestVCI");
    client.hears_nothing().await;
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_in_the_payload_is_refused_stored_and_changes_nothing() {
    let Intruder { testbed, certificates, mut client } = intruder().await;
    let own = wake_up("VEH_001", "CCU_001", &certificates);
    let answer = client.publish("ota/VEH_001/CCU_001/up/wakeup", own.to_string()).await;
    assert_eq!(answer, Some(PubAckReason::Success));
    let mut lie = own.clone();
    lie["vehicle_id"] = json!("VEH_002");
    lie["msg_id"] = json!("VMG_2");
    let answer = client.publish("ota/VEH_001/CCU_001/up/wakeup", lie.to_string()).await;
    assert_eq!(answer, Some(PubAckReason::NotAuthorized));
    assert!(!knows(&testbed, "VEH_002").await);
    until("the refusal is stored for operators", async || {
        let refused = testbed.api().get("vehicles/VEH_001").await["refused_messages"].clone();
        let refused = refused.as_array()?.first()?.clone();
        assert_eq!(refused["code"], "IDENTITY_MISMATCH", "{refused}");
        assert_eq!(refused["pointer"], "/vehicle_id", "{refused}");
        Some(())
    })
    .await;
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_id_than_the_certificates_is_refused() {
    let testbed = Testbed::start().await;
    let certificates = testbed.certificates(&binding(1));
    for client_id in ["VEH_002_CCU_002", "VEH_001", ""] {
        let connected = MqttClient::connect(testbed.mqtt().port(), &certificates, client_id).await;
        assert!(connected.is_none(), "{client_id:?}");
    }
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_without_a_certificate() {
    let testbed = Testbed::start().await;
    let certificates = testbed.certificates(&binding(1));
    for (listener, opening) in [
        // An MQTT 5 CONNECT with the client id VEH_001_CCU_001.
        (testbed.mqtt(), &b"\x10\x1c\0\x04MQTT\x05\x02\0\x3c\0\0\x0fVEH_001_CCU_001"[..]),
        (testbed.https(), &b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..]),
    ] {
        for (config, comes_in) in
            [(tls_without_certificate(&certificates), false), (tls(&certificates), true)]
        {
            let answered = exchange(listener, config, opening).await;
            assert_eq!(answered, comes_in, "{listener}");
        }
    }
    testbed.stop().await;
}

/// Whether the listener answers anything to these first bytes.
async fn exchange(listener: std::net::SocketAddr, config: rustls::ClientConfig, opening: &[u8]) -> bool {
    let stream = TcpStream::connect(listener).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    // A TLS 1.3 client is done before it learns that its certificate is refused.
    let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else {
        return false;
    };
    if stream.write_all(opening).await.is_err() {
        return false;
    }
    let answer = tokio::time::timeout(PATIENCE, async { stream.read(&mut [0; 1]).await });
    matches!(answer.await.expect("an answer or an end"), Ok(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vehicle_that_nobody_enrolled_gets_no_command() {
    let testbed = Testbed::start_with(|config| config.enroll = farrier_server::Enroll::Operator).await;
    let certificates = testbed.certificates(&binding(1));
    let client = MqttClient::connect(testbed.mqtt().port(), &certificates, "VEH_001_CCU_001").await;
    if let Some(mut client) = client {
        client.subscribe("ota/VEH_001/CCU_001/down").await;
        let own = wake_up("VEH_001", "CCU_001", &certificates).to_string();
        let answer = client.publish("ota/VEH_001/CCU_001/up/wakeup", own).await;
        assert_ne!(answer, Some(PubAckReason::Success));
    }
    assert!(!knows(&testbed, "VEH_001").await);

    testbed.api().post("vehicles", json!({ "vehicle_id": "VEH_001", "gateway_id": "CCU_001" })).await;
    let mut client =
        MqttClient::connect(testbed.mqtt().port(), &certificates, "VEH_001_CCU_001").await.unwrap();
    client.subscribe("ota/VEH_001/CCU_001/down").await.unwrap();
    let own = wake_up("VEH_001", "CCU_001", &certificates).to_string();
    let answer = client.publish("ota/VEH_001/CCU_001/up/wakeup", own).await;
    assert_eq!(answer, Some(PubAckReason::Success));
    assert_eq!(client.message().await["type"], "RequestVCI");
    testbed.stop().await;
}
