use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn binding(vehicle: &str, gateway: &str) -> Binding {
    Binding { vehicle_id: vehicle.parse().unwrap(), gateway_id: gateway.parse().unwrap() }
}

fn authority_in(folder: &tempfile::TempDir) -> Pki {
    Pki::init(&folder.path().join("pki"), false, NOW).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Runs a check on the first certificate of a file.
fn with_certificate<T>(
    path: &Path,
    check: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> T {
    let text = fs::read_to_string(path).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
    check(&pem.parse_x509().unwrap())
}

fn revoked_serials(pki: &Pki) -> Vec<String> {
    let text = fs::read_to_string(pki.crl()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
    let (_, crl) = x509_parser::parse_x509_crl(&pem.contents).unwrap();
    crl.iter_revoked_certificates().map(|revoked| revoked.raw_serial_as_string().replace(':', "")).collect()
}

#[test]
fn the_folder_holds_what_it_should_and_keys_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let dir = folder.path().join("pki");
    for (name, expected) in [
        (ROOT_KEY, 0o600),
        (INTERMEDIATE_KEY, 0o600),
        (RELEASE_KEY, 0o600),
        (ROOT_CERTIFICATE, 0o644),
        (INTERMEDIATE_CERTIFICATE, 0o644),
        (CRL, 0o644),
        (RELEASE_PUBLIC_KEY, 0o644),
    ] {
        assert_eq!(mode(&dir.join(name)), expected, "{name}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 7, "no temporary file is left");
    with_certificate(&pki.root_certificate(), |root| {
        assert!(root.is_ca());
        assert_eq!(root.validity().not_after.timestamp() - NOW.0 / 1000, 20 * 365 * 24 * 3600);
    });
    assert!(fs::read_to_string(pki.release_public_key()).unwrap().contains("BEGIN PUBLIC KEY"));
    assert!(revoked_serials(&pki).is_empty());
}

#[test]
fn a_vehicle_gets_leaf_and_intermediate_key_and_root() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let out = folder.path().join("deep/out");
    pki.issue_vehicle(&binding("VEH_001", "CCU_001"), &out, LEAF_VALIDITY, false, NOW).unwrap();
    assert_eq!(mode(&out.join("key.pem")), 0o600);
    let chain = fs::read_to_string(out.join("cert.pem")).unwrap();
    let intermediate = fs::read_to_string(folder.path().join("pki").join(INTERMEDIATE_CERTIFICATE)).unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(chain.ends_with(&intermediate));
    assert_eq!(
        fs::read_to_string(out.join("ca.pem")).unwrap(),
        fs::read_to_string(pki.root_certificate()).unwrap()
    );
    with_certificate(&out.join("cert.pem"), |leaf| {
        let names: Vec<_> = leaf.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names, ["VEH_001_CCU_001"]);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !leaf.is_ca());
        assert_eq!(leaf.validity().not_after.timestamp() - NOW.0 / 1000, 2 * 365 * 24 * 3600);
    });
}

#[test]
fn many_vehicles_get_certificates_in_memory_that_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let bindings = vec![binding("VEH_001", "CCU_001"), binding("VEH_002", "CCU_001")];
    let issued = pki.issue_vehicles_in_memory(bindings.clone(), LEAF_VALIDITY, NOW).unwrap();
    let recorded = super::issued::read_all(&folder.path().join("pki")).unwrap();
    for (certificate, binding) in issued.iter().zip(&bindings) {
        assert_eq!(certificate.binding, *binding);
        let [leaf, intermediate] = certificate.chain.as_slice() else { panic!("{certificate:?}") };
        let record = recorded.iter().find(|record| record.holder == Holder::of_vehicle(binding)).unwrap();
        assert_eq!(record.thumbprint, Thumbprint::of_certificate(leaf));
        let parsed = |der| x509_parser::parse_x509_certificate(der).unwrap().1;
        assert_eq!(parsed(leaf).issuer(), parsed(intermediate).subject());
    }
    assert_eq!((issued.len(), recorded.len()), (2, 2));
    let taken = pki.issue_vehicles_in_memory(vec![binding("VEH", "001_CCU_001")], LEAF_VALIDITY, NOW);
    assert!(matches!(taken, Err(PkiError::ClientIdTaken { .. })), "{taken:?}");
}

#[test]
fn a_leaf_does_not_outlive_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let out = folder.path().join("out");
    pki.issue_vehicle(&binding("V", "G"), &out, ROOT_VALIDITY, false, NOW).unwrap();
    let intermediate = folder.path().join("pki").join(INTERMEDIATE_CERTIFICATE);
    let end = |path: &Path| with_certificate(path, |found| found.validity().not_after.timestamp());
    assert_eq!(end(&out.join("cert.pem")), end(&intermediate));
}

#[test]
fn a_server_is_called_by_names_and_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let out = folder.path().join("out");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    pki.issue_server(&names, &out, LEAF_VALIDITY, false, NOW).unwrap();
    with_certificate(&out.join("cert.pem"), |leaf| {
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.len(), 3);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
    });
    for name in ["", "a b", "ä", "*"] {
        let error =
            pki.issue_server(&[name.to_owned()], &folder.path().join("no"), LEAF_VALIDITY, false, NOW);
        assert!(matches!(error, Err(PkiError::InvalidServerName { .. })), "{name:?}");
    }
    assert!(pki.issue_server(&[], &folder.path().join("no"), LEAF_VALIDITY, false, NOW).is_err());
    assert!(!folder.path().join("no").exists());
}

#[test]
fn nothing_is_overwritten_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let dir = folder.path().join("pki");
    let root = fs::read(pki.root_certificate()).unwrap();
    assert!(matches!(Pki::init(&dir, false, NOW), Err(PkiError::AlreadyExists { .. })));
    assert_eq!(fs::read(pki.root_certificate()).unwrap(), root);

    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("ca.pem"), "mine").unwrap();
    let issued = pki.issue_vehicle(&binding("V", "G"), &out, LEAF_VALIDITY, false, NOW);
    assert!(matches!(issued, Err(PkiError::AlreadyExists { path }) if path == out.join("ca.pem")));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "nothing half-written");
    assert!(matches!(pki.revoke(&binding("V", "G"), NOW), Err(PkiError::NoneIssued { .. })));

    pki.issue_vehicle(&binding("V", "G"), &out, LEAF_VALIDITY, true, NOW).unwrap();
    assert_ne!(fs::read(out.join("ca.pem")).unwrap(), b"mine");
    Pki::init(&dir, true, NOW).unwrap();
    assert_ne!(fs::read(pki.root_certificate()).unwrap(), root);
    assert!(!dir.join("issued").exists(), "another authority's certificates are not its own");
}

#[test]
fn one_client_id_is_one_vehicle() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let (one, other) = (binding("VEH_A", "B_C"), binding("VEH_A_B", "C"));
    let out = |name: &str| folder.path().join(name);
    pki.issue_vehicle(&one, &out("one"), LEAF_VALIDITY, false, NOW).unwrap();
    let error = pki.issue_vehicle(&other, &out("other"), LEAF_VALIDITY, false, NOW).unwrap_err();
    assert!(
        error.to_string().contains("VEH_A_B_C already belongs to vehicle VEH_A with gateway B_C"),
        "{error}"
    );
    assert!(!out("other").exists());
    pki.issue_vehicle(&one, &out("again"), LEAF_VALIDITY, false, NOW).unwrap();
}

#[test]
fn a_client_id_that_no_common_name_can_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let out = |name: &str| folder.path().join(name);
    let longest = binding(&"V".repeat(60), "CCU");
    pki.issue_vehicle(&longest, &out("longest"), LEAF_VALIDITY, false, NOW).unwrap();
    let error = pki.issue_vehicle(&binding(&"V".repeat(61), "CCU"), &out("x"), LEAF_VALIDITY, false, NOW);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has 65 characters: expected at most 64"), "{error}");
    assert!(!out("x").exists());
    // A server's name may be longer: clients go by the alternative names.
    let name = format!("{}.example.com", "n".repeat(60));
    pki.issue_server(&[name], &out("server"), LEAF_VALIDITY, false, NOW).unwrap();
}

#[test]
fn revoking_finds_all_certificates_of_a_vehicle_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let pki = authority_in(&folder);
    let mut serials = Vec::new();
    for (name, vehicle) in [("a", "VEH_1"), ("b", "VEH_1"), ("c", "VEH_2")] {
        let out = folder.path().join(name);
        pki.issue_vehicle(&binding(vehicle, "G"), &out, LEAF_VALIDITY, false, NOW).unwrap();
        serials.push(with_certificate(&out.join("cert.pem"), |leaf| {
            leaf.raw_serial_as_string().replace(':', "")
        }));
    }
    let revoked = pki.revoke(&binding("VEH_1", "G"), NOW).unwrap();
    assert_eq!(revoked.len(), 2);
    let mut listed = revoked_serials(&pki);
    listed.sort();
    serials.truncate(2);
    serials.sort();
    assert_eq!(listed, serials);
    assert_eq!(pki.revoke(&binding("VEH_1", "G"), NOW).unwrap().len(), 2, "twice is no error");
    pki.renew_crl(NOW).unwrap();
    assert_eq!(revoked_serials(&pki).len(), 2);
    let error = pki.revoke(&binding("VEH_3", "G"), NOW).unwrap_err();
    assert!(error.to_string().contains("VEH_3/G"), "{error}");
}

#[test]
fn a_folder_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Pki::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("root.cert.pem is missing") && error.contains("farrier pki init"), "{error}");
    let pki = authority_in(&folder);
    fs::write(folder.path().join("pki").join(INTERMEDIATE_KEY), "no key").unwrap();
    let error = pki.renew_crl(NOW).unwrap_err().to_string();
    assert!(error.contains("intermediate.key.pem is damaged"), "{error}");
}
