use std::time::Duration;

use rustls::crypto::aws_lc_rs::kx_group;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::listener::{ListenerLimits, accept_vehicles};
use super::testbed::{Testbed, binding, connect, now};
use super::*;
use crate::pki::Pki;

/// A listener that answers each vehicle with its common name, and ends with the test.
async fn names_server(tls: Arc<VehicleTls>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let limits = ListenerLimits { connections: 10, handshake: Duration::from_secs(10) };
        let serve = |mut stream: tokio_rustls::server::TlsStream<_>, peer: PeerIdentity| async move {
            stream.write_all(peer.common_name.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        accept_vehicles(listener, move || tls.mqtt(), limits, &CancellationToken::new(), serve).await;
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
