//! DoIP over TLS: the gateway's links and a secured controller, and everybody who is not let in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use farrier_diagnostics::WriteJob;
use farrier_diagnostics::doip::{self, LogicalAddress, Message, RoutingActivationResponseCode};
use farrier_gateway::ecu_link::{ConnectError, EcuError, EcuLinks, Image};
use farrier_gateway::topology::Topology;
use farrier_protocol::EcuId;
use farrier_simulator::doip_entity::{DoipEntity, EntityConfig, EntityTls};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Writes a root and two certificates below it: `ca.pem`, `entity.pem`, `tester.pem`, each with its key.
fn write_certificates(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.distinguished_name.push(DnType::CommonName, "Controllers' root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), root.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(root, key);
    for name in ["entity", "tester"] {
        let names = vec!["127.0.0.1".to_owned(), format!("{name}.vehicle")];
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, name);
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// An ECU that is its own DoIP entity, and one behind it; testers need a certificate.
async fn secured(folder: &Path) -> DoipEntity {
    write_certificates(folder);
    let ecu = |ecu_id: &str, logical_address| EcuConfig {
        ecu_id: ecu_id.into(),
        logical_address,
        supplier_code: "1234".into(),
        hw_part_no: "HW-1".into(),
        sw_part_no: "SW-1".into(),
        sw_version: "1.0".into(),
        bootloader_ver: "BL-1".into(),
        calibration_id: "CAL-1".into(),
        timing: EcuTiming { erase_ms: 10, ..EcuTiming::default() },
        faults: Faults::default(),
    };
    let config = EntityConfig {
        name: "front".into(),
        logical_address: 0x1000,
        listen: "127.0.0.1:0".parse().unwrap(),
        vin: "WFARRIER000000001".into(),
        entity_id: [2, 0, 0, 0, 0xAB, 9],
        announce_to: None,
        max_connections: 4,
        initial_inactivity_ms: 2_000,
        general_inactivity_ms: 300_000,
    };
    let tls = EntityTls {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: folder.join("entity.pem"),
        private_key: folder.join("entity.key"),
        tester_ca: Some(folder.join("ca.pem")),
        key_log: None,
    };
    let ecus = vec![ecu("controller", 0x1000), ecu("behind", 0x1010)];
    DoipEntity::start_secured(config, &tls, ecus, folder).await.unwrap()
}

/// The gateway's links, with the keys of `tls = { … }` in this folder.
fn links(entity: &DoipEntity, folder: &Path, tls: Option<&str>) -> EcuLinks {
    let address = match tls {
        Some(_) => entity.tls_address().unwrap(),
        None => entity.tcp_address(),
    };
    let tls = tls.map(|keys| format!("tls = {{ {keys} }}")).unwrap_or_default();
    let text = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [[controller]]
        name = "front"
        address = "{address}"
        discovery = "{}"
        {tls}
        logical_address = 0x1000
        [[ecu]]
        ecu_id = "controller"
        controller = "front"
        logical_address = 0x1000
        functional_group = {{ zone = "front" }}
        [[ecu]]
        ecu_id = "behind"
        controller = "front"
        logical_address = 0x1010
        functional_group = {{ zone = "front" }}
        "#,
        entity.udp_address(),
    );
    let path = folder.join("topology.toml");
    fs::write(&path, text).unwrap();
    EcuLinks::new(Topology::load(&path).unwrap())
}

const WHOLE: &str = r#"ca = "ca.pem", certificate = "tester.pem", private_key = "tester.key""#;

fn behind() -> EcuId {
    "behind".parse().unwrap()
}

#[tokio::test]
async fn an_image_is_written_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    let links = links(&entity, folder.path(), Some(WHOLE));
    let content: Vec<u8> = (0..300_000).map(|position| (position * 31 % 251) as u8).collect();
    let path = folder.path().join("image");
    fs::write(&path, &content).unwrap();
    let job = WriteJob {
        size: content.len() as u64,
        sha256: digest(&SHA256, &content).as_ref().try_into().unwrap(),
        version: "2.0".into(),
        hw_part_no: "HW-1".into(),
    };
    for ecu in ["controller", "behind"] {
        let image = Image { path: &path, job: job.clone() };
        links.write_inactive_bank(&ecu.parse().unwrap(), image, |_| {}).await.unwrap();
        assert_eq!(fs::read(folder.path().join(ecu).join("bank1.bin")).unwrap(), content);
    }
}

#[tokio::test]
async fn a_controller_is_known_by_the_name_in_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    let named = format!(r#"{WHOLE}, server_name = "entity.vehicle""#);
    assert!(links(&entity, folder.path(), Some(&named)).running(&behind()).await.is_ok());
    let other = format!(r#"{WHOLE}, server_name = "rear.vehicle""#);
    assert_refused_by_tls(&links(&entity, folder.path(), Some(&other))).await;
}

#[tokio::test]
async fn whoever_has_no_certificate_of_the_root_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    // A TLS 1.3 client learns after its handshake that it was refused: the connection closes then.
    let anonymous = links(&entity, folder.path(), Some(r#"ca = "ca.pem""#)).running(&behind()).await;
    assert!(matches!(anonymous, Err(EcuError::Connect { .. })), "{anonymous:?}");

    write_certificates(&folder.path().join("other"));
    let other = r#"ca = "other/ca.pem", certificate = "tester.pem", private_key = "tester.key""#;
    assert_refused_by_tls(&links(&entity, folder.path(), Some(other))).await;
}

async fn assert_refused_by_tls(links: &EcuLinks) {
    let error = links.running(&behind()).await.unwrap_err();
    assert!(matches!(error, EcuError::Connect { source: ConnectError::Tls { .. }, .. }), "{error:?}");
}

#[tokio::test]
async fn a_secured_controller_activates_no_routing_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    let error = links(&entity, folder.path(), None).running(&behind()).await.unwrap_err();
    let code = RoutingActivationResponseCode::DeniedEncryptedConnectionViaTLSRequired;
    assert!(
        matches!(error, EcuError::Connect { source: ConnectError::Denied { code: found, .. }, .. } if found == code),
        "{error:?}"
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    for (keys, named) in [
        (r#"ca = "nowhere.pem""#, "nowhere.pem"),
        (r#"ca = "tester.key""#, "tester.key"),
        (r#"ca = "ca.pem", certificate = "tester.pem""#, "both"),
        (r#"ca = "ca.pem", server_name = "a b""#, "a b"),
        (r#"ca = "ca.pem", ciphers = "all""#, "ciphers"),
    ] {
        links(&entity, folder.path(), None);
        let path = folder.path().join("topology.toml");
        let text = fs::read_to_string(&path).unwrap();
        let with = text.replacen("discovery", &format!("tls = {{ {keys} }}\ndiscovery"), 1);
        fs::write(&path, with).unwrap();
        let error = Topology::load(&path).unwrap_err();
        let found = farrier_gateway::with_causes(&error);
        assert!(found.contains(named), "{found}");
    }
}

#[tokio::test]
async fn an_ecu_that_is_its_own_entity_has_the_mac_address_that_it_announces() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    let links = links(&entity, folder.path(), Some(WHOLE));
    let found = links.mac_address(&"controller".parse().unwrap()).await;
    assert_eq!(found, Some("02:00:00:00:AB:09".parse().unwrap()));
    // The address of its entity is not its own.
    assert_eq!(links.mac_address(&behind()).await, None);
}

fn client(folder: &Path, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(folder.join("tester.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(folder.join("tester.key")).unwrap(),
        )
        .unwrap();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_one_that_just_goes_leaves_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    // More often than there are connections: each ends without close_notify.
    for round in 0..6 {
        let (version, expected) = if round % 2 == 0 {
            (&rustls::version::TLS12, ProtocolVersion::TLSv1_2)
        } else {
            (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)
        };
        let stream = TcpStream::connect(entity.tls_address().unwrap()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = client(folder.path(), version).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        let mut frame = bytes::BytesMut::new();
        let kind = doip::ActivationTypeCode::Default;
        let tester = LogicalAddress(0x0E90 + round);
        let request = Message::routing_activation_request(doip::VERSION, tester, kind, None);
        doip::append_frame(&mut frame, &request).unwrap();
        stream.write_all(&frame).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[12], 0x10, "routing is activated");
    }
}

#[tokio::test]
async fn a_controller_that_closes_without_close_notify_is_connected_to_again() {
    let folder = tempfile::tempdir().unwrap();
    let entity = secured(folder.path()).await;
    let links = links(&entity, folder.path(), Some(WHOLE));
    links.running(&behind()).await.unwrap();
    let address = entity.tls_address().unwrap();
    entity.stop().await;
    let gone = links.running(&behind()).await.unwrap_err();
    assert!(
        matches!(&gone, EcuError::Connect { source: ConnectError::Tcp { address: named, .. }, .. } if *named == address),
        "{gone:?}"
    );
}
