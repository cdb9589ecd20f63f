//! The archive: a tar (POSIX ustar) in which each octet can have one value only, so that a changed one is seen wherever it
//! stands. All headers are alike but for name and size; the last two files are the manifest and its signature.

use std::io;

use bytes::Bytes;
use farrier_protocol::{Sha256, UnixMillis};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::key::{EvidenceKey, EvidenceKeyError};
use crate::audit::AuditHead;
use crate::store::StoreError;

/// Octets of a tar's block.
pub(super) const BLOCK: usize = 512;
/// What the manifest is called.
pub(super) const MANIFEST: &str = "manifest.json";
/// What the signature over it is called.
pub(super) const SIGNATURE: &str = "manifest.sig";
/// The form of the archive; another one gets another name.
pub(super) const SCHEMA: &str = "farrier-evidence-1";

/// What the signature covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) schema: String,
    /// `campaign NAME` or `vehicle ID`.
    pub(super) subject: String,
    /// The server's address for vehicles.
    pub(super) server: String,
    pub(super) made_at_ms: UnixMillis,
    /// Of the public key.
    pub(super) key_sha256: Sha256,
    /// The first entry of the audit log in the archive; absent where there is none.
    pub(super) audit_from: Option<u64>,
    /// Where the audit log ended; the entries of the archive go up to it.
    pub(super) audit_head: AuditHead,
    /// In the archive's order; manifest and signature come behind them.
    pub(super) files: Vec<ListedFile>,
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedFile {
    pub(super) sha256: Sha256,
    pub(super) size_bytes: u64,
    pub(super) path: String,
}

impl Manifest {
    /// JSON with each file on a line of its own, which `sed` can turn into what `sha256sum` reads.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let head = serde_json::to_string(&Self { files: Vec::new(), ..self.clone() })?;
        let head = head.strip_suffix("]}").unwrap_or(&head);
        let files: Vec<_> = self.files.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        Ok(format!("{head}\n{}\n]}}\n", files.join(",\n")).into_bytes())
    }
}

/// Why an archive does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("nobody reads any more")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] EvidenceKeyError),
    #[error("a record could not be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error(
        "expected a path of 1 to 100 octets and a size below 8 GiB, found {path} with {size_bytes} octets"
    )]
    Entry { path: String, size_bytes: u64 },
}

/// An archive that is being sent.
pub(super) struct Archive {
    out: mpsc::Sender<io::Result<Bytes>>,
    files: Vec<ListedFile>,
}

impl Archive {
    pub(super) fn new(out: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { out, files: Vec::new() }
    }

    pub(super) async fn file(&mut self, path: String, content: Vec<u8>) -> Result<(), Stopped> {
        let (sha256, size_bytes) = (Sha256::of(&content), content.len() as u64);
        self.entry(&path, content).await?;
        self.files.push(ListedFile { sha256, size_bytes, path });
        Ok(())
    }

    async fn entry(&self, path: &str, mut content: Vec<u8>) -> Result<(), Stopped> {
        let size_bytes = content.len() as u64;
        let header =
            header(path, size_bytes).ok_or_else(|| Stopped::Entry { path: path.to_owned(), size_bytes })?;
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        self.send(header).await?;
        self.send(content).await
    }

    async fn send(&self, octets: Vec<u8>) -> Result<(), Stopped> {
        self.out.send(Ok(octets.into())).await.map_err(|_| Stopped::Gone)
    }

    /// Signs what was sent; `manifest` is about all but the files.
    pub(super) async fn end(self, manifest: Manifest, key: &EvidenceKey) -> Result<(), Stopped> {
        let manifest = Manifest { files: self.files.clone(), ..manifest }.to_json()?;
        let signature = key.sign(&manifest)?;
        self.entry(MANIFEST, manifest).await?;
        self.entry(SIGNATURE, signature).await?;
        self.send(vec![0; 2 * BLOCK]).await
    }
}

/// The one header for this name and size; none for what has no place in it.
pub(super) fn header(path: &str, size_bytes: u64) -> Option<Vec<u8>> {
    let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/');
    if path.is_empty() || path.len() > 100 || !path.bytes().all(is_name) || size_bytes >= 1 << 33 {
        return None;
    }
    let with_sum = |sum: &str| {
        let mut header = Vec::with_capacity(BLOCK);
        let mut field = |content: &str, width: usize| {
            header.extend(content.bytes().chain(std::iter::repeat(0)).take(width));
        };
        field(path, 100);
        for (content, width) in [("0000644", 8), ("0000000", 8), ("0000000", 8)] {
            field(content, width);
        }
        field(&format!("{size_bytes:011o}"), 12);
        field("00000000000", 12);
        field(sum, 8);
        field("0", 1);
        field("", 100);
        field("ustar\u{0}00", 8);
        field("", 64);
        field("0000000", 8);
        field("0000000", 8);
        field("", 167);
        header
    };
    let sum: u32 = with_sum("        ").iter().map(|octet| u32::from(*octet)).sum();
    Some(with_sum(&format!("{sum:06o}\u{0} ")))
}
