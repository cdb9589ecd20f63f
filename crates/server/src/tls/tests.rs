use std::time::Duration;

use rustls::crypto::aws_lc_rs::kx_group;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::listener::{ListenerLimits, VehicleListener, accept_vehicles};
use super::testbed::{Testbed, binding, connect, now};
use super::*;
use crate::pki::{LEAF_VALIDITY, Pki};

/// A listener that answers each vehicle with its common name, and ends with the test.
async fn names_server(tls: Arc<VehicleTls>) -> u16 {
    let limits = ListenerLimits { connections: 10, handshakes: 10, handshake: Duration::from_secs(10) };
    names_server_with(tls, limits).await
}

async fn names_server_with(tls: Arc<VehicleTls>, limits: ListenerLimits) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let serve = |mut stream: tokio_rustls::server::TlsStream<_>, peer: PeerIdentity| async move {
            stream.write_all(peer.common_name.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        accept_vehicles(listener, tls, VehicleListener::Mqtt, limits, &CancellationToken::new(), serve).await;
    });
    port
}

/// What the server calls this client. A TLS 1.3 client learns by reading whether it was let in.
async fn named(config: rustls::ClientConfig, port: u16) -> std::io::Result<String> {
    let mut name = String::new();
    connect(config, port).await?.read_to_string(&mut name).await?;
    Ok(name)
}

#[tokio::test]
async fn a_vehicle_is_known_by_its_certificate() {
    let bed = Testbed::new();
    let vehicle = bed.vehicle(&binding("VEH_001", "CCU_001"));
    let port = names_server(bed.tls()).await;
    assert_eq!(named(bed.usual_client(&vehicle), port).await.unwrap(), "VEH_001_CCU_001");
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate_of_our_authority() {
    let (bed, other) = (Testbed::new(), Testbed::new());
    let port = names_server(bed.tls()).await;
    assert!(named(bed.client(None, &[kx_group::X25519MLKEM768]), port).await.is_err());
    let stranger = other.vehicle(&binding("VEH_001", "CCU_001"));
    assert!(named(bed.usual_client(&stranger), port).await.is_err());
    // A server's certificate is for servers.
    assert!(named(bed.usual_client(&bed.path("server")), port).await.is_err());
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_once_the_list_is_loaded() {
    let bed = Testbed::new();
    let (one, other) = (binding("VEH_001", "CCU_001"), binding("VEH_002", "CCU_001"));
    let (revoked, good) = (bed.vehicle(&one), bed.vehicle(&other));
    let tls = bed.tls();
    let port = names_server(Arc::clone(&tls)).await;
    assert!(named(bed.usual_client(&revoked), port).await.is_ok());
    bed.pki.revoke(&one, now()).unwrap();
    tls.reload(&bed.files(), now()).unwrap();
    assert!(named(bed.usual_client(&revoked), port).await.is_err());
    assert!(named(bed.usual_client(&good), port).await.is_ok());
    // Whose it was is known, and only of those that are revoked; not of what another authority calls so.
    let other_authority = Testbed::new();
    let stranger = other_authority.vehicle(&one);
    assert!(named(bed.usual_client(&stranger), port).await.is_err());
    let refused = tls.take_refused(std::time::Instant::now());
    let [refused] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((refused.peer.common_name.as_str(), refused.times), ("VEH_001_CCU_001", 1));
    assert_eq!(refused.peer.certificate.as_ref().unwrap().serial.len(), 32);
}

/// A listener that keeps its connections open.
async fn patient_server(tls: Arc<VehicleTls>, which: VehicleListener) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let limits = ListenerLimits { connections: 10, handshakes: 10, handshake: Duration::from_secs(10) };
        let serve = |mut stream: tokio_rustls::server::TlsStream<_>, _| async move {
            stream.write_all(b"!").await.unwrap();
            std::future::pending().await
        };
        accept_vehicles(listener, tls, which, limits, &CancellationToken::new(), serve).await;
    });
    port
}

#[tokio::test]
async fn a_revocation_cuts_the_live_connections_of_the_certificate_and_no_others() {
    let bed = Testbed::new();
    let (one, other) = (binding("VEH_001", "CCU_001"), binding("VEH_002", "CCU_001"));
    let (revoked, good) = (bed.vehicle(&one), bed.vehicle(&other));
    let tls = bed.tls();
    let port = patient_server(Arc::clone(&tls), VehicleListener::Https).await;
    let mut streams = Vec::new();
    for folder in [&revoked, &good] {
        let mut stream = connect(bed.usual_client(folder), port).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'!');
        streams.push(stream);
    }
    let thumbprints = bed.pki.revoke(&one, now()).unwrap();
    // By what the list says: the folder of the authority is not asked.
    let cut = tls.reload(&bed.files(), now()).unwrap();
    assert_eq!(
        cut.iter().map(|peer| &peer.thumbprint).collect::<Vec<_>>(),
        thumbprints.iter().collect::<Vec<_>>()
    );
    assert_eq!(cut[0].common_name, "VEH_001_CCU_001");
    let [cut, kept] = streams.as_mut_slice() else { panic!("two connections") };
    assert!(cut.read_u8().await.is_err());
    let heard = tokio::time::timeout(Duration::from_millis(200), kept.read_u8()).await;
    assert!(heard.is_err(), "the other connection goes on");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let bed = Testbed::new();
    let port = names_server(bed.tls()).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&client_hello_1_2()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // An alert: fatal, protocol_version (RFC 8446 §6.2).
    assert_eq!(answer.first(), Some(&21));
    assert!(answer.ends_with(&[2, 70]), "{answer:?}");
}

/// The ClientHello of a client that knows nothing newer than TLS 1.2.
fn client_hello_1_2() -> Vec<u8> {
    let extensions = [
        // supported_groups: x25519, secp256r1.
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..],
        // ec_point_formats: uncompressed.
        &[0, 11, 0, 2, 1, 0],
        // signature_algorithms: ecdsa_secp256r1_sha256.
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session; ECDHE-ECDSA-AES128-GCM-SHA256; no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![22, 3, 1];
    hello.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend(body);
    hello
}

#[tokio::test]
async fn an_expired_list_locks_vehicles_out_unless_the_operator_allows_it() {
    let month_ago = UnixMillis(now().0 - 31 * 24 * 3600 * 1000);
    let bed = Testbed::made_at(month_ago);
    let vehicle = bed.vehicle(&binding("VEH_001", "CCU_001"));
    let gone = bed.vehicle(&binding("VEH_002", "CCU_001"));
    bed.pki.revoke(&binding("VEH_002", "CCU_001"), month_ago).unwrap();
    let files = bed.files();

    // As if it had expired while the server runs.
    let tls = Arc::new(VehicleTls::load(&files, month_ago.plus_seconds(3600)).unwrap());
    let alarms = tls.alarms(now(), &ExpiryAlarms::default());
    assert!(alarms.iter().any(|alarm| alarm.of == Perishable::RevocationList && alarm.is_over), "{alarms:?}");
    let port = names_server(Arc::clone(&tls)).await;
    assert!(named(bed.usual_client(&vehicle), port).await.is_err());

    // A server that starts then says so.
    let error = VehicleTls::load(&files, now()).unwrap_err().to_string();
    assert!(error.contains("crl.pem is valid from"), "{error}");

    let lenient = TlsFiles { allow_expired_revocation_list: true, ..files };
    let port = names_server(Arc::new(VehicleTls::load(&lenient, now()).unwrap())).await;
    assert_eq!(named(bed.usual_client(&vehicle), port).await.unwrap(), "VEH_001_CCU_001");
    assert!(named(bed.usual_client(&gone), port).await.is_err(), "what the list names stays revoked");
}

#[tokio::test]
async fn a_new_certificate_of_the_server_is_what_the_next_vehicle_sees() {
    let bed = Testbed::new();
    let vehicle = bed.vehicle(&binding("VEH_001", "CCU_001"));
    let tls = bed.tls();
    let port = names_server(Arc::clone(&tls)).await;
    let seen = async || {
        let stream = connect(bed.usual_client(&vehicle), port).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = seen().await;
    let names = ["localhost".to_owned()];
    bed.pki.issue_server(&names, &bed.path("server"), LEAF_VALIDITY, true, now()).unwrap();
    tls.reload(&bed.files(), now()).unwrap();
    assert_ne!(seen().await, before);
}

#[tokio::test]
async fn only_post_quantum_key_exchange_unless_the_operator_allows_more() {
    let bed = Testbed::new();
    let vehicle = bed.vehicle(&binding("VEH_001", "CCU_001"));
    let strict = names_server(bed.tls()).await;
    let files = TlsFiles { allow_classical_key_exchange: true, ..bed.files() };
    let lenient = names_server(Arc::new(VehicleTls::load(&files, now()).unwrap())).await;
    for (group, strictly) in [
        (kx_group::X25519MLKEM768, true),
        (kx_group::MLKEM768, true),
        (kx_group::X25519, false),
        (kx_group::SECP256R1, false),
    ] {
        let client = || bed.client(Some(&vehicle), &[group]);
        assert_eq!(named(client(), strict).await.is_ok(), strictly, "{group:?}");
        assert!(named(client(), lenient).await.is_ok(), "{group:?}");
    }
    // Where both sides can, the hybrid group is taken, and the suite of the contract.
    let both = bed.client(Some(&vehicle), &[kx_group::X25519MLKEM768, kx_group::X25519]);
    let stream = connect(both, lenient).await.unwrap();
    let tls = stream.get_ref().1;
    assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(tls.negotiated_cipher_suite().unwrap().suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn what_is_out_of_its_time_is_found_when_it_is_loaded() {
    let bed = Testbed::new();
    let year = 365 * 24 * 3600;
    let load = |files: &TlsFiles, now| VehicleTls::load(files, now).map(|_| ()).unwrap_err().to_string();
    let error = load(&bed.files(), now().plus_seconds(3 * year));
    assert!(error.contains("server/cert.pem is valid from"), "{error}");
    let error = load(&bed.files(), now().plus_seconds(31 * 24 * 3600));
    assert!(error.contains("crl.pem is valid from"), "{error}");
    let error = load(&bed.files(), UnixMillis(now().0 - 2 * 24 * 3600 * 1000));
    assert!(error.contains("check the clock"), "{error}");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let bed = Testbed::new();
    let load = |files: &TlsFiles| VehicleTls::load(files, now()).map(|_| ()).unwrap_err();
    let vehicle = bed.vehicle(&binding("VEH_001", "CCU_001"));
    let error = load(&TlsFiles { private_key: vehicle.join("key.pem"), ..bed.files() });
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
    let error = load(&TlsFiles { private_key: bed.path("nothing"), ..bed.files() });
    assert!(matches!(error, TlsError::Unreadable { .. }) && error.to_string().contains("nothing"), "{error}");
    let error = load(&TlsFiles { revoked: bed.path("server/cert.pem"), ..bed.files() });
    assert!(error.to_string().contains("lists of revoked certificates"), "{error}");
    let error = load(&TlsFiles { client_roots: bed.path("server/key.pem"), ..bed.files() });
    assert!(error.to_string().contains("one or more certificates"), "{error}");
    std::fs::write(bed.path("damaged"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let error = load(&TlsFiles { certificate_chain: bed.path("damaged"), ..bed.files() });
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_failed_reload_leaves_everything_as_it_is() {
    let bed = Testbed::new();
    let tls = bed.tls();
    let before = tls.mqtt();
    tls.reload(&TlsFiles { revoked: bed.path("nothing"), ..bed.files() }, now()).unwrap_err();
    assert!(Arc::ptr_eq(&before, &tls.mqtt()));
}

#[test]
fn an_identity_is_exactly_one_common_name() {
    let signed = |names: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let [name] = names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    };
    let der = signed(&["VEH_001_CCU_001"]);
    let identity = peer_identity(&der).unwrap();
    assert_eq!(identity.common_name, "VEH_001_CCU_001");
    assert_eq!(identity.thumbprint, Thumbprint::of_certificate(&der));
    let mut params = rcgen::CertificateParams::default();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0, 0xab, 1]));
    params.not_after = rcgen::date_time_ymd(2030, 1, 2);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "VEH_001_CCU_001");
    let signed_by_itself = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let certificate = peer_identity(signed_by_itself.der()).unwrap().certificate.unwrap();
    assert_eq!((certificate.serial.as_str(), certificate.ends_at), ("ab01", UnixMillis(1_893_542_400_000)));
    assert_eq!(peer_identity(&signed(&[])), Err(NoIdentity::CommonNames { found: 0 }));
    assert_eq!(peer_identity(b"no certificate"), Err(NoIdentity::Unparsable));
}

#[test]
fn the_list_is_renewed_when_half_of_its_time_is_over() {
    let bed = Testbed::new();
    let day = 24 * 3600;
    assert!(!bed.pki.renew_crl_if_half_over(now().plus_seconds(14 * day)).unwrap());
    let later = now().plus_seconds(16 * day);
    assert!(bed.pki.renew_crl_if_half_over(later).unwrap());
    assert!(!bed.pki.renew_crl_if_half_over(later).unwrap());
    let reopened = Pki::open(&bed.path("pki")).unwrap();
    VehicleTls::load(&TlsFiles { revoked: reopened.crl(), ..bed.files() }, later.plus_seconds(29 * day))
        .unwrap();
}

#[tokio::test]
async fn handshakes_at_a_time_are_bounded_and_silent_connections_are_none() {
    let bed = Testbed::new();
    let vehicle = bed.vehicle(&binding("VEH_001", "CCU_001"));
    let limits = ListenerLimits { connections: 100, handshakes: 1, handshake: Duration::from_secs(2) };
    let port = names_server_with(bed.tls(), limits).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    assert_eq!(named(bed.usual_client(&vehicle), port).await.unwrap(), "VEH_001_CCU_001");
    // One that begins its handshake and goes no further holds the only place, until its time is over.
    let mut stuck = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stuck.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let start = std::time::Instant::now();
    while named(bed.usual_client(&vehicle), port).await.is_err() {}
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
}
