//! Fetches packages over HTTPS into files named by their SHA-256, so that equal contents are fetched once.
//!
//! A package grows as `{sha256}.part`, from where it goes on after a broken connection or a restart, and
//! becomes `{sha256}.image` only after its size, hash and release signature are right; a delta is then applied
//! to the image that is installed. Nothing is ever copied. The future may be dropped at any moment, which is
//! how the deadline of the update ends a download.

mod pace;
mod part;
mod rebuild;
mod response;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use farrier_protocol::{Package, Sha256};
use farrier_vehicle_update::Plan;
use reqwest::header::{IF_RANGE, RANGE};
use reqwest::{StatusCode, Url};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::pace::{MinimumRate, Pace};
use self::part::Part;
pub(crate) use self::rebuild::RebuildError;
use self::rebuild::{Rebuild, Rebuilding};
use self::response::{Body, body_of};
use crate::backoff::{Backoff, random_u64};
use crate::config::DownloadLimits;
use crate::disk;
use crate::image_store::ImageStore;
use crate::release_signature::{MAX_SIGNATURE_BYTES, ReleaseKey};

/// How long a connection may take to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

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
    #[error(
        "expected room for {size} bytes on the disk of {path}, found less; free space or choose another state_dir"
    )]
    Space { path: PathBuf, size: u64 },
    #[error(
        "expected the installed image of {ecu_id} that the delta {pkg_id} begins with, it is not there any more"
    )]
    NoBase { pkg_id: String, ecu_id: String },
    #[error("cannot apply the delta {pkg_id}")]
    Rebuild {
        pkg_id: String,
        #[source]
        source: Box<RebuildError>,
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
    limits: DownloadLimits,
    images: ImageStore,
}

/// What is fetched.
#[derive(Debug, Clone)]
struct Source {
    url: Url,
    signature_url: Url,
    hash: Sha256,
    size: u64,
    /// What it is for: itself, or what the delta rebuilds.
    image: Content,
    /// Largest range of one request in bytes; `None` = all at once.
    range_bytes: Option<u64>,
}

/// A whole file by its content.
#[derive(Debug, Clone, Copy)]
struct Content {
    hash: Sha256,
    size: u64,
}

impl Content {
    fn image_of(package: &Package) -> Self {
        Self { hash: package.image_sha256, size: package.image_size_bytes }
    }
}

impl Downloader {
    /// Makes the folder, if it is not there, and the client.
    pub(crate) fn new(
        https: rustls::ClientConfig,
        folder: PathBuf,
        key: ReleaseKey,
        backoff: Backoff,
        limits: DownloadLimits,
        images: ImageStore,
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
        Ok(Self { client, folder, key, backoff, limits, images })
    }

    /// Where a verified image lies.
    pub(crate) fn image_path(&self, hash: &Sha256) -> PathBuf {
        self.folder.join(format!("{hash}.image"))
    }

    /// Brings every image of a plan here that is not here yet, without end as long as trying again can help.
    /// `progress` takes the bytes here of all packages.
    pub(crate) async fn fetch_all(
        &self,
        plan: &Plan,
        mut progress: impl FnMut(u64),
    ) -> Result<(), DownloadError> {
        let mut sources: Vec<Source> = Vec::new();
        for package in &plan.start.packages {
            let is_known = sources.iter().any(|known| known.hash == package.hash_sha256);
            if !is_known {
                sources.push(Source::new(plan, package)?);
            }
        }
        self.reserve(plan, &sources).await?;
        let mut done = 0_u64;
        for source in sources {
            if !self.is_here(&source.image).await && !self.is_here(&source.content()).await {
                self.fetch(&source, |bytes| progress(done.saturating_add(bytes))).await?;
            }
            done = done.saturating_add(source.size);
            progress(done);
        }
        for package in plan.start.packages.iter().filter(|package| package.delta_from.is_some()) {
            if !self.is_here(&Content::image_of(package)).await {
                self.rebuild(package).await?;
            }
        }
        Ok(())
    }

    /// Takes the disk space of everything that is not here yet, so that a full disk shows before the first byte.
    async fn reserve(&self, plan: &Plan, sources: &[Source]) -> Result<(), DownloadError> {
        let mut files = Vec::new();
        for source in sources {
            if !self.is_here(&source.image).await && !self.is_here(&source.content()).await {
                files.push((self.part_path(&source.hash), source.size));
            }
        }
        for package in plan.start.packages.iter().filter(|package| package.delta_from.is_some()) {
            if !self.is_here(&Content::image_of(package)).await {
                files.push((self.growing_path(&package.image_sha256), package.image_size_bytes));
            }
        }
        let reserved = tokio::task::spawn_blocking(move || {
            files.iter().try_for_each(|(path, size)| {
                part::reserve_at(path, *size).map_err(|source| part::file_error(path, *size, source))
            })
        });
        reserved.await.unwrap_or_else(|panic| {
            Err(DownloadError::File { path: self.folder.clone(), source: io::Error::other(panic) })
        })
    }

    /// Applies a delta that is here to the image that is installed, one chunk after the other.
    async fn rebuild(&self, package: &Package) -> Result<(), DownloadError> {
        let (pkg_id, ecu_id) = (package.pkg_id.to_string(), package.target_component.clone());
        let version = package.delta_from.as_ref().map_or("", |version| version.as_str());
        let Some(base) = self.images.base(&ecu_id, version) else {
            return Err(DownloadError::NoBase { pkg_id, ecu_id: ecu_id.to_string() });
        };
        let delta = self.image_path(&package.hash_sha256);
        let what = Rebuilding {
            delta: delta.clone(),
            base: base.path,
            base_sha256: base.sha256,
            growing: self.growing_path(&package.image_sha256),
            image: self.image_path(&package.image_sha256),
            image_sha256: package.image_sha256,
            image_size_bytes: package.image_size_bytes,
        };
        let rebuilt = rebuild_chunk_by_chunk(what).await;
        if rebuilt.as_ref().is_err_and(|error| !matches!(error, RebuildError::File { .. })) {
            // The next attempt begins with full images rather than with the same base and the same end.
            if let Err(source) = self.images.forget(std::iter::once(&ecu_id)) {
                tracing::warn!(%ecu_id, error = %source, "A base that did not fit could not be forgotten.");
            }
        }
        rebuilt.map_err(|source| DownloadError::Rebuild { pkg_id, source: Box::new(source) })?;
        // It is no longer needed; where another ECU needs the same image, that is here now.
        disk::remove(&delta).map_err(|source| DownloadError::File { path: delta, source })
    }

    /// Deletes all packages, whole or not. Blocks on the disk.
    pub(crate) fn delete_all(&self) -> io::Result<()> {
        std::fs::read_dir(&self.folder)?.try_for_each(|entry| disk::remove(&entry?.path()))
    }

    async fn is_here(&self, content: &Content) -> bool {
        let found = tokio::fs::metadata(self.image_path(&content.hash)).await;
        found.is_ok_and(|found| found.len() == content.size)
    }

    fn part_path(&self, hash: &Sha256) -> PathBuf {
        self.folder.join(format!("{hash}.part"))
    }

    /// An image that is being rebuilt.
    fn growing_path(&self, hash: &Sha256) -> PathBuf {
        self.folder.join(format!("{hash}.rebuilt"))
    }

    async fn fetch(&self, source: &Source, mut progress: impl FnMut(u64)) -> Result<(), DownloadError> {
        // A part that was garbled on the disk can only be noticed at its end; it is fetched once more.
        const TRIES: u32 = 2;
        for _ in 0..TRIES {
            let mut part = Part::open(&self.part_path(&source.hash), source.size).await?;
            if let Err(error) = self.fetch_part(source, &mut part, &mut progress).await {
                if matches!(error, DownloadError::TooLong { .. }) {
                    part.discard().await?;
                }
                return Err(error);
            }
            let digest = part.hash.clone().finish();
            if digest.as_ref() == source.hash.as_bytes() {
                let signature = self.signature(source).await?;
                if self.key.verify(&digest, &signature).is_ok() {
                    return part.finish(&self.image_path(&source.hash)).await;
                }
                part.discard().await?;
                return Err(DownloadError::Signature { url: source.signature_url.to_string() });
            }
            tracing::warn!(url = %source.url, "The package does not have the announced hash.");
            part.discard().await?;
        }
        Err(DownloadError::Hash { url: source.url.to_string(), hash: source.hash, tries: TRIES })
    }

    /// Fetches what is missing, with backoff between tries that brought nothing.
    async fn fetch_part(
        &self,
        source: &Source,
        part: &mut Part,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), DownloadError> {
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
                Err(Failed::End(error)) => return Err(error),
            }
        }
        part.sync().await
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
        let mut pace = Pace::new(&self.limits);
        let mut rate = MinimumRate::new(&self.limits, Instant::now());
        loop {
            let read = timeout_at(rate.window_ends(), response.chunk()).await;
            let bytes = match read {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => bytes::Bytes::new(),
            };
            let length = part.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if length > source.size {
                return Err(Failed::End(DownloadError::TooLong {
                    url: source.url.to_string(),
                    size: source.size,
                }));
            }
            part.append(&bytes).await.map_err(Failed::End)?;
            progress(part.length);
            if rate.is_too_slow(bytes.len(), Instant::now()) {
                return Err(Failed::Again("the server sends too slowly".to_owned()));
            }
            if let Some(go_on_at) = pace.go_on_at(bytes.len(), Instant::now()) {
                sleep_until(go_on_at).await;
            }
        }
    }

    async fn signature(&self, source: &Source) -> Result<Vec<u8>, DownloadError> {
        let mut backoff = self.backoff.clone();
        loop {
            match self.fetch_signature(source).await {
                Ok(signature) => return Ok(signature),
                Err(Failed::Again(why)) => self.wait(&mut backoff, source, &why).await,
                Err(Failed::End(error)) => return Err(error),
            }
        }
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
        // No range is that short: 0 means that the server does not care.
        let chunked = transfer.allow_chunking && transfer.max_kb_per_msg > 0;
        Ok(Self {
            url,
            signature_url,
            hash: package.hash_sha256,
            size: package.size_bytes,
            image: Content::image_of(package),
            range_bytes: chunked.then(|| transfer.max_kb_per_msg.saturating_mul(1024)),
        })
    }

    fn content(&self) -> Content {
        Content { hash: self.hash, size: self.size }
    }
}

/// The disk and the processor are busy meanwhile, away from the threads that serve sockets; between two chunks
/// it can be given up.
async fn rebuild_chunk_by_chunk(what: Rebuilding) -> Result<(), RebuildError> {
    let path = what.growing.clone();
    let panicked = move |panic| RebuildError::File { path: path.clone(), source: io::Error::other(panic) };
    let opened = tokio::task::spawn_blocking(move || Rebuild::open(what)).await;
    let mut rebuild = opened.map_err(&panicked)??;
    tracing::info!(chunks_done = rebuild.chunks_done(), "A delta is applied.");
    while !rebuild.is_whole() {
        rebuild = tokio::task::spawn_blocking(move || rebuild.next_chunk()).await.map_err(&panicked)??;
    }
    tokio::task::spawn_blocking(move || rebuild.finish()).await.map_err(&panicked)?
}

/// Joins a package's path to the base URL; nothing if the result would not lie below it.
pub(crate) fn package_url(base_url: &str, path: &str) -> Option<Url> {
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

#[cfg(test)]
mod tests;
