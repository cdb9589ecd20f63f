//! The proof of an archive, without a server: every octet is as it was signed, and the audit log in it holds.

use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use farrier_protocol::{Sha256, UnixMillis};

use super::archive::{BLOCK, ListedFile, MANIFEST, Manifest, SCHEMA, SIGNATURE, header};
use super::key::EvidencePublicKey;
use crate::audit::{AuditEntry, AuditHead, BrokenChain, ChainCheck};

/// The largest file that is held in memory: manifest, signature, a part of the audit log.
const MOST_HELD_OCTETS: u64 = 256 * 1024 * 1024;
/// What stands before the parts of the audit log.
const AUDIT: &str = "audit/";

/// An archive that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedArchive {
    /// `campaign NAME` or `vehicle ID`.
    pub subject: String,
    /// Which server has signed it.
    pub server: String,
    /// When.
    pub made_at: UnixMillis,
    /// Files beside the manifest and its signature.
    pub files: u64,
    /// Records of vehicle updates.
    pub updates: u64,
    /// The first entry of the audit log that is in it; none where there is none.
    pub audit_from: Option<u64>,
    /// Where the audit log ended.
    pub audit_head: AuditHead,
}

/// Why an archive cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum BrokenArchive {
    /// It ends before its end.
    #[error(
        "the archive is cut off {place}: expected the rest of it, found its end; copy or export it again"
    )]
    CutOff {
        /// Where.
        place: String,
    },
    /// It does not have the form of an archive of evidence.
    #[error("the archive was changed {place}: expected {expected}, found something else")]
    Malformed {
        /// Where.
        place: String,
        /// What had to come.
        expected: &'static str,
    },
    /// A file's content is not what was signed.
    #[error("{path} was changed: expected SHA-256 {expected}, found {found}")]
    Changed {
        /// Which file.
        path: String,
        /// Of what was signed.
        expected: Sha256,
        /// Of what is there.
        found: Sha256,
    },
    /// A file is not there.
    #[error(
        "{path} is missing: it was signed with the others and removed, or the files were put in another order"
    )]
    Removed {
        /// Which file.
        path: String,
    },
    /// A file is there that was not signed.
    #[error("{path} does not belong here: it was added, or the files were put in another order")]
    Added {
        /// Which file.
        path: String,
    },
    /// Another key.
    #[error(
        "the archive was signed by another key: expected one with SHA-256 {expected}, as given, the archive names \
         {found}; name the evidence.pub.pem of the server that made it"
    )]
    OtherKey {
        /// The key that was given.
        expected: Sha256,
        /// The key that the archive names.
        found: Sha256,
    },
    /// The signature is not over this manifest.
    #[error("the signature does not hold: manifest.json or manifest.sig was changed after it was signed")]
    Signature,
    /// The audit log does not hold.
    #[error("the audit log in the archive cannot be believed")]
    Audit(#[from] BrokenChain),
    /// A head lies before the part of the audit log that is in the archive.
    #[error(
        "expected a head of the audit log from entry {from} on, found {head}: the archive does not reach back so far; \
         check it with `farrier audit verify`"
    )]
    HeadNotCovered {
        /// The last entry before those of the archive.
        from: u64,
        /// What was given.
        head: AuditHead,
    },
    /// The file cannot be read.
    #[error("the archive cannot be read; check the path")]
    Io(#[source] io::Error),
}

/// Proves an archive: `heads` are ends of the audit log that were noted elsewhere, and must lie on it.
///
/// # Errors
/// What is wrong, and where.
pub fn verify(
    archive: impl Read,
    key: &EvidencePublicKey,
    heads: &[AuditHead],
) -> Result<VerifiedArchive, BrokenArchive> {
    let mut reading = Reading { archive, path: None };
    let mut files: Vec<ListedFile> = Vec::new();
    let (mut updates, mut audit) = (0_u64, AuditPart::default());
    let (manifest, signature) = loop {
        let (path, size_bytes) = reading.header()?;
        if path == MANIFEST {
            let manifest = reading.held(size_bytes)?;
            let (path, size_bytes) = reading.header()?;
            if path != SIGNATURE {
                return Err(BrokenArchive::Added { path });
            }
            let signature = reading.held(size_bytes)?;
            reading.end()?;
            break (manifest, signature);
        }
        let sha256 = if path.starts_with(AUDIT) {
            let content = reading.held(size_bytes)?;
            audit.follow(&content);
            Sha256::of(&content)
        } else {
            let counts = path.ends_with(".jsonl");
            let (sha256, lines) = reading.content(size_bytes)?;
            updates = updates.saturating_add(if counts { lines } else { 0 });
            sha256
        };
        files.push(ListedFile { sha256, size_bytes, path });
    };
    let manifest_json = manifest;
    let manifest: Manifest = serde_json::from_slice(&manifest_json).map_err(|_| {
        BrokenArchive::Malformed { place: format!("in {MANIFEST}"), expected: "the list of what was signed" }
    })?;
    if !key.has_signed(&manifest_json, &signature) {
        let (expected, found) = (key.sha256(), manifest.key_sha256);
        return Err(if expected == found {
            BrokenArchive::Signature
        } else {
            BrokenArchive::OtherKey { expected, found }
        });
    }
    if manifest.schema != SCHEMA {
        let place = format!("in {MANIFEST}");
        return Err(BrokenArchive::Malformed { place, expected: "the form farrier-evidence-1" });
    }
    compare(&manifest.files, &files)?;
    audit.end(&manifest, heads)?;
    Ok(VerifiedArchive {
        subject: manifest.subject,
        server: manifest.server,
        made_at: manifest.made_at_ms,
        files: files.len() as u64,
        updates,
        audit_from: manifest.audit_from,
        audit_head: manifest.audit_head,
    })
}

/// Whether the files are those that were signed, in that order.
fn compare(signed: &[ListedFile], found: &[ListedFile]) -> Result<(), BrokenArchive> {
    for (number, file) in found.iter().enumerate() {
        match signed.get(number) {
            Some(expected) if expected.path != file.path => {
                let is_known = signed.iter().any(|signed| signed.path == file.path);
                return Err(if is_known {
                    BrokenArchive::Removed { path: expected.path.clone() }
                } else {
                    BrokenArchive::Added { path: file.path.clone() }
                });
            }
            Some(expected) if expected != file => {
                let (path, expected, found) = (file.path.clone(), expected.sha256, file.sha256);
                return Err(BrokenArchive::Changed { path, expected, found });
            }
            Some(_) => {}
            None => return Err(BrokenArchive::Added { path: file.path.clone() }),
        }
    }
    match signed.get(found.len()) {
        Some(missing) => Err(BrokenArchive::Removed { path: missing.path.clone() }),
        None => Ok(()),
    }
}

/// The part of the audit log in an archive, followed as it comes.
#[derive(Default)]
struct AuditPart {
    check: Option<ChainCheck>,
    /// What stands before the first entry, and after each.
    seen: Vec<AuditHead>,
    /// What was wrong first; a file that was changed is told of before it.
    broken: Option<BrokenArchive>,
}

impl AuditPart {
    fn follow(&mut self, part: &[u8]) {
        for line in part.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
            let Ok(entry) = serde_json::from_slice::<AuditEntry>(line) else {
                let (place, expected) = ("in the audit log".to_owned(), "entries of an audit log");
                self.note(BrokenArchive::Malformed { place, expected });
                return;
            };
            let before = AuditHead { seq: entry.seq.saturating_sub(1), sha256: entry.previous_sha256 };
            if self.seen.is_empty() {
                self.seen.push(before);
            }
            let check = self.check.get_or_insert_with(|| ChainCheck::after(before));
            if let Err(broken) = check.take(&entry) {
                self.note(broken.into());
                return;
            }
            self.seen.push(AuditHead { seq: entry.seq, sha256: entry.sha256 });
        }
    }

    fn note(&mut self, broken: BrokenArchive) {
        self.broken.get_or_insert(broken);
    }

    fn end(self, manifest: &Manifest, heads: &[AuditHead]) -> Result<(), BrokenArchive> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let first = self.seen.first().map(|before| before.seq.saturating_add(1));
        let place = "in the audit log".to_owned();
        if first != manifest.audit_from {
            return Err(BrokenArchive::Malformed { place, expected: "to begin where the manifest says" });
        }
        let head = self.seen.last().copied();
        if head.is_some_and(|head| head != manifest.audit_head) {
            return Err(BrokenArchive::Malformed { place, expected: "to end where the manifest says" });
        }
        for noted in heads {
            let Some(before) = self.seen.first().filter(|before| before.seq <= noted.seq) else {
                let from = self.seen.first().map_or(manifest.audit_head.seq, |before| before.seq);
                if *noted == manifest.audit_head {
                    continue;
                }
                return Err(BrokenArchive::HeadNotCovered { from, head: *noted });
            };
            let number = usize::try_from(noted.seq.saturating_sub(before.seq)).unwrap_or(usize::MAX);
            match self.seen.get(number) {
                Some(seen) if seen == noted => {}
                Some(seen) => {
                    let (seq, expected, found) = (noted.seq, noted.sha256, seen.sha256);
                    return Err(BrokenChain::Rewritten { seq, expected, found }.into());
                }
                None => {
                    let found = manifest.audit_head.seq;
                    return Err(BrokenChain::CutOff { expected: noted.seq, found }.into());
                }
            }
        }
        Ok(())
    }
}

/// Reads an archive octet by octet, and takes no octet that need not be as it is.
struct Reading<R> {
    archive: R,
    /// The file that is being read.
    path: Option<String>,
}

impl<R: Read> Reading<R> {
    fn place(&self) -> String {
        match &self.path {
            Some(path) => format!("in or after {path}"),
            None => "at its beginning".to_owned(),
        }
    }

    fn malformed(&self, expected: &'static str) -> BrokenArchive {
        BrokenArchive::Malformed { place: self.place(), expected }
    }

    fn read(&mut self, octets: &mut [u8]) -> Result<(), BrokenArchive> {
        self.archive.read_exact(octets).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                BrokenArchive::CutOff { place: self.place() }
            } else {
                BrokenArchive::Io(error)
            }
        })
    }

    /// The name and size of the next file.
    fn header(&mut self) -> Result<(String, u64), BrokenArchive> {
        let mut block = [0; BLOCK];
        self.read(&mut block)?;
        let name = block.split(|octet| *octet == 0).next().unwrap_or_default();
        let path = String::from_utf8_lossy(name).into_owned();
        if path.is_empty() {
            return Err(self.malformed("the manifest and its signature at the end"));
        }
        let size = block.get(124..135).and_then(|digits| std::str::from_utf8(digits).ok());
        let size_bytes = size.and_then(|digits| u64::from_str_radix(digits, 8).ok());
        let expected = "the header of a file as Farrier writes it";
        let size_bytes = size_bytes.ok_or_else(|| self.malformed(expected))?;
        if header(&path, size_bytes).as_deref() != Some(block.as_slice()) {
            return Err(self.malformed(expected));
        }
        self.path = Some(path.clone());
        Ok((path, size_bytes))
    }

    /// The digest of the content, and how many lines it has.
    fn content(&mut self, size_bytes: u64) -> Result<(Sha256, u64), BrokenArchive> {
        let (mut hash, mut lines) = (Context::new(&SHA256), 0_u64);
        self.pieces(size_bytes, |piece| {
            hash.update(piece);
            lines = lines.saturating_add(piece.iter().filter(|octet| **octet == b'\n').count() as u64);
        })?;
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        Ok((digest.into(), lines))
    }

    /// A content that is small enough to be held.
    fn held(&mut self, size_bytes: u64) -> Result<Vec<u8>, BrokenArchive> {
        if size_bytes > MOST_HELD_OCTETS {
            return Err(self.malformed("a manifest, a signature and parts of the audit log below 256 MiB"));
        }
        let mut content = Vec::new();
        self.pieces(size_bytes, |piece| content.extend_from_slice(piece))?;
        Ok(content)
    }

    fn pieces(&mut self, size_bytes: u64, mut each: impl FnMut(&[u8])) -> Result<(), BrokenArchive> {
        let mut left = size_bytes;
        let mut block = [0; BLOCK];
        while left > 0 {
            self.read(&mut block)?;
            let used = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let (content, padding) = block.split_at(used);
            if padding.iter().any(|octet| *octet != 0) {
                return Err(self.malformed("nothing between two files"));
            }
            each(content);
            left = left.saturating_sub(used as u64);
        }
        Ok(())
    }

    /// Two empty blocks, and nothing more.
    fn end(&mut self) -> Result<(), BrokenArchive> {
        let mut blocks = [0; 2 * BLOCK];
        self.read(&mut blocks)?;
        let mut more = [0; 1];
        let has_more = self.archive.read(&mut more).map_err(BrokenArchive::Io)? > 0;
        if has_more || blocks.iter().any(|octet| *octet != 0) {
            return Err(self.malformed("the end of the archive"));
        }
        Ok(())
    }
}
