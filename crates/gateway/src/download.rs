//! Fetches packages over HTTPS into files named by their SHA-256, so that equal contents are fetched once.
//!
//! A package grows as `{sha256}.part`, from where it goes on after a broken connection or a restart, and
//! becomes `{sha256}.image` only after its size, hash and release signature are right. The future may be
//! dropped at any moment.

mod response;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use farrier_protocol::{Package, Sha256};
use farrier_vehicle_update::Plan;
use reqwest::header::{IF_RANGE, RANGE};
use reqwest::{StatusCode, Url};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use self::response::{Body, body_of};
use crate::backoff::{Backoff, random_u64};
use crate::release_signature::{MAX_SIGNATURE_BYTES, ReleaseKey};

/// How long a connection may take to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// After how many bytes they are made durable, so that a power cut costs no more than these.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// A package cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("expected a path below {base_url} for package {pkg_id}, found {url:?}")]
    Url { pkg_id: String, base_url: String, url: String },
    #[error("expected to fetch {url}, the server answers {status}")]
    Status { url: String, status: StatusCode },
    #[error("expected {size} bytes from {url}, found more")]
    TooLong { url: String, size: u64 },
    #[error("expected SHA-256 {hash} of {url}, found another after it was fetched {tries} times")]
    Hash { url: String, hash: Sha256, tries: u32 },
    #[error("expected {url} to be signed by the release key, found a signature that does not verify")]
    Signature { url: String },
    #[error("cannot write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A failed try: worth another one, or the end.
#[derive(Debug)]
enum Failed {
    Again(String),
    End(DownloadError),
}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        Self::Again(crate::error_text::with_causes(&error))
    }
}

/// The downloader and its folder.
#[derive(Debug, Clone)]
pub(crate) struct Downloader {
    client: reqwest::Client,
    folder: PathBuf,
    key: ReleaseKey,
    backoff: Backoff,
}

/// What is fetched.
#[derive(Debug, Clone)]
struct Source {
    url: Url,
    signature_url: Url,
    hash: Sha256,
    size: u64,
    /// Largest range of one request in bytes; `None` = all at once.
    range_bytes: Option<u64>,
}

/// A package on its way.
struct Part {
    path: PathBuf,
    file: tokio::fs::File,
    /// Bytes on disk.
    length: u64,
    /// Bytes of these that are surely durable.
    durable: u64,
    hash: Context,
}

impl Downloader {
    /// Makes the folder, if it is not there, and the client.
    pub(crate) fn new(
        https: rustls::ClientConfig,
        folder: PathBuf,
        key: ReleaseKey,
        backoff: Backoff,
    ) -> Result<Self, SetUpError> {
        std::fs::create_dir_all(&folder)
            .map_err(|source| SetUpError::Folder { path: folder.clone(), source })?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(https)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(SetUpError::Client)?;
        Ok(Self { client, folder, key, backoff })
    }

    /// Where a verified package lies.
    pub(crate) fn image_path(&self, hash: &Sha256) -> PathBuf {
        self.folder.join(format!("{hash}.image"))
    }

    /// Fetches every package of a plan that is not here yet, without end as long as trying again can help.
    /// `progress` takes the bytes here of all packages.
    pub(crate) async fn fetch_all(
        &self,
        plan: &Plan,
        mut progress: impl FnMut(u64),
    ) -> Result<(), DownloadError> {
        let mut sources: Vec<Source> = Vec::new();
        for package in &plan.start.packages {
            if !sources.iter().any(|known| known.hash == package.hash_sha256) {
                sources.push(Source::new(plan, package)?);
            }
        }
        let mut done = 0_u64;
        for source in sources {
            if !self.is_here(&source).await {
                self.fetch(&source, |bytes| progress(done.saturating_add(bytes))).await?;
            }
            done = done.saturating_add(source.size);
            progress(done);
        }
        Ok(())
    }

    /// Deletes all packages, whole or not.
    pub(crate) async fn delete_all(&self) -> io::Result<()> {
        let mut entries = tokio::fs::read_dir(&self.folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            tokio::fs::remove_file(entry.path()).await?;
        }
        Ok(())
    }

    async fn is_here(&self, source: &Source) -> bool {
        let found = tokio::fs::metadata(self.image_path(&source.hash)).await;
        found.is_ok_and(|found| found.len() == source.size)
    }

    async fn fetch(&self, source: &Source, mut progress: impl FnMut(u64)) -> Result<(), DownloadError> {
        // A part that a power cut garbled can only be noticed at its end; it is fetched once more.
        const TRIES: u32 = 2;
        for _ in 0..TRIES {
            let mut part = self.open_part(source).await?;
            let digest = self.fetch_part(source, &mut part, &mut progress).await?;
            if digest.as_ref() == source.hash.as_bytes() {
                self.check_signature(source, &digest, &part.path).await?;
                return self.finish(source, &part.path).await;
            }
            tracing::warn!(url = %source.url, "The package does not have the announced hash.");
            remove(&part.path).await?;
        }
        Err(DownloadError::Hash { url: source.url.to_string(), hash: source.hash, tries: TRIES })
    }

    /// Fetches what is missing, with backoff between tries that brought nothing.
    async fn fetch_part(
        &self,
        source: &Source,
        part: &mut Part,
        progress: &mut impl FnMut(u64),
    ) -> Result<aws_lc_rs::digest::Digest, DownloadError> {
        let mut backoff = self.backoff.clone();
        progress(part.length);
        while part.length < source.size {
            let before = part.length;
            let result = self.fetch_range(source, part, progress).await;
            if part.length > before {
                backoff.reset();
            }
            match result {
                Ok(()) if part.length > before => {}
                Ok(()) => self.wait(&mut backoff, source, "the server sent nothing").await,
                Err(Failed::Again(why)) => self.wait(&mut backoff, source, &why).await,
                Err(Failed::End(error @ DownloadError::TooLong { .. })) => {
                    remove(&part.path).await?;
                    return Err(error);
                }
                Err(Failed::End(error)) => return Err(error),
            }
        }
        part.sync().await?;
        Ok(part.hash.clone().finish())
    }

    async fn wait(&self, backoff: &mut Backoff, source: &Source, why: &str) {
        let wait = backoff.next_wait(random_u64());
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(url = %source.url, why, wait_ms, "The download is interrupted and goes on after a wait.");
        tokio::time::sleep(wait).await;
    }

    /// One request, and what it brings.
    async fn fetch_range(
        &self,
        source: &Source,
        part: &mut Part,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), Failed> {
        let mut request = self.client.get(source.url.clone());
        let last = source.size.saturating_sub(1);
        let range = match source.range_bytes {
            Some(range_bytes) => Some(format!(
                "bytes={}-{}",
                part.length,
                part.length.saturating_add(range_bytes).saturating_sub(1).min(last)
            )),
            None => (part.length > 0).then(|| format!("bytes={}-", part.length)),
        };
        if let Some(range) = range {
            // The content's hash is its ETag (protocol.md §5): what is there now is what was there before.
            request = request.header(RANGE, range).header(IF_RANGE, format!("\"{}\"", source.hash));
        }
        let mut response = request.send().await?;
        match body_of(&response, source, part.length)? {
            Body::FromLength => {}
            Body::Whole => part.start_again().await.map_err(Failed::End)?,
            Body::OutOfRange => {
                part.start_again().await.map_err(Failed::End)?;
                return Err(Failed::Again("the server knows no such range".to_owned()));
            }
        }
        while let Some(bytes) = response.chunk().await? {
            let length = part.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if length > source.size {
                return Err(Failed::End(DownloadError::TooLong {
                    url: source.url.to_string(),
                    size: source.size,
                }));
            }
            part.append(&bytes).await.map_err(Failed::End)?;
            progress(part.length);
        }
        Ok(())
    }

    async fn check_signature(
        &self,
        source: &Source,
        digest: &aws_lc_rs::digest::Digest,
        path: &Path,
    ) -> Result<(), DownloadError> {
        let mut backoff = self.backoff.clone();
        let signature = loop {
            match self.fetch_signature(source).await {
                Ok(signature) => break signature,
                Err(Failed::Again(why)) => self.wait(&mut backoff, source, &why).await,
                Err(Failed::End(error)) => return Err(error),
            }
        };
        if self.key.verify(digest, &signature).is_ok() {
            return Ok(());
        }
        remove(path).await?;
        Err(DownloadError::Signature { url: source.signature_url.to_string() })
    }

    async fn fetch_signature(&self, source: &Source) -> Result<Vec<u8>, Failed> {
        let url = &source.signature_url;
        let mut response = self.client.get(url.clone()).send().await?;
        response::expect_ok(&response, url)?;
        let mut signature = Vec::new();
        while let Some(bytes) = response.chunk().await? {
            signature.extend_from_slice(&bytes);
            if signature.len() > MAX_SIGNATURE_BYTES {
                return Err(Failed::End(DownloadError::Signature { url: url.to_string() }));
            }
        }
        Ok(signature)
    }

    async fn open_part(&self, source: &Source) -> Result<Part, DownloadError> {
        let path = self.folder.join(format!("{}.part", source.hash));
        let failed = |error| DownloadError::File { path: path.clone(), source: error };
        let mut file = tokio::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .await
            .map_err(failed)?;
        let mut length = file.metadata().await.map_err(failed)?.len();
        if length > source.size {
            file.set_len(0).await.map_err(failed)?;
            length = 0;
        }
        let hash = hash_of_prefix(path.clone(), length).await.map_err(failed)?;
        file.seek(io::SeekFrom::Start(length)).await.map_err(failed)?;
        Ok(Part { path, file, length, durable: length, hash })
    }

    async fn finish(&self, source: &Source, part: &Path) -> Result<(), DownloadError> {
        let path = self.image_path(&source.hash);
        let failed = |error| DownloadError::File { path: path.clone(), source: error };
        tokio::fs::rename(part, &path).await.map_err(failed)?;
        let folder = tokio::fs::File::open(&self.folder).await.map_err(failed)?;
        folder.sync_all().await.map_err(failed)
    }
}

/// Why there is no downloader.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The folder cannot be made.
    #[error("cannot make the folder {path} for packages; check state_dir")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The HTTPS client cannot be made.
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
}

impl Source {
    fn new(plan: &Plan, package: &Package) -> Result<Self, DownloadError> {
        let transfer = &plan.start.transfer;
        let refused = || DownloadError::Url {
            pkg_id: package.pkg_id.to_string(),
            base_url: transfer.base_url.to_string(),
            url: package.url.to_string(),
        };
        let url = package_url(transfer.base_url.as_str(), package.url.as_str()).ok_or_else(refused)?;
        let mut signature_url = url.clone();
        signature_url.set_path(&format!("{}.sig", url.path()));
        let range_bytes = transfer.max_kb_per_msg.saturating_mul(1024).max(1024);
        Ok(Self {
            url,
            signature_url,
            hash: package.hash_sha256,
            size: package.size_bytes,
            range_bytes: transfer.allow_chunking.then_some(range_bytes),
        })
    }
}

impl Part {
    async fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.file.write_all(bytes).await.map_err(|source| self.failed(source))?;
        self.hash.update(bytes);
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.length.saturating_sub(self.durable) >= SYNC_BYTES {
            self.sync().await?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), DownloadError> {
        self.file.flush().await.map_err(|source| self.failed(source))?;
        self.file.sync_all().await.map_err(|source| self.failed(source))?;
        self.durable = self.length;
        Ok(())
    }

    async fn start_again(&mut self) -> Result<(), DownloadError> {
        self.file.set_len(0).await.map_err(|source| self.failed(source))?;
        self.file.seek(io::SeekFrom::Start(0)).await.map_err(|source| self.failed(source))?;
        (self.length, self.durable, self.hash) = (0, 0, Context::new(&SHA256));
        Ok(())
    }

    fn failed(&self, source: io::Error) -> DownloadError {
        DownloadError::File { path: self.path.clone(), source }
    }
}

/// Joins a package's path to the base URL; nothing if the result would not lie below it.
fn package_url(base_url: &str, path: &str) -> Option<Url> {
    let base = Url::parse(base_url).ok()?;
    let has_only_a_path = base.query().is_none()
        && base.fragment().is_none()
        && base.username().is_empty()
        && base.password().is_none();
    if base.scheme() != "https" || base.host_str().is_none() || !has_only_a_path {
        return None;
    }
    // What URL parsers resolve, decode or treat as the end of the path is no part of a package's path.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~');
    let relative = path.strip_prefix('/').unwrap_or(path);
    let is_safe = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(is_plain)
    };
    if !relative.split('/').all(is_safe) {
        return None;
    }
    let mut url = base.clone();
    url.set_path(&format!("{}/{relative}", base.path().trim_end_matches('/')));
    Some(url)
}

async fn hash_of_prefix(path: PathBuf, length: u64) -> io::Result<Context> {
    let hashed = tokio::task::spawn_blocking(move || {
        use io::Read;
        let mut hash = Context::new(&SHA256);
        let mut file = std::fs::File::open(path)?.take(length);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = file.read(&mut buffer)?;
            match buffer.get(..count) {
                Some([]) | None => return Ok(hash),
                Some(bytes) => hash.update(bytes),
            }
        }
    });
    hashed.await.map_err(io::Error::other)?
}

async fn remove(path: &Path) -> Result<(), DownloadError> {
    tokio::fs::remove_file(path).await.map_err(|source| DownloadError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
