//! `farrier bench download`: how fast vehicles fetch a package, beside nginx that serves the same file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustls::ClientConfig;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::downloader::{Downloader, HARDWARE};
use super::nginx::Nginx;
use super::processor_time::processor_time;
use crate::light::http::{get, read_head};
use crate::light::tls::{Endpoint, connect_tls};
use crate::output::{print, print_json, table};
use crate::release::{ImageArg, RulesArgs};
use crate::release_key::ReleaseKey;
use crate::server_process::ServerProcess;
use crate::stop_signal::StopSignal;
use crate::{campaign, release};

const READ_SIZE: usize = 256 * 1024;

#[derive(Args)]
pub(crate) struct Download {
    /// How many vehicles download at a time; several figures one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    clients: Vec<u8>,

    /// Also in ranges of so many KiB, one request after the other on one connection; 0 leaves that out.
    #[arg(long, default_value_t = 64)]
    range_kib: u32,

    /// Size of the package.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    size_mib: u32,

    /// How long each figure is measured in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,

    /// How often each is measured, in turns with nginx; the middle one counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Where the temporary folder is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// A server that has the package.
struct Target {
    name: &'static str,
    address: SocketAddr,
    pids: Vec<u32>,
    /// The path of the package for each vehicle.
    paths: Vec<String>,
}

impl Target {
    fn processor_time(&self) -> anyhow::Result<Duration> {
        self.pids.iter().map(|pid| processor_time(*pid)).sum()
    }
}

/// One measurement.
#[derive(Default)]
struct Rounds {
    mb_per_second: Vec<f64>,
    cpu_ms_per_gb: Vec<f64>,
}

/// What is measured.
#[derive(Clone, Copy)]
struct Shape {
    clients: usize,
    /// Absent: the whole package with one request.
    range: Option<u64>,
}

impl Download {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut stop = StopSignal::new()?;
        tokio::select! {
            measured = self.measure() => measured,
            () = stop.received() => bail!("stopped before there was a figure"),
        }
    }

    async fn measure(&self) -> anyhow::Result<()> {
        let most = self.clients.iter().copied().max().map_or(0, usize::from);
        ensure!(
            most > 0 && !self.clients.contains(&0),
            "expected at least 1 client, found 0; correct --clients"
        );
        let server = ServerProcess::start(self.dir.as_deref(), None)?;
        let (vehicles, paths) = self.vehicles(&server, most).await?;
        let file = paths.first().and_then(|path| path.rsplit_once('/')).map(|(_, file)| format!("/{file}"));
        let file = file.context("a package without a path")?;
        let mut targets =
            vec![Target { name: "farrier", address: server.https, pids: vec![server.pid()], paths }];
        let nginx = Nginx::start(&server)?;
        if let Some(nginx) = &nginx {
            let paths = vec![file; most];
            targets.push(Target { name: "nginx", address: nginx.address, pids: nginx.pids(), paths });
        }
        let parts = (self.range_kib > 0).then(|| Some(u64::from(self.range_kib) * 1024));
        let shapes = [Some(None), parts].into_iter().flatten().flat_map(|range| {
            self.clients.iter().map(move |clients| Shape { clients: usize::from(*clients), range })
        });
        let mut results = Vec::new();
        for shape in shapes {
            let mut rounds: Vec<_> = targets.iter().map(|_| Rounds::default()).collect();
            for _ in 0..self.rounds {
                for (target, rounds) in targets.iter().zip(&mut rounds) {
                    self.round(target, &vehicles, shape, rounds).await?;
                }
            }
            results.push((shape, rounds));
        }
        self.show(&targets, nginx.as_ref(), results)
    }

    /// Vehicles that may all fetch the package, and its path for each.
    async fn vehicles(
        &self,
        server: &ServerProcess,
        count: usize,
    ) -> anyhow::Result<(Vec<Arc<ClientConfig>>, Vec<String>)> {
        let file = server.folder().join("image");
        write_random(&file, u64::from(self.size_mib) * 1024 * 1024)?;
        let mut vehicles = Vec::new();
        for number in 1..=count {
            vehicles.push(Downloader::connect(server, number).await?);
        }
        let operator = server.operator()?;
        let key = ReleaseKey::load(&server.pki.release_key())?;
        let image = ImageArg::new(HARDWARE.parse()?, "2.0.0".parse()?, file.clone());
        release::create(&operator, "bench", &[image], &RulesArgs::default(), Some(&key)).await?;
        std::fs::remove_file(&file)?;
        campaign::create(&operator, "bench", "bench", &[], []).await?;
        campaign::start(&operator, "bench").await?;
        let (mut configs, mut paths) = (Vec::new(), Vec::new());
        for vehicle in &mut vehicles {
            let start = vehicle.start_download().await?;
            let package = start.packages.first().context("a StartDownload without a package")?;
            paths.push(package.url.to_string());
            configs.push(Arc::clone(&vehicle.tls));
        }
        Ok((configs, paths))
    }

    async fn round(
        &self,
        target: &Target,
        vehicles: &[Arc<ClientConfig>],
        shape: Shape,
        rounds: &mut Rounds,
    ) -> anyhow::Result<()> {
        let size_bytes = u64::from(self.size_mib) * 1024 * 1024;
        let mut clients = Vec::new();
        for (tls, path) in vehicles.iter().zip(&target.paths).take(shape.clients) {
            let stream = connect_tls(&Endpoint::on_this_machine(target.address), tls).await?;
            let mut client = Client { stream, path: path.clone() };
            // What the first request costs besides, the handshake or a cold cache, is not measured.
            client.fetch(Some((0, 1)), &AtomicU64::new(0), None).await?;
            clients.push(client);
        }
        let (received, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let before = target.processor_time()?;
        let begun = Instant::now();
        let end = begun + Duration::from_secs(self.seconds.into());
        for mut client in clients {
            let received = Arc::clone(&received);
            tasks.spawn(async move {
                let mut at = 0;
                while Instant::now() < end {
                    let range = shape.range.map(|length| (at, length.min(size_bytes - at)));
                    client.fetch(range, &received, Some(end)).await?;
                    at = range.map_or(0, |(first, length)| (first + length) % size_bytes);
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let (elapsed, after) = (begun.elapsed(), target.processor_time()?);
        #[allow(clippy::cast_precision_loss, reason = "a count of octets, for people to read")]
        let received = received.load(Ordering::Relaxed) as f64;
        rounds.mb_per_second.push(received / 1e6 / elapsed.as_secs_f64());
        rounds.cpu_ms_per_gb.push((after - before).as_secs_f64() * 1e3 / (received / 1e9));
        Ok(())
    }

    fn show(
        &self,
        targets: &[Target],
        nginx: Option<&Nginx>,
        results: Vec<(Shape, Vec<Rounds>)>,
    ) -> anyhow::Result<()> {
        let (mut rows, mut documents) = (Vec::new(), Vec::new());
        for (shape, rounds) in results {
            let mut figures =
                rounds.into_iter().map(|rounds| (median(rounds.mb_per_second), median(rounds.cpu_ms_per_gb)));
            let (speed, cpu) = figures.next().unwrap_or_default();
            let other = figures.next();
            let what = shape
                .range
                .map_or("whole package".to_owned(), |range| format!("ranges of {} KiB", range / 1024));
            let shown = |figure: Option<f64>, unit: &str| {
                figure.map_or("-".to_owned(), |figure| format!("{figure:.0} {unit}"))
            };
            rows.push([
                what,
                shape.clients.to_string(),
                shown(Some(speed), "MB/s"),
                shown(other.map(|(speed, _)| speed), "MB/s"),
                other.map_or("-".to_owned(), |(other, _)| format!("{:.2}", speed / other)),
                shown(Some(cpu), "ms/GB"),
                shown(other.map(|(_, cpu)| cpu), "ms/GB"),
            ]);
            documents.push(json!({
                "clients": shape.clients, "range_bytes": shape.range, "farrier_mb_per_second": speed,
                "nginx_mb_per_second": other.map(|(speed, _)| speed),
                "farrier_cpu_ms_per_gb": cpu, "nginx_cpu_ms_per_gb": other.map(|(_, cpu)| cpu),
            }));
        }
        let version = nginx.map(|nginx| nginx.version.clone());
        if self.json {
            return print_json(
                &json!({ "nginx": version, "seconds": self.seconds, "rounds": self.rounds, "figures": documents }),
            );
        }
        let beside = match version {
            Some(version) => format!("beside nginx {version} with the same certificate and file"),
            None => "nginx is not installed, so that there is nothing to compare with (Debian: nginx-light)"
                .to_owned(),
        };
        let headings = ["WHAT", "CLIENTS", "FARRIER", "NGINX", "RATIO", "FARRIER CPU", "NGINX CPU"];
        print(&format!(
            "A package of {} MiB over HTTP/1.1, mutual TLS 1.3, AES-128-GCM; {beside}.\n\
             The middle of {} rounds of {} s; clients and {} share {} processors.\n\n{}",
            self.size_mib,
            self.rounds,
            self.seconds,
            targets.iter().map(|target| target.name).collect::<Vec<_>>().join(" or "),
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            table(headings, rows)
        ))
    }
}

/// One connection that fetches again and again.
struct Client {
    stream: TlsStream<TcpStream>,
    path: String,
}

impl Client {
    /// Fetches the package or a part of it, up to the end of the time; counts the octets of content.
    async fn fetch(
        &mut self,
        range: Option<(u64, u64)>,
        received: &AtomicU64,
        end: Option<Instant>,
    ) -> anyhow::Result<()> {
        get(&mut self.stream, "localhost", &self.path, range).await?;
        let mut octets = vec![0; READ_SIZE];
        let head = read_head(&mut self.stream, &mut octets).await?;
        let first = (head.filled - head.length) as u64;
        let mut left = head.content_length.saturating_sub(first);
        received.fetch_add(first, Ordering::Relaxed);
        while left > 0 {
            let read = self.stream.read(&mut octets).await?;
            ensure!(read > 0, "the server closed the connection in the middle of the package");
            received.fetch_add(read as u64, Ordering::Relaxed);
            left = left.saturating_sub(read as u64);
            if end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
        }
        Ok(())
    }
}

fn write_random(path: &std::path::Path, size_bytes: u64) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut block = vec![0; 1024 * 1024];
    for _ in 0..size_bytes / block.len() as u64 {
        aws_lc_rs::rand::fill(&mut block)
            .map_err(|_| anyhow::anyhow!("the system gave no random numbers"))?;
        file.write_all(&block)?;
    }
    Ok(())
}

/// The middle one of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
