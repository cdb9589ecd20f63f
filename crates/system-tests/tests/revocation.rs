//! A certificate that is revoked while its vehicle is connected, and certificates that are changed under a running
//! server: with a folder of `farrier pki init`, and with files that the settings name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::Path;

use farrier_server::pki::{LEAF_VALIDITY, Pki};
use farrier_server::{ServerConfig, TlsPaths};
use farrier_system_tests::mqtt_client::{MqttClient, tls};
use farrier_system_tests::testbed::{Testbed, binding, now};
use farrier_system_tests::{PATIENCE, until};
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The settings of a server that has no folder of the authority, only files.
fn with_files(config: &mut ServerConfig) {
    let pki = Pki::open(&config.pki.take().unwrap()).unwrap();
    let server = config.data.with_file_name("server");
    pki.issue_server(&["localhost".to_owned()], &server, LEAF_VALIDITY, false, now()).unwrap();
    config.tls = Some(TlsPaths {
        certificate_chain: server.join("cert.pem"),
        private_key: server.join("key.pem"),
        client_roots: pki.root_certificate(),
        revoked: pki.crl(),
    });
    config.release_public_key = Some(pki.release_public_key());
}

async fn https(testbed: &Testbed, certificates: &Path) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(testbed.https()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(std::sync::Arc::new(tls(certificates))).connect(name, stream).await.unwrap()
}

async fn a_revocation_cuts(testbed: Testbed) {
    let (certificates, others) = (testbed.certificates(&binding(1)), testbed.certificates(&binding(2)));
    let port = testbed.mqtt().port();
    let mut revoked = MqttClient::connect(port, &certificates, "VEH_001_CCU_001").await.unwrap();
    let mut other = MqttClient::connect(port, &others, "VEH_002_CCU_002").await.unwrap();
    let (mut revoked_https, mut other_https) =
        (https(&testbed, &certificates).await, https(&testbed, &others).await);
    // Vehicles that are let in are registered only then: so that both are, each asks for something.
    assert!(revoked.subscribe("ota/VEH_001/CCU_001/down").await.is_some());
    assert!(other.subscribe("ota/VEH_002/CCU_002/down").await.is_some());

    testbed.pki.revoke(&binding(1), now()).unwrap();
    testbed.reload_server();
    assert!(revoked.ends().await, "the MQTT connection goes on");
    let read = timeout(PATIENCE, revoked_https.read_u8()).await;
    assert!(matches!(read, Ok(Err(_))), "the HTTPS connection goes on: {read:?}");
    assert!(MqttClient::connect(port, &certificates, "VEH_001_CCU_001").await.is_none());
    until("the revocation and the handshake refused for it among the security events", async || {
        let events = testbed.api().list("security-events").await;
        let is_told = |kind: &str| {
            events.iter().any(|event| event["kind"] == kind && event["subject"] == "VEH_001_CCU_001")
        };
        (is_told("REVOKED") && is_told("REVOKED_HANDSHAKE")).then_some(())
    })
    .await;

    assert!(other.subscribe("ota/VEH_002/CCU_002/down").await.is_some(), "the other vehicle was cut too");
    let read = timeout(std::time::Duration::from_millis(100), other_https.read_u8()).await;
    assert!(read.is_err(), "the other vehicle was cut too: {read:?}");
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_cuts_what_is_connected_where_the_authority_is_at_hand() {
    a_revocation_cuts(Testbed::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_cuts_what_is_connected_where_there_are_files_only() {
    a_revocation_cuts(Testbed::start_with(with_files).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_are_seen_without_being_asked_and_bad_ones_change_nothing() {
    let testbed = Testbed::start_with(with_files).await;
    let certificates = testbed.certificates(&binding(1));
    let server = testbed.folder().join("server");
    let seen = async || {
        let stream = https(&testbed, &certificates).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = seen().await;
    std::fs::write(server.join("cert.pem"), "no certificate").unwrap();
    testbed.reload_server();
    assert_eq!(seen().await, before, "what was good stays in force");
    testbed.pki.issue_server(&["localhost".to_owned()], &server, LEAF_VALIDITY, true, now()).unwrap();
    farrier_system_tests::until("the new certificate is seen", async || {
        (seen().await != before).then_some(())
    })
    .await;
    testbed.stop().await;
}
