//! The audit log's chain: each entry carries the hash of the one before, so that nobody can change, remove or
//! reorder one unseen. Owns the encoding and the proof; leaves storing to the store.

use std::io::BufRead;
use std::path::Path;

use farrier_protocol::{Sha256, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands before the first entry.
pub const BEFORE_THE_FIRST: AuditHead = AuditHead { seq: 0, sha256: Sha256::ZERO };
/// Entries are encoded in this way; another way gets another name.
const ENCODING: &str = "farrier-audit-1";

/// One change, and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// When, ms since 1970, by the server's clock.
    pub at_ms: UnixMillis,
    /// Who: `token:NAME`, or `server` for what the server did by its rules.
    pub actor: String,
    /// What was done, as `campaign.started`.
    pub action: String,
    /// To what, as `campaign/winter`.
    pub object: String,
    /// The change in words.
    pub detail: Option<String>,
    /// From which address.
    pub client: Option<String>,
    /// By which request.
    pub request_id: Option<String>,
    /// SHA-256 of what the server held of the object before, where there was one.
    pub before_sha256: Option<Sha256>,
    /// SHA-256 of what the server holds of the object now, where there is one.
    pub after_sha256: Option<Sha256>,
    /// `sha256` of the entry before; zeros for the first.
    pub previous_sha256: Sha256,
    /// SHA-256 of all the above, as docs/operations.md says.
    pub sha256: Sha256,
}

impl AuditEntry {
    /// The hash that belongs to this content: of one JSON array without spaces.
    pub fn content_sha256(&self) -> Sha256 {
        let content = serde_json::json!([
            ENCODING,
            self.seq,
            self.at_ms,
            self.actor,
            self.action,
            self.object,
            self.detail,
            self.client,
            self.request_id,
            self.before_sha256,
            self.after_sha256,
            self.previous_sha256,
        ]);
        Sha256::of(content.to_string().as_bytes())
    }
}

/// Where a chain ends, or ended when somebody noted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditHead {
    /// Number of the last entry; 0 where there is none.
    pub seq: u64,
    /// Its hash.
    pub sha256: Sha256,
}

impl std::fmt::Display for AuditHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, self.sha256)
    }
}

impl std::str::FromStr for AuditHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let head = text
            .split_once(':')
            .and_then(|(seq, sha256)| Some(Self { seq: seq.parse().ok()?, sha256: sha256.parse().ok()? }));
        head.ok_or_else(|| {
            format!("expected NUMBER:HASH as `farrier audit verify` prints it, found {text:?}")
        })
    }
}

/// Why a log cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    /// An entry's content is not what it was.
    #[error("entry {seq} was changed: its content has the hash {found}, it says {expected}")]
    Changed {
        /// The entry.
        seq: u64,
        /// The hash that it carries.
        expected: Sha256,
        /// The hash of what is there.
        found: Sha256,
    },
    /// An entry does not follow the one before.
    #[error(
        "entry {seq} does not follow the entry before it: it names {expected} as the hash before, found {found}; \
         an entry between was changed, removed or put elsewhere"
    )]
    NotConnected {
        /// The entry.
        seq: u64,
        /// The hash that it names as the one before.
        expected: Sha256,
        /// The hash of the entry before.
        found: Sha256,
    },
    /// A number is missing or comes again.
    #[error("expected entry {expected}, found {found}: entries were removed or put in another order")]
    OutOfOrder {
        /// The number that had to come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The log ends before an entry that was there.
    #[error("the log ends with entry {found}, though entry {expected} was there: its end was cut off")]
    CutOff {
        /// An entry that was there.
        expected: u64,
        /// The last entry.
        found: u64,
    },
    /// An entry is not the one that was there when its hash was noted.
    #[error(
        "entry {seq} has the hash {found}, it had {expected} when that was noted: the log was written anew"
    )]
    Rewritten {
        /// The entry.
        seq: u64,
        /// Its hash as it was noted.
        expected: Sha256,
        /// Its hash now.
        found: Sha256,
    },
}

/// Follows a chain from its beginning, entry by entry.
#[derive(Debug)]
pub struct ChainCheck {
    head: AuditHead,
    noted: Vec<AuditHead>,
}

impl ChainCheck {
    /// `noted`: heads that were kept elsewhere; the chain must go through all of them.
    pub fn new(noted: Vec<AuditHead>) -> Self {
        Self { head: BEFORE_THE_FIRST, noted }
    }

    /// Follows a part of a chain, whose first entry comes after `head`.
    pub fn after(head: AuditHead) -> Self {
        Self { head, noted: Vec::new() }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// It does not belong here.
    pub fn take(&mut self, entry: &AuditEntry) -> Result<(), BrokenChain> {
        let expected = self.head.seq.saturating_add(1);
        if entry.seq != expected {
            return Err(BrokenChain::OutOfOrder { expected, found: entry.seq });
        }
        if entry.previous_sha256 != self.head.sha256 {
            return Err(BrokenChain::NotConnected {
                seq: entry.seq,
                expected: entry.previous_sha256,
                found: self.head.sha256,
            });
        }
        let content = entry.content_sha256();
        if entry.sha256 != content {
            return Err(BrokenChain::Changed { seq: entry.seq, expected: entry.sha256, found: content });
        }
        for noted in self.noted.iter().filter(|noted| noted.seq == entry.seq) {
            if noted.sha256 != entry.sha256 {
                return Err(BrokenChain::Rewritten {
                    seq: entry.seq,
                    expected: noted.sha256,
                    found: entry.sha256,
                });
            }
        }
        self.head = AuditHead { seq: entry.seq, sha256: entry.sha256 };
        Ok(())
    }

    /// The log is over; gives where it ends.
    ///
    /// # Errors
    /// It ended later once.
    pub fn end(self) -> Result<AuditHead, BrokenChain> {
        match self.noted.iter().map(|noted| noted.seq).max() {
            Some(expected) if expected > self.head.seq => {
                Err(BrokenChain::CutOff { expected, found: self.head.seq })
            }
            Some(_) | None => Ok(self.head),
        }
    }
}

/// Why a log could not be checked, or cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum AuditCheckError {
    /// The chain does not hold.
    #[error("the audit log cannot be believed")]
    Broken(#[from] BrokenChain),
    /// A file cannot be read.
    #[error("cannot read {path}: expected {expected}; check the path")]
    Unreadable {
        /// The file.
        path: std::path::PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A line is no entry.
    #[error("line {line} of {path}: expected an entry of an audit log, found {found}; the line was changed")]
    NoEntry {
        /// The file.
        path: std::path::PathBuf,
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        found: String,
    },
    /// The store of a data folder.
    #[error(transparent)]
    Store(#[from] crate::StoreError),
}

/// Checks an exported log: one entry a line.
///
/// # Errors
/// What is wrong, and with which line or entry.
pub fn check_export(path: &Path, noted: Vec<AuditHead>) -> Result<AuditHead, AuditCheckError> {
    let expected = "a log that `farrier audit export` wrote";
    let unreadable = |source| AuditCheckError::Unreadable { path: path.to_owned(), expected, source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut check = ChainCheck::new(noted);
    for (line, text) in (1..).zip(std::io::BufReader::new(file).lines()) {
        let text = text.map_err(unreadable)?;
        let entry = serde_json::from_str(&text).map_err(|error| AuditCheckError::NoEntry {
            path: path.to_owned(),
            line,
            found: error.to_string(),
        })?;
        check.take(&entry)?;
    }
    Ok(check.end()?)
}

/// Checks the log in a server's data folder, running or not, against its end as the store has it and against the
/// heads that the server noted in `audit.heads`.
///
/// # Errors
/// What is wrong, and with which entry.
pub fn check_data_folder(data: &Path, mut noted: Vec<AuditHead>) -> Result<AuditHead, AuditCheckError> {
    noted.extend(noted_heads(&data.join(HEADS_FILE))?);
    let mut check = ChainCheck::new(noted);
    let stored_head = crate::store::read_file(&data.join("farrier.db"), |tx| {
        let mut after = 0;
        loop {
            let entries = crate::store::audit::page(tx, after, 1_000)?;
            for entry in &entries {
                if let Err(broken) = check.take(entry) {
                    return Ok(Err(broken));
                }
                after = entry.seq;
            }
            if entries.is_empty() {
                return Ok(Ok(crate::store::audit::head(tx)?));
            }
        }
    })??;
    let head = check.end()?;
    if head.seq < stored_head.seq {
        return Err(BrokenChain::CutOff { expected: stored_head.seq, found: head.seq }.into());
    }
    if head != stored_head {
        let (expected, found) = (stored_head.sha256, head.sha256);
        return Err(BrokenChain::Rewritten { seq: stored_head.seq, expected, found }.into());
    }
    Ok(head)
}

/// Where a server notes the ends of its log, in its data folder; copy it to a place that the server cannot write.
pub const HEADS_FILE: &str = "audit.heads";

/// The heads that a server noted, one a line after the time.
fn noted_heads(path: &Path) -> Result<Vec<AuditHead>, AuditCheckError> {
    let expected = "the heads that the server noted";
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(AuditCheckError::Unreadable { path: path.to_owned(), expected, source }),
    };
    let mut heads = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let head = text.split_once(' ').map_or("", |(_, head)| head).parse();
        heads.push(head.map_err(|found| AuditCheckError::NoEntry { path: path.to_owned(), line, found })?);
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(entries: u64) -> Vec<AuditEntry> {
        let mut head = BEFORE_THE_FIRST;
        (1..=entries)
            .map(|seq| {
                let mut entry = AuditEntry {
                    seq,
                    at_ms: UnixMillis(1_000),
                    actor: "token:first".to_owned(),
                    action: "campaign.started".to_owned(),
                    object: format!("campaign/{seq}"),
                    detail: Some("in \"words\"\n".to_owned()),
                    client: None,
                    request_id: None,
                    before_sha256: None,
                    after_sha256: Some(Sha256::of(b"after")),
                    previous_sha256: head.sha256,
                    sha256: Sha256::ZERO,
                };
                entry.sha256 = entry.content_sha256();
                head = AuditHead { seq, sha256: entry.sha256 };
                entry
            })
            .collect()
    }

    fn checked(entries: &[AuditEntry], noted: &[AuditHead]) -> Result<AuditHead, BrokenChain> {
        let mut check = ChainCheck::new(noted.to_vec());
        entries.iter().try_for_each(|entry| check.take(entry))?;
        check.end()
    }

    #[test]
    fn an_untouched_chain_is_believed_and_ends_with_its_last_entry() {
        let entries = chain(5);
        assert_eq!(checked(&entries, &[]), Ok(AuditHead { seq: 5, sha256: entries[4].sha256 }));
        assert_eq!(checked(&[], &[]), Ok(BEFORE_THE_FIRST));
    }

    #[test]
    fn the_encoding_of_an_entry_never_changes() {
        // Computed by another program from docs/operations.md.
        let expected = "29d2d941f153483dcae0046e40ea9d96e0274e58bfc1b93169a329b2f34c2c7d";
        assert_eq!(chain(1)[0].sha256.to_string(), expected);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_done_to_a_chain_is_found(
            entries in 2_u64..12, at in 0_usize..12, other in 0_usize..12, how in 0_u8..5,
        ) {
            let untouched = chain(entries);
            let head = checked(&untouched, &[]).unwrap();
            let mut touched = untouched.clone();
            let (at, other) = (at % touched.len(), other % touched.len());
            match how {
                0 => touched[at].detail = Some("other words".to_owned()),
                1 => { touched.remove(at); }
                2 => touched.swap(at, other),
                3 => touched.truncate(at),
                _ => {
                    // The whole tail written anew, all hashes right.
                    touched[at].actor = "token:other".to_owned();
                    for number in at..touched.len() {
                        if number > 0 {
                            touched[number].previous_sha256 = touched[number - 1].sha256;
                        }
                        touched[number].sha256 = touched[number].content_sha256();
                    }
                }
            }
            proptest::prop_assume!(touched != untouched);
            proptest::prop_assert!(checked(&touched, &[head]).is_err());
        }
    }

    #[test]
    fn each_way_of_tampering_is_named() {
        let entries = chain(4);
        let head = AuditHead { seq: 4, sha256: entries[3].sha256 };
        let mut changed = entries.clone();
        changed[1].actor = "token:other".to_owned();
        assert!(matches!(checked(&changed, &[]), Err(BrokenChain::Changed { seq: 2, .. })));
        changed[1].sha256 = changed[1].content_sha256();
        assert!(matches!(checked(&changed, &[]), Err(BrokenChain::NotConnected { seq: 3, .. })));
        let removed = [&entries[..1], &entries[2..]].concat();
        assert_eq!(checked(&removed, &[]), Err(BrokenChain::OutOfOrder { expected: 2, found: 3 }));
        assert_eq!(checked(&entries[..3], &[head]), Err(BrokenChain::CutOff { expected: 4, found: 3 }));
        let other_end = AuditHead { seq: 4, sha256: Sha256::of(b"other") };
        assert!(matches!(checked(&entries, &[other_end]), Err(BrokenChain::Rewritten { seq: 4, .. })));
    }

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let head = AuditHead { seq: 7, sha256: Sha256::of(b"x") };
        assert_eq!(head.to_string().parse(), Ok(head));
        for text in ["", "7", "x:y", "7:12"] {
            assert!(text.parse::<AuditHead>().is_err(), "{text}");
        }
    }
}
