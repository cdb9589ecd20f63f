use proptest::prelude::*;
use tokio::sync::mpsc;

use super::archive::{Archive, BLOCK, MANIFEST, Manifest, SCHEMA, SIGNATURE};
use super::*;
use crate::audit::{AuditEntry, AuditHead, BrokenChain};

fn key() -> EvidenceKey {
    EvidenceKey::load_or_make(tempfile::tempdir().unwrap().path()).unwrap()
}

fn entries(number: u64) -> Vec<AuditEntry> {
    let mut previous_sha256 = Sha256::of(b"before");
    let entry = |seq| {
        let mut entry = AuditEntry {
            seq,
            at_ms: UnixMillis(1),
            actor: "token:a".to_owned(),
            action: "campaign.started".to_owned(),
            object: "campaign/C".to_owned(),
            detail: None,
            client: None,
            request_id: None,
            before_sha256: None,
            after_sha256: None,
            previous_sha256,
            sha256: Sha256::ZERO,
        };
        entry.sha256 = entry.content_sha256();
        previous_sha256 = entry.sha256;
        entry
    };
    (5..5 + number).map(entry).collect()
}

/// An archive with two small files and three entries of an audit log.
fn archive(key: &EvidenceKey) -> Vec<u8> {
    archive_of(key, &entries(3))
}

fn archive_of(key: &EvidenceKey, log: &[AuditEntry]) -> Vec<u8> {
    let (out, mut octets) = mpsc::channel(100);
    let lines: String = log.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect();
    let last = log.last().unwrap();
    let manifest = Manifest {
        schema: SCHEMA.to_owned(),
        subject: "campaign C".to_owned(),
        server: "https://localhost:1".to_owned(),
        made_at_ms: UnixMillis(7),
        key_sha256: key.public().sha256(),
        audit_from: log.first().map(|entry| entry.seq),
        audit_head: AuditHead { seq: last.seq, sha256: last.sha256 },
        files: Vec::new(),
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let mut archive = Archive::new(out);
        archive.file("vehicles/000001.jsonl".to_owned(), b"{}\n{}\n".to_vec()).await.unwrap();
        archive.file("audit/000001.jsonl".to_owned(), lines.into_bytes()).await.unwrap();
        archive.file("index.html".to_owned(), b"<p>".to_vec()).await.unwrap();
        archive.end(manifest, key).await.unwrap();
        let mut all = Vec::new();
        while let Some(part) = octets.recv().await {
            all.extend_from_slice(&part.unwrap());
        }
        all
    })
}

fn verified(archive: &[u8], key: &EvidenceKey) -> Result<VerifiedArchive, BrokenArchive> {
    verify(archive, key.public(), &[])
}

/// The files of an archive, each with its header and padding; the last part is the end.
pub(crate) fn parts(archive: &[u8]) -> Vec<Vec<u8>> {
    let (mut parts, mut rest) = (Vec::new(), archive);
    while rest[0] != 0 {
        let size = std::str::from_utf8(&rest[124..135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap().next_multiple_of(BLOCK);
        let (part, others) = rest.split_at(BLOCK + size);
        parts.push(part.to_vec());
        rest = others;
    }
    parts.push(rest.to_vec());
    parts
}

#[test]
fn an_untouched_archive_holds_and_says_what_it_is() {
    let key = key();
    let verified = verified(&archive(&key), &key).unwrap();
    assert_eq!(
        (verified.subject.as_str(), verified.files, verified.updates, verified.audit_from),
        ("campaign C", 3, 2, Some(5))
    );
}

#[test]
fn every_octet_that_is_changed_is_found() {
    let key = key();
    let whole = archive(&key);
    for position in 0..whole.len() {
        for bit in [0x01, 0x20, 0xff] {
            let mut changed = whole.clone();
            changed[position] ^= bit;
            assert!(verified(&changed, &key).is_err(), "octet {position}, bits {bit:#x}");
        }
    }
}

#[test]
fn an_archive_that_ends_early_or_late_is_found() {
    let key = key();
    let whole = archive(&key);
    for length in 0..whole.len() {
        let error = verified(&whole[..length], &key).unwrap_err();
        assert!(matches!(error, BrokenArchive::CutOff { .. }), "{length}: {error}");
    }
    let longer = [whole.as_slice(), &[0]].concat();
    assert!(matches!(verified(&longer, &key), Err(BrokenArchive::Malformed { .. })));
}

#[test]
fn a_file_that_was_removed_added_or_put_elsewhere_is_named() {
    let key = key();
    let untouched = parts(&archive(&key));
    let told = |parts: &[Vec<u8>]| verified(&parts.concat(), &key).unwrap_err().to_string();

    let mut removed = untouched.clone();
    removed.remove(0);
    assert!(told(&removed).contains("vehicles/000001.jsonl is missing"), "{}", told(&removed));
    let mut removed = untouched.clone();
    removed.remove(2);
    assert!(told(&removed).contains("index.html is missing"), "{}", told(&removed));
    let mut twice = untouched.clone();
    twice.insert(1, untouched[0].clone());
    assert!(
        told(&twice).contains("is missing") || told(&twice).contains("does not belong"),
        "{}",
        told(&twice)
    );
    let mut swapped = untouched.clone();
    swapped.swap(0, 2);
    assert!(told(&swapped).contains("another order"), "{}", told(&swapped));
    let mut added = untouched.clone();
    let mut other = super::archive::header("other.txt", 1).unwrap();
    other.extend([b'x'].into_iter().chain(std::iter::repeat_n(0, BLOCK - 1)));
    added.insert(1, other);
    assert!(told(&added).contains("other.txt does not belong here"), "{}", told(&added));
    // A changed content under a header that fits is named with both digests.
    let mut changed = untouched.clone();
    changed[0][BLOCK] = b'[';
    assert!(told(&changed).contains("vehicles/000001.jsonl was changed"), "{}", told(&changed));
    // Without its manifest nothing is signed.
    let unsigned = [untouched[..3].concat(), untouched[5].clone()].concat();
    assert!(verified(&unsigned, &key).is_err());
}

#[test]
fn another_key_is_named_and_cannot_take_the_place_of_the_first() {
    let (key, other) = (key(), key());
    let error = verified(&archive(&other), &key).unwrap_err();
    assert!(matches!(error, BrokenArchive::OtherKey { .. }), "{error}");
    // The manifest of the one, signed by the other.
    let (mut own, foreign) = (parts(&archive(&key)), parts(&archive(&other)));
    own[4].clone_from(&foreign[4]);
    assert!(matches!(verified(&own.concat(), &key), Err(BrokenArchive::Signature)));
}

#[test]
fn an_audit_log_that_does_not_hold_is_found_though_it_is_signed() {
    let key = key();
    let mut log = entries(4);
    log[1].actor = "token:other".to_owned();
    let error = verified(&archive_of(&key, &log), &key).unwrap_err();
    assert!(matches!(error, BrokenArchive::Audit(BrokenChain::Changed { seq: 6, .. })), "{error}");
    let mut log = entries(4);
    log.remove(1);
    let error = verified(&archive_of(&key, &log), &key).unwrap_err();
    assert!(
        matches!(error, BrokenArchive::Audit(BrokenChain::OutOfOrder { expected: 6, found: 7 })),
        "{error}"
    );
}

#[test]
fn heads_that_were_noted_must_lie_on_the_log() {
    let (key, log) = (key(), entries(3));
    let archive = archive(&key);
    let asked = |seq, sha256| verify(archive.as_slice(), key.public(), &[AuditHead { seq, sha256 }]);
    assert!(asked(4, Sha256::of(b"before")).is_ok());
    assert!(asked(6, log[1].sha256).is_ok());
    assert!(matches!(asked(6, Sha256::ZERO), Err(BrokenArchive::Audit(BrokenChain::Rewritten { .. }))));
    assert!(matches!(asked(8, Sha256::ZERO), Err(BrokenArchive::Audit(BrokenChain::CutOff { .. }))));
    assert!(matches!(asked(3, Sha256::ZERO), Err(BrokenArchive::HeadNotCovered { .. })));
}

#[test]
fn the_key_is_made_once_for_its_user_alone_and_read_again() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().unwrap();
    let made = EvidenceKey::load_or_make(data.path()).unwrap();
    let again = EvidenceKey::load_or_make(data.path()).unwrap();
    assert_eq!(made.public(), again.public());
    let path = data.path().join("evidence.key.pem");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let public = EvidencePublicKey::load(&data.path().join("evidence.pub.pem")).unwrap();
    assert_eq!(&public, made.public());
    assert!(EvidencePublicKey::load(&path).is_err());
    std::fs::write(&path, "no key").unwrap();
    let error = EvidenceKey::load_or_make(data.path()).err().unwrap().to_string();
    assert!(error.contains("evidence.key.pem"), "{error}");
}

#[test]
fn the_manifest_and_its_signature_come_last() {
    let parts = parts(&archive(&key()));
    for (part, name) in [(3, MANIFEST), (4, SIGNATURE)] {
        assert!(parts[part].starts_with(name.as_bytes()));
    }
}

proptest! {
    #[test]
    fn no_octets_make_the_proof_fail_otherwise_than_by_an_error(octets in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(verify(octets.as_slice(), key().public(), &[]).is_err());
    }
}
