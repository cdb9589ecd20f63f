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
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{bytes, is_watched, moment, plain, print, print_json, table, thousands};
use crate::release_key::ReleaseKey;
use crate::upload::{ImageFile, upload as upload_in_parts};

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
        /// One image: hw=HW-PT-0001,version=2.0.0,file=PATH; give it once for each hardware. With supplier=… and region=…
        /// it is for these only, and rxswin=… (several times) names the RXSWINs that it changes.
        #[arg(long = "image", required = true, value_name = "hw=…,version=…,file=PATH")]
        images: Vec<ImageArg>,
        #[command(flatten)]
        rules: RulesArgs,
        /// Sign the images with this private key (release.key.pem of `farrier pki init`). Without it the server
        /// signs with the release key of its own --pki folder, if it has one.
        #[arg(long, value_name = "FILE")]
        release_key: Option<PathBuf>,
    },
    /// List the releases.
    List,
    /// Show one release with its images and rules.
    Show {
        /// Name of the release.
        name: String,
    },
    /// Delete a release that no campaign uses.
    Delete {
        /// Name of the release.
        name: String,
    },
}

/// What belongs to a release beside its images.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct RulesArgs {
    /// How the versions are written, and so which of two is the later one. Without it they are only the same or not.
    #[arg(long, value_name = "SCHEME", value_parser = ["semver", "dotted", "date"])]
    version_scheme: Option<String>,
    /// Also bring the release to ECUs that run a later version.
    #[arg(long, requires = "version_scheme")]
    allow_downgrade: bool,
    /// The release's place in your own count.
    #[arg(long, value_name = "NUMBER")]
    release_counter: Option<u64>,
    /// Words for people.
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// The rules across ECUs: a file with a JSON list (docs/operations.md shows each kind).
    #[arg(long, value_name = "FILE.json")]
    rules: Option<PathBuf>,
}

impl RulesArgs {
    /// The keys of `POST /releases` beside its images.
    fn body(&self) -> anyhow::Result<serde_json::Map<String, Value>> {
        let rules = self.rules.as_deref().map_or(Ok(Vec::new()), read_rules)?;
        let given = [
            ("version_scheme", json!(self.version_scheme)),
            ("allow_downgrade", json!(self.allow_downgrade)),
            ("release_counter", json!(self.release_counter)),
            ("notes", json!(self.notes)),
            ("rules", json!(rules)),
        ];
        Ok(given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

fn read_rules(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read(path)
        .with_context(|| format!("cannot read the rules {}; name a file that exists", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("expected a JSON list of rules in {}, found something else", path.display()))
}

/// `hw=HW-PT-0001,version=2.0.0,file=PATH`, and what else is said of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageArg {
    pub(crate) hw_part_no: Text,
    pub(crate) version: Text,
    pub(crate) file: PathBuf,
    supplier: Option<Text>,
    region: Option<Text>,
    rxswins: Vec<Text>,
}

impl ImageArg {
    /// An image for every supplier and region.
    pub(crate) fn new(hw_part_no: Text, version: Text, file: PathBuf) -> Self {
        Self { hw_part_no, version, file, supplier: None, region: None, rxswins: Vec::new() }
    }
}

impl FromStr for ImageArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = BTreeMap::new();
        let mut rxswins = Vec::new();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or(format!("expected key=value, found {part:?}"))?;
            match key {
                "rxswin" => rxswins.push(value.parse().map_err(|error| format!("{key}: {error}"))?),
                "hw" | "version" | "file" | "supplier" | "region" => {
                    if parts.insert(key, value).is_some() {
                        return Err(format!("expected {key}= once, found it twice"));
                    }
                }
                _ => {
                    let keys = "hw=, version= and file=, perhaps supplier=, region= and rxswin=";
                    return Err(format!("expected {keys}, found {key:?}"));
                }
            }
        }
        let part = |key: &str| parts.get(key).copied().ok_or(format!("expected {key}=…, found none"));
        let parsed =
            |key: &str, value: &str| value.parse::<Text>().map_err(|error| format!("{key}: {error}"));
        let text = |key: &str| parsed(key, part(key)?);
        let optional = |key: &str| parts.get(key).map(|value| parsed(key, value)).transpose();
        let (supplier, region) = (optional("supplier")?, optional("region")?);
        let image = Self::new(text("hw")?, text("version")?, part("file")?.into());
        Ok(Self { supplier, region, rxswins, ..image })
    }
}

#[derive(Deserialize)]
struct ReleaseAnswer {
    name: String,
    #[serde(default)]
    created_at_ms: Option<i64>,
    images: Vec<ImageAnswer>,
    #[serde(default)]
    version_scheme: Option<String>,
    #[serde(default)]
    allow_downgrade: bool,
    #[serde(default)]
    release_counter: Option<u64>,
    #[serde(default)]
    notes: Option<String>,
    #[serde(default)]
    rules_in_words: Vec<String>,
}

#[derive(Deserialize)]
struct ImageAnswer {
    hw_part_no: String,
    #[serde(default)]
    supplier: Option<String>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    rxswins: Vec<String>,
    version: String,
    sha256: String,
    size_bytes: u64,
}

impl Release {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::Create { name, images, rules, release_key } => {
                let key = release_key.as_deref().map(ReleaseKey::load).transpose()?;
                create(&operator, name, images, rules, key.as_ref()).await?
            }
            Command::List => operator.list(&["releases"]).await?,
            Command::Show { name } => operator.get(&["releases", name]).await?,
            Command::Delete { name } => operator.delete(&["releases", name]).await?,
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
            Command::Delete { name } => {
                print(&format!("Deleted release {name}; its images stay on the server."))
            }
        }
    }
}

/// Brings the images one after the other, then makes the release: without all of its images there is none.
pub(crate) async fn create(
    operator: &Operator,
    name: &str,
    images: &[ImageArg],
    rules: &RulesArgs,
    key: Option<&ReleaseKey>,
) -> anyhow::Result<Value> {
    let mut body = rules.body()?;
    let mut entries = Vec::with_capacity(images.len());
    for image in images {
        let sha256 = upload(operator, &image.file, key).await?;
        entries.push(json!({
            "hw_part_no": image.hw_part_no, "supplier": image.supplier, "region": image.region,
            "version": image.version, "sha256": sha256.to_string(), "rxswins": image.rxswins,
        }));
    }
    body.extend([("name".to_owned(), json!(name)), ("images".to_owned(), json!(entries))]);
    Ok(operator.post(&["releases"], &Value::Object(body)).await?)
}

async fn upload(operator: &Operator, path: &Path, key: Option<&ReleaseKey>) -> anyhow::Result<Sha256> {
    let unreadable = || format!("cannot read the image {}; name a file that exists", path.display());
    let (digest, size_bytes) = digest(path).with_context(unreadable)?;
    let signature = key.map(|key| key.sign(&digest)).transpose()?;
    let sha256 = Sha256::from(<[u8; 32]>::try_from(digest.as_ref())?);
    let image = ImageFile { path, sha256, size_bytes, signature: signature.map(|der| BASE64.encode(&der)) };
    let progress = progress_bar(path, size_bytes);
    let uploaded = upload_in_parts(operator, &image, &progress).await;
    progress.finish_and_clear();
    uploaded.map(|()| sha256)
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
    let any = || "any".to_owned();
    let rows = release.images.iter().map(|image| {
        [
            image.hw_part_no.clone(),
            image.supplier.clone().unwrap_or_else(any),
            image.region.clone().unwrap_or_else(any),
            image.version.clone(),
            thousands(image.size_bytes),
            image.rxswins.join(" "),
            image.sha256.clone(),
        ]
    });
    let headings = ["HARDWARE", "SUPPLIER", "REGION", "VERSION", "BYTES", "RXSWINS", "SHA-256"];
    let mut text = table(headings, rows.collect());
    let facts: Vec<_> = [
        release.version_scheme.as_ref().map(|scheme| format!("Versions are written as {scheme}.")),
        release.allow_downgrade.then(|| "ECUs that run a later version get it too.".to_owned()),
        release.release_counter.map(|counter| format!("It is number {counter}.")),
        release.notes.as_ref().map(|notes| format!("Notes: {notes}")),
    ]
    .into_iter()
    .flatten()
    .chain(release.rules_in_words.iter().map(|rule| format!("Rule: {rule}.")))
    .collect();
    if !facts.is_empty() {
        text.push('\n');
    }
    for fact in facts {
        text.push('\n');
        text.push_str(&plain(&fact));
    }
    text
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
    fn an_image_may_be_for_one_supplier_and_region_and_change_rxswins() {
        let image: ImageArg =
            "hw=HW-1,version=2,file=a,supplier=S,rxswin=R1,region=KR,rxswin=R2".parse().unwrap();
        assert_eq!(image.supplier.as_ref().map(Text::as_str), Some("S"));
        assert_eq!(image.region.as_ref().map(Text::as_str), Some("KR"));
        assert_eq!(image.rxswins.iter().map(Text::as_str).collect::<Vec<_>>(), ["R1", "R2"]);
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
