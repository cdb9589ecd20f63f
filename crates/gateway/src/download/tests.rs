//! Against a small HTTP server that behaves and misbehaves as told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use farrier_protocol::{DownloadTransfer, StartDownload, TransferProtocol, UnixMillis};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use std::path::Path;

use super::*;
use crate::release_signature::tests::Signer;

/// What the server does with the next request for a package; then it behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trick {
    /// Sends so many bytes of the body and cuts the connection.
    CutAfter(usize),
    Status(&'static str),
    /// Sends the whole content with 200, whatever the range.
    IgnoreRange,
    /// Sends without length and without end.
    Endless,
    /// Keeps the connection open and sends nothing.
    Stall,
    /// Answers the range that begins one byte later.
    WrongRange,
}

#[derive(Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    tricks: Mutex<Vec<Trick>>,
    /// Path and range of each request.
    requests: Mutex<Vec<(String, Option<String>)>>,
}

struct Bench {
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
    downloader: Downloader,
    signer: Signer,
    base: String,
}

impl Bench {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, serving.clone()));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::new();
        let downloader = Self::downloader(folder.path(), &signer);
        Self { shared, folder, downloader, signer, base }
    }

    fn downloader(folder: &Path, signer: &Signer) -> Downloader {
        let https = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
        let images = ImageStore::new(folder.join("images"), 1_000_000_000).unwrap();
        let limits = DownloadLimits::default();
        Downloader::new(https, folder.join("packages"), signer.key(), backoff, limits, images).unwrap()
    }

    /// Offers content that is announced under the hash and size of `announced`.
    fn offer(&self, announced: &[u8], served: &[u8], range_bytes: Option<u64>) -> Source {
        let hash = Sha256::of(announced);
        let path = format!("/v1/packages/PKG/{hash}");
        let mut files = self.shared.files.lock().unwrap();
        files.insert(path.clone(), served.to_vec());
        files.insert(format!("{path}.sig"), self.signer.sign(served));
        Source {
            url: Url::parse(&format!("{}{path}", self.base)).unwrap(),
            signature_url: Url::parse(&format!("{}{path}.sig", self.base)).unwrap(),
            hash,
            size: announced.len() as u64,
            image: Content { hash, size: announced.len() as u64 },
            range_bytes,
        }
    }

    fn trick(&self, tricks: &[Trick]) {
        *self.shared.tricks.lock().unwrap() = tricks.iter().rev().copied().collect();
    }

    async fn fetch(&self, source: &Source) -> Result<(), DownloadError> {
        self.downloader.fetch(source, |_| {}).await
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|(path, _)| !path.ends_with(".sig")).map(|(_, range)| range.clone()).collect()
    }

    fn is_here(&self, source: &Source, content: &[u8]) -> bool {
        std::fs::read(self.downloader.image_path(&source.hash)).is_ok_and(|found| found == content)
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("packages")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let mut socket = BufReader::new(socket);
    loop {
        let mut head = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        if respond(&mut socket, &head, &shared).await.is_none() {
            return;
        }
    }
}

/// Nothing if the connection is to be closed.
async fn respond(socket: &mut BufReader<TcpStream>, head: &[String], shared: &Shared) -> Option<()> {
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        head.iter().find_map(|line| {
            line.split_once(": ")
                .filter(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.to_owned())
        })
    };
    let range = header("range");
    shared.requests.lock().unwrap().push((path.clone(), range.clone()));
    let content = shared.files.lock().unwrap().get(&path).cloned();
    let is_signature = path.ends_with(".sig");
    let trick = if is_signature { None } else { shared.tricks.lock().unwrap().pop() };
    let mut send = async |bytes: Vec<u8>| socket.get_mut().write_all(&bytes).await.ok();
    if let Some(Trick::Status(status)) = trick {
        return send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()).await;
    }
    let Some(content) = content else {
        return send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    };
    if trick == Some(Trick::Endless) {
        send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec()).await?;
        loop {
            send(vec![0; 1024]).await?;
        }
    }
    if trick == Some(Trick::Stall) {
        send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len()).into_bytes()).await?;
        std::future::pending::<()>().await;
    }
    let same = header("if-range").is_none_or(|tag| tag == format!("\"{}\"", Sha256::of(&content)));
    let bounds = range.filter(|_| trick != Some(Trick::IgnoreRange) && same).map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let shift = usize::from(trick == Some(Trick::WrongRange));
        (first + shift, last.parse::<usize>().unwrap_or(content.len() - 1))
    });
    let (status, body) = match bounds {
        Some((first, last)) => (
            format!("206 Partial Content\r\ncontent-range: bytes {first}-{last}/{}", content.len()),
            content[first..=last].to_vec(),
        ),
        None => ("200 OK".to_owned(), content),
    };
    send(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes()).await?;
    if let Some(Trick::CutAfter(count)) = trick {
        send(body[..count].to_vec()).await?;
        // What was sent must arrive before the connection breaks.
        let _ = socket.get_mut().shutdown().await;
        let _ = socket.read(&mut [0]).await;
        return None;
    }
    send(body).await
}

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

#[tokio::test]
async fn a_package_arrives_range_by_range_and_verified() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, Some(16));
    let mut seen = Vec::new();
    bench.downloader.fetch(&source, |bytes| seen.push(bytes)).await.unwrap();
    assert!(bench.is_here(&source, CONTENT));
    let ranges: Vec<_> = bench.ranges().into_iter().flatten().collect();
    assert_eq!(ranges, ["bytes=0-15", "bytes=16-31", "bytes=32-35"]);
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&36)));
    assert_eq!(bench.files().len(), 1, "no part is left");
}

#[tokio::test]
async fn without_chunking_a_package_arrives_in_one_request() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    bench.fetch(&source).await.unwrap();
    assert_eq!(bench.ranges(), [None]);
}

#[tokio::test]
async fn a_broken_connection_goes_on_after_the_last_byte() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    bench.trick(&[Trick::CutAfter(10), Trick::CutAfter(5)]);
    bench.fetch(&source).await.unwrap();
    assert!(bench.is_here(&source, CONTENT));
    assert_eq!(bench.ranges(), [None, Some("bytes=10-".to_owned()), Some("bytes=15-".to_owned())]);
}

#[tokio::test]
async fn after_a_restart_the_download_goes_on_from_the_disk() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, Some(8));
    let part = bench.folder.path().join("packages").join(format!("{}.part", source.hash));
    // Two bytes more than were durable when the power went.
    std::fs::write(&part, [&CONTENT[..20], &[0, 0]].concat()).unwrap();
    std::fs::write(part.with_extension("durable"), "20").unwrap();
    let restarted = Bench::downloader(bench.folder.path(), &bench.signer);
    restarted.fetch(&source, |_| {}).await.unwrap();
    assert!(bench.is_here(&source, CONTENT));
    assert_eq!(bench.ranges()[0].as_deref(), Some("bytes=20-27"));
}

#[tokio::test]
async fn a_file_is_one_and_the_same_from_its_first_byte_to_the_image_store() {
    use std::os::unix::fs::MetadataExt;

    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, Some(8));
    let file = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    let part = bench.downloader.part_path(&source.hash);
    let mut growing = Vec::new();
    bench.downloader.fetch(&source, |_| growing.push(file(part.clone()))).await.unwrap();
    let image = bench.downloader.image_path(&source.hash);
    growing.push(file(image.clone()));
    let plan = plan("https://localhost", &[CONTENT]);
    bench.downloader.images.keep(&plan, UnixMillis(1), |_| image.clone()).unwrap();
    growing.push(file(bench.folder.path().join("images").join(image.file_name().unwrap())));
    growing.dedup();
    assert_eq!(growing.len(), 1, "a copy would be another file");
}

#[tokio::test]
async fn a_garbled_part_is_fetched_again_from_the_beginning() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    let part = bench.folder.path().join("packages").join(format!("{}.part", source.hash));
    for garbled in [&[0_u8; 20][..], &[0; 36], &[0; 100]] {
        std::fs::write(&part, garbled).unwrap();
        std::fs::write(part.with_extension("durable"), garbled.len().to_string()).unwrap();
        bench.fetch(&source).await.unwrap();
        assert!(bench.is_here(&source, CONTENT), "{} bytes", garbled.len());
        bench.downloader.delete_all().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_sends_all_instead_of_the_rest_is_taken_at_its_word() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    bench.trick(&[Trick::CutAfter(10), Trick::IgnoreRange]);
    bench.fetch(&source).await.unwrap();
    assert!(bench.is_here(&source, CONTENT));
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_not_appended() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, Some(16));
    bench.trick(&[Trick::WrongRange, Trick::Status("416 Range Not Satisfiable"), Trick::Status("503 Busy")]);
    bench.fetch(&source).await.unwrap();
    assert!(bench.is_here(&source, CONTENT));
}

#[tokio::test]
async fn content_that_changed_behind_its_name_is_refused_by_its_hash() {
    let bench = Bench::new().await;
    let other: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let source = bench.offer(CONTENT, &other, Some(16));
    let error = bench.fetch(&source).await.unwrap_err();
    assert!(matches!(error, DownloadError::Hash { .. }), "{error}");
    assert_eq!(bench.files(), [""; 0], "nothing of it is kept");
    // If-Range named the announced content, so each request brought the whole of the other one.
    assert_eq!(bench.ranges().len(), 2);
}

#[tokio::test]
async fn a_body_never_goes_beyond_the_announced_size() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    bench.trick(&[Trick::Endless]);
    let error = bench.fetch(&source).await.unwrap_err();
    assert!(matches!(error, DownloadError::TooLong { size: 36, .. }), "{error}");

    let longer = [CONTENT, b"!"].concat();
    let source = bench.offer(CONTENT, &longer, None);
    let error = bench.fetch(&source).await.unwrap_err();
    assert!(matches!(error, DownloadError::TooLong { .. }), "{error}");
    assert_eq!(bench.files(), [""; 0]);
}

#[tokio::test]
async fn what_the_server_refuses_for_good_ends_the_download() {
    for status in ["403 Forbidden", "404 Not Found", "410 Gone", "302 Found"] {
        let bench = Bench::new().await;
        let source = bench.offer(CONTENT, CONTENT, None);
        bench.trick(&[Trick::Status(status)]);
        let error = bench.fetch(&source).await.unwrap_err();
        assert!(error.to_string().contains(status), "{error}");
        assert_eq!(bench.ranges().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_package_without_the_signature_of_the_release_key_is_not_kept() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    let signature_path = source.signature_url.path().to_owned();
    let by_another = Signer::new().sign(CONTENT);
    bench.shared.files.lock().unwrap().insert(signature_path.clone(), by_another);
    let error = bench.fetch(&source).await.unwrap_err();
    assert!(matches!(error, DownloadError::Signature { .. }), "{error}");
    assert_eq!(bench.files(), [""; 0]);

    bench.shared.files.lock().unwrap().insert(signature_path.clone(), vec![0; 10_000]);
    assert!(matches!(bench.fetch(&source).await, Err(DownloadError::Signature { .. })));
    bench.shared.files.lock().unwrap().remove(&signature_path);
    assert!(matches!(bench.fetch(&source).await, Err(DownloadError::Status { .. })));
    assert!(!bench.is_here(&source, CONTENT));
}

fn plan(base_url: &str, contents: &[&[u8]]) -> Plan {
    let packages = contents.iter().enumerate().map(|(position, content)| {
        let hash = Sha256::of(content);
        Package {
            pkg_id: format!("PKG-{position}").parse().unwrap(),
            target_component: format!("ecu_{position}").parse().unwrap(),
            target_version: "2.0".parse().unwrap(),
            delta_from: None,
            size_bytes: content.len() as u64,
            hash_sha256: hash,
            url: format!("/v1/packages/PKG-{position}/{hash}").parse().unwrap(),
            image_sha256: hash,
            image_size_bytes: content.len() as u64,
            hw_part_no: "HW-1".parse().unwrap(),
            install_order: 1,
        }
    });
    let start = StartDownload {
        correlation_id: "VMG_1".parse().unwrap(),
        expires_at_ms: UnixMillis(i64::MAX),
        deadline_s: None,
        update_id: "UPD_1".parse().unwrap(),
        campaign_id: None,
        failure_report: true,
        transfer: DownloadTransfer {
            protocol: TransferProtocol::Https,
            allow_chunking: true,
            max_kb_per_msg: 64,
            base_url: base_url.parse().unwrap(),
        },
        packages: packages.collect(),
        director_targets_version: None,
    };
    Plan::new("SRV_1".parse().unwrap(), UnixMillis(0), start).unwrap()
}

#[tokio::test]
async fn packages_that_are_here_already_are_not_fetched_again() {
    let bench = Bench::new().await;
    let source = bench.offer(CONTENT, CONTENT, None);
    bench.fetch(&source).await.unwrap();
    let mut seen = 0;
    // The port of this base URL is closed: any request would be tried again and again.
    let plan = plan("https://127.0.0.1:1", &[CONTENT, CONTENT]);
    bench.downloader.fetch_all(&plan, |bytes| seen = bytes).await.unwrap();
    assert_eq!(seen, 36);
}

#[test]
fn a_package_lies_below_its_base_url_on_the_same_host() {
    let join = |base: &str, path: &str| package_url(base, path).map(|url| url.to_string());
    assert_eq!(join("https://host:8443", "/v1/p/x").as_deref(), Some("https://host:8443/v1/p/x"));
    assert_eq!(join("https://host/ota/", "v1/p").as_deref(), Some("https://host/ota/v1/p"));
    assert_eq!(join("https://host/ota", "/v1/p").as_deref(), Some("https://host/ota/v1/p"));
    for path in [
        "",
        "/",
        "//evil/x",
        "https://evil/x",
        "../x",
        "/v1/../../x",
        "/v1/./x",
        "/v1//x",
        "/v1/%2e%2e/x",
        "/v1\\..\\x",
        "/v1/x?y",
        "/v1/x#y",
        "@evil/x",
        "/v1/x/",
    ] {
        assert_eq!(join("https://host", path), None, "{path}");
    }
    for base in ["http://host", "https://user@host", "https://host?x", "https://host#x", "host", "file:///x"]
    {
        assert_eq!(join(base, "/v1/x"), None, "{base}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_asked_anew() {
    let mut bench = Bench::new().await;
    bench.downloader.limits.min_rate_window_s = 1;
    let source = bench.offer(CONTENT, CONTENT, None);
    bench.trick(&[Trick::Stall]);
    bench.fetch(&source).await.unwrap();
    assert!(bench.is_here(&source, CONTENT));
    assert_eq!(bench.ranges().len(), 2);
}

#[tokio::test]
async fn a_disk_that_is_too_small_shows_before_anything_is_asked_for() {
    let bench = Bench::new().await;
    let mut plan = plan("https://127.0.0.1:1", &[CONTENT]);
    let package = &mut plan.start.packages[0];
    (package.size_bytes, package.image_size_bytes) = (8 << 40, 8 << 40);
    let error = bench.downloader.fetch_all(&plan, |_| {}).await.unwrap_err();
    assert!(matches!(error, DownloadError::Space { .. }), "{error}");
}

#[tokio::test]
async fn the_space_of_a_package_is_taken_before_its_bytes_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.part");
    part::reserve_at(&path, 1_000_000).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(found.len(), 0, "its length still says how much came");
    assert!(std::os::unix::fs::MetadataExt::blocks(&found) * 512 >= 1_000_000);
}

#[tokio::test]
async fn a_range_length_of_zero_means_no_ranges() {
    let mut plan = plan("https://localhost", &[CONTENT]);
    plan.start.transfer.max_kb_per_msg = 0;
    assert_eq!(Source::new(&plan, &plan.start.packages[0]).unwrap().range_bytes, None);
    plan.start.transfer.max_kb_per_msg = 2;
    assert_eq!(Source::new(&plan, &plan.start.packages[0]).unwrap().range_bytes, Some(2_048));
}

/// An image of two chunks that shares most with its base.
fn images() -> (Vec<u8>, Vec<u8>) {
    let base: Vec<u8> = (0..60_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut image = base.clone();
    image.resize(farrier_delta::CHUNK_BYTES, 7);
    image.extend_from_slice(&base[1_000..50_000]);
    (base, image)
}

/// A bench whose first ECU was updated to `base`, and the package of a delta from `from` to `image` that is here.
async fn with_delta(base: &[u8], delta: &[u8], image: &[u8]) -> (Bench, Package) {
    let bench = Bench::new().await;
    let installed = plan("https://localhost", &[base]);
    let downloader = &bench.downloader;
    std::fs::write(downloader.image_path(&Sha256::of(base)), base).unwrap();
    downloader.images.keep(&installed, UnixMillis(1), |hash| downloader.image_path(hash)).unwrap();
    assert_eq!(bench.files(), [""; 0], "an installed image is moved, not copied");
    let mut package = installed.start.packages[0].clone();
    package.delta_from = Some("2.0".parse().unwrap());
    (package.hash_sha256, package.size_bytes) = (Sha256::of(delta), delta.len() as u64);
    (package.image_sha256, package.image_size_bytes) = (Sha256::of(image), image.len() as u64);
    std::fs::write(downloader.image_path(&package.hash_sha256), delta).unwrap();
    (bench, package)
}

fn rebuilding(bench: &Bench, package: &Package) -> Rebuilding {
    let base = bench.downloader.images.base(&package.target_component, "2.0").unwrap();
    Rebuilding {
        delta: bench.downloader.image_path(&package.hash_sha256),
        base: base.path,
        base_sha256: base.sha256,
        growing: bench.downloader.growing_path(&package.image_sha256),
        image: bench.downloader.image_path(&package.image_sha256),
        image_sha256: package.image_sha256,
        image_size_bytes: package.image_size_bytes,
    }
}

#[tokio::test]
async fn a_delta_is_applied_and_goes_on_at_a_chunk_after_a_restart() {
    let (base, image) = images();
    let delta = farrier_delta::make(&base, &image).unwrap();
    let (bench, package) = with_delta(&base, &delta, &image).await;
    let what = rebuilding(&bench, &package);

    let begun = Rebuild::open(what.clone()).unwrap().next_chunk().unwrap();
    assert!(!begun.is_whole());
    drop(begun);
    // A power cut can leave the beginning of the next chunk behind.
    let mut growing = std::fs::read(&what.growing).unwrap();
    growing.extend_from_slice(&[9; 500]);
    std::fs::write(&what.growing, &growing).unwrap();
    assert_eq!(Rebuild::open(what.clone()).unwrap().chunks_done(), 1);
    // Or garbage where the first one was.
    growing[5] ^= 1;
    std::fs::write(&what.growing, &growing).unwrap();
    assert_eq!(Rebuild::open(what.clone()).unwrap().chunks_done(), 0);

    bench.downloader.rebuild(&package).await.unwrap();
    assert!(std::fs::read(&what.image).unwrap() == image);
    assert_eq!(bench.files().len(), 1, "neither the delta nor a part is left");
}

#[tokio::test]
async fn a_delta_that_is_damaged_or_for_another_base_is_refused_and_not_tried_again() {
    let (base, image) = images();
    let image = &image[..base.len()];
    let delta = farrier_delta::make(&base, image).unwrap();
    let other_base: Vec<u8> = base.iter().rev().copied().collect();
    let mut damaged = delta.clone();
    // The hash of the first chunk.
    damaged[140] ^= 1;
    let mut other_end = delta.clone();
    other_end[60] ^= 1;
    for (base, delta) in [(&base, &damaged), (&other_base, &delta), (&base, &other_end)] {
        let (bench, package) = with_delta(base, delta, image).await;
        let what = rebuilding(&bench, &package);
        let error = bench.downloader.rebuild(&package).await.unwrap_err();
        assert!(matches!(error, DownloadError::Rebuild { .. }), "{error}");
        assert!(!what.image.exists());
        assert_eq!(bench.downloader.images.base(&package.target_component, "2.0"), None);
        let error = bench.downloader.rebuild(&package).await.unwrap_err();
        assert!(matches!(error, DownloadError::NoBase { .. }), "{error}");
    }
}
