//! `farrier release`: brings images to the server and names them as one release.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use clap::{Args, Subcommand};
use data_encoding::BASE64;
use farrier_protocol::{Sha256, Text};
use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{bytes, is_watched, moment, plain, print, print_json, table, thousands};
use crate::release_key::ReleaseKey;

#[derive(Args)]
pub(crate) struct Release {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring images to the server and name them as one release.
    Create {
        /// Name of the release.
        name: String,
        /// One image: hw=HW-PT-0001,version=2.0.0,file=PATH; give it once for each hardware.
        #[arg(long = "image", required = true, value_name = "hw=…,version=…,file=PATH")]
        images: Vec<ImageArg>,
        /// Sign the images with this private key (release.key.pem of `farrier pki init`). Without it the server
        /// signs with the release key of its own --pki folder, if it has one.
        #[arg(long, value_name = "FILE")]
        release_key: Option<PathBuf>,
    },
    /// List the releases.
    List,
    /// Show one release with its images.
    Show {
        /// Name of the release.
        name: String,
    },
}

/// `hw=HW-PT-0001,version=2.0.0,file=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageArg {
    pub(crate) hw_part_no: Text,
    pub(crate) version: Text,
    pub(crate) file: PathBuf,
}

impl FromStr for ImageArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = BTreeMap::new();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or(format!("expected key=value, found {part:?}"))?;
            if !["hw", "version", "file"].contains(&key) {
                return Err(format!("expected hw=, version= and file=, found {key:?}"));
            }
            if parts.insert(key, value).is_some() {
                return Err(format!("expected {key}= once, found it twice"));
            }
        }
        let part = |key: &str| parts.get(key).copied().ok_or(format!("expected {key}=…, found none"));
        let text = |key: &str| part(key)?.parse::<Text>().map_err(|error| format!("{key}: {error}"));
        Ok(Self { hw_part_no: text("hw")?, version: text("version")?, file: part("file")?.into() })
    }
}

#[derive(Deserialize)]
struct ReleaseAnswer {
    name: String,
    #[serde(default)]
    created_at_ms: Option<i64>,
    images: Vec<ImageAnswer>,
}

#[derive(Deserialize)]
struct ImageAnswer {
    hw_part_no: String,
    version: String,
    sha256: String,
    size_bytes: u64,
}

impl Release {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::Create { name, images, release_key } => {
                let key = release_key.as_deref().map(ReleaseKey::load).transpose()?;
                create(&operator, name, images, key.as_ref()).await?
            }
            Command::List => operator.list(&["releases"]).await?,
            Command::Show { name } => operator.get(&["releases", name]).await?,
        };
        if self.operator.json {
            return print_json(&answer);
        }
        match &self.command {
            Command::List => print(&listed(&read::<Vec<ReleaseAnswer>>(&answer)?)),
            Command::Create { .. } => {
                let release: ReleaseAnswer = read(&answer)?;
                let name = plain(&release.name);
                print(&format!(
                    "Created release {name}.\n\n{}\n\nNext: farrier campaign create CAMPAIGN --release {name}",
                    shown(&release)
                ))
            }
            Command::Show { .. } => print(&shown(&read(&answer)?)),
        }
    }
}

/// Brings the images one after the other, then makes the release: without all of its images there is none.
pub(crate) async fn create(
    operator: &Operator,
    name: &str,
    images: &[ImageArg],
    key: Option<&ReleaseKey>,
) -> anyhow::Result<serde_json::Value> {
    let mut entries = Vec::with_capacity(images.len());
    for image in images {
        let sha256 = upload(operator, &image.file, key).await?;
        entries.push(json!({
            "hw_part_no": image.hw_part_no, "version": image.version, "sha256": sha256.to_string(),
        }));
    }
    Ok(operator.post(&["releases"], &json!({ "name": name, "images": entries })).await?)
}

async fn upload(operator: &Operator, path: &Path, key: Option<&ReleaseKey>) -> anyhow::Result<Sha256> {
    let unreadable = || format!("cannot read the image {}; name a file that exists", path.display());
    let (digest, size_bytes) = digest(path).with_context(unreadable)?;
    let signature = key.map(|key| key.sign(&digest)).transpose()?;
    let sha256 = Sha256::from(<[u8; 32]>::try_from(digest.as_ref())?);
    let file = tokio::fs::File::open(path).await.with_context(unreadable)?;
    let progress = progress_bar(path, size_bytes);
    let shown = progress.clone();
    let stream = ReaderStream::new(file).inspect_ok(move |read| shown.inc(read.len() as u64));
    let body = reqwest::Body::wrap_stream(stream);
    operator
        .put_image(&sha256.to_string(), size_bytes, signature.map(|der| BASE64.encode(&der)), body)
        .await?;
    progress.finish_and_clear();
    Ok(sha256)
}

/// SHA-256 and length of a file, read once without holding it in memory.
fn digest(path: &Path) -> std::io::Result<(Digest, u64)> {
    let mut file = std::fs::File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        context.update(bytes);
        size_bytes += u64::try_from(read).unwrap_or(u64::MAX);
    }
    Ok((context.finish(), size_bytes))
}

/// Shown to people who watch, hidden from logs and pipes.
fn progress_bar(path: &Path, size_bytes: u64) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg}  [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ProgressBar::new(size_bytes).with_style(style.progress_chars("=> ")).with_message(plain(&name))
}

fn shown(release: &ReleaseAnswer) -> String {
    let rows = release.images.iter().map(|image| {
        [image.hw_part_no.clone(), image.version.clone(), thousands(image.size_bytes), image.sha256.clone()]
    });
    table(["HARDWARE", "VERSION", "BYTES", "SHA-256"], rows.collect())
}

fn listed(releases: &[ReleaseAnswer]) -> String {
    if releases.is_empty() {
        return "No releases yet. Make one: farrier release create NAME --image hw=…,version=…,file=PATH"
            .to_owned();
    }
    let rows = releases.iter().map(|release| {
        let total = release.images.iter().map(|image| image.size_bytes).sum();
        [
            release.name.clone(),
            thousands(release.images.len() as u64),
            bytes(total),
            moment(release.created_at_ms),
        ]
    });
    table(["RELEASE", "IMAGES", "SIZE", "CREATED"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_hardware_version_and_file_in_any_order() {
        let image: ImageArg = "version=2.0.0,file=/a/b.bin,hw=HW-1".parse().unwrap();
        assert_eq!(image.hw_part_no.as_str(), "HW-1");
        assert_eq!(image.version.as_str(), "2.0.0");
        assert_eq!(image.file, Path::new("/a/b.bin"));
    }

    #[test]
    fn an_image_that_is_not_whole_is_refused_with_what_is_missing() {
        for (text, says) in [
            ("hw=HW-1,version=2", "file="),
            ("hw=HW-1,version=2,file=a,hw=x", "twice"),
            ("hw=HW-1,size=2", "\"size\""),
            ("HW-1", "key=value"),
            ("hw=,version=2,file=a", "hw:"),
        ] {
            let error = text.parse::<ImageArg>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_digest_of_a_file_is_that_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; 3_000_000];
        std::fs::write(file.path(), &content).unwrap();
        let (digest, size_bytes) = digest(file.path()).unwrap();
        assert_eq!(digest.as_ref(), Sha256::of(&content).as_bytes());
        assert_eq!(size_bytes, 3_000_000);
    }
}
