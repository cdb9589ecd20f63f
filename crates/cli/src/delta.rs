//! `farrier delta`: makes, applies and looks into deltas, without a server.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use farrier_delta::{CHUNK_BYTES, ChunkRecord, DeltaReader, Header};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::output::{bytes, is_watched, print, print_json, table, thousands};

#[derive(Subcommand)]
pub(crate) enum Delta {
    /// Make the delta that rebuilds NEW from OLD. Both images are held in memory.
    Make {
        /// The image that vehicles have.
        old: PathBuf,
        /// The image that they shall get.
        new: PathBuf,
        /// Where the delta is written.
        out: PathBuf,
        /// Replace OUT if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Rebuild the new image from OLD and DELTA, chunk by chunk, and verify it before it gets its name.
    Apply {
        /// The image that the delta was made from.
        old: PathBuf,
        /// The delta.
        delta: PathBuf,
        /// Where the new image is written.
        out: PathBuf,
        /// Replace OUT if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Show what a delta is for and what its chunks cost.
    Inspect {
        /// The delta.
        delta: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Delta {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Make { old, new, out, force } => make(old, new, out, *force),
            Self::Apply { old, delta, out, force } => apply(old, delta, out, *force),
            Self::Inspect { delta, json } => inspect(delta, *json),
        }
    }
}

fn make(old: &Path, new: &Path, out: &Path, force: bool) -> anyhow::Result<()> {
    let output = Output::beside(out, force)?;
    let (old, new) = (read(old)?, read(new)?);
    let progress = progress_in("Making the delta", None);
    let delta = farrier_delta::make(&old, &new)?;
    progress.finish_and_clear();
    output.keep(|file| Ok(file.write_all(&delta)?))?;
    let (size, whole) = (delta.len() as u64, new.len() as u64);
    print(&format!("{}: {}, {} of the new image", out.display(), bytes(size), percent(size, whole)))
}

fn apply(old: &Path, delta: &Path, out: &Path, force: bool) -> anyhow::Result<()> {
    let output = Output::beside(out, force)?;
    let mut base = open(old)?;
    let mut reader = DeltaReader::open(open(delta)?).with_context(|| not_usable(delta))?;
    let whole = reader.header().new_bytes;
    let progress = progress_in("Rebuilding the image", Some(whole));
    output.keep(|file| {
        let mut file = progress.wrap_write(file);
        Ok(reader.apply(&mut base, &mut file)?)
    })?;
    progress.finish_and_clear();
    print(&format!("{}: {}, verified", out.display(), bytes(whole)))
}

fn inspect(delta: &Path, as_json: bool) -> anyhow::Result<()> {
    let file = open(delta)?;
    let size = file.metadata().with_context(|| format!("cannot read {}", delta.display()))?.len();
    let mut reader = DeltaReader::open(file).with_context(|| not_usable(delta))?;
    let header = reader.header().clone();
    let count = header.chunk_count();
    // Each chunk has a record at least: more cannot be in the file.
    if count.saturating_mul(ChunkRecord::BYTES) > size {
        bail!(
            "{}: expected {count} chunks, found a file of {}; fetch it again",
            delta.display(),
            bytes(size)
        );
    }
    let mut chunks = Vec::new();
    for chunk in 0..count {
        chunks.push(reader.record(chunk).with_context(|| not_usable(delta))?);
    }
    let expected = chunks.iter().map(ChunkRecord::total_bytes).fold(Header::BYTES, u64::saturating_add);
    if expected != size {
        let (expected, found) = (bytes(expected), bytes(size));
        bail!("{}: expected {expected}, found {found}; fetch it again", delta.display());
    }
    if as_json {
        print_json(&as_value(size, &header, &chunks))
    } else {
        print(&as_text(size, &header, &chunks))
    }
}

fn not_usable(delta: &Path) -> String {
    format!("{} cannot be used as a delta", delta.display())
}

fn as_value(size: u64, header: &Header, chunks: &[ChunkRecord]) -> Value {
    let chunk = |record: &ChunkRecord| {
        json!({
            "window_start": record.window_start, "window_bytes": record.window_bytes,
            "instructions": record.instructions, "control_bytes": record.control_bytes,
            "difference_bytes": record.difference_bytes, "literal_bytes": record.literal_bytes,
        })
    };
    json!({
        "size_bytes": size, "chunk_bytes": CHUNK_BYTES,
        "old": {"size_bytes": header.old_bytes, "sha256": HEXLOWER.encode(&header.old_sha256)},
        "new": {"size_bytes": header.new_bytes, "sha256": HEXLOWER.encode(&header.new_sha256)},
        "chunks": chunks.iter().map(chunk).collect::<Vec<_>>(),
    })
}

fn as_text(size: u64, header: &Header, chunks: &[ChunkRecord]) -> String {
    let image = |name: &str, size: u64, sha256: &[u8; 32]| {
        format!("{name}    {}, SHA-256 {}", bytes(size), HEXLOWER.encode(sha256))
    };
    let lengths = |record: &ChunkRecord| {
        [
            record.window_start,
            record.window_bytes as u64,
            record.instructions as u64,
            record.control_bytes as u64,
            record.difference_bytes as u64,
            record.literal_bytes as u64,
        ]
        .map(thousands)
    };
    let headings = ["WINDOW AT", "WINDOW", "INSTRUCTIONS", "CONTROL", "DIFFERENCES", "LITERALS"];
    [
        format!("delta  {}, {} of the new image", bytes(size), percent(size, header.new_bytes)),
        image("old", header.old_bytes, &header.old_sha256),
        image("new", header.new_bytes, &header.new_sha256),
        format!("chunks of {}, lengths in bytes:", bytes(CHUNK_BYTES as u64)),
        table(headings, chunks.iter().map(lengths).collect()),
    ]
    .join("\n")
}

/// 12.3 %; of nothing, everything is 100 %.
fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
    format!("{:.1} %", share * 100.0)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot read {}; name a file that exists", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}; name a file that exists", path.display()))
}

/// What moves while a person watches: a bar where the length is known.
fn progress_in(what: &'static str, total: Option<u64>) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let Some(total) = total else {
        let spinner = ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(std::time::Duration::from_millis(100));
        return spinner;
    };
    let style = ProgressStyle::with_template("{msg} {bar:30} {binary_bytes}/{binary_total_bytes}");
    ProgressBar::new(total)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

/// A file that gets its name only when it is whole, and then at once.
struct Output<'a> {
    path: &'a Path,
    file: NamedTempFile,
    force: bool,
}

impl<'a> Output<'a> {
    /// Finds out before the work whether the result could be kept.
    fn beside(path: &'a Path, force: bool) -> anyhow::Result<Self> {
        if !force && path.exists() {
            bail!("{} exists; choose another name, or replace it by --force", path.display());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let mut named = tempfile::Builder::new();
        // As any new file: who may read it, the user's umask says.
        named.prefix(".farrier-delta-").permissions(Permissions::from_mode(0o666));
        let file = named.tempfile_in(folder).with_context(|| {
            format!("cannot write into {}; check that the folder exists and may be written", folder.display())
        })?;
        Ok(Self { path, file, force })
    }

    fn keep(
        mut self,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let failed = || format!("{} was not written", self.path.display());
        let mut buffered = BufWriter::new(self.file.as_file_mut());
        write(&mut buffered).with_context(failed)?;
        buffered.flush().with_context(failed)?;
        drop(buffered);
        self.file.as_file().sync_all().with_context(failed)?;
        let kept =
            if self.force { self.file.persist(self.path) } else { self.file.persist_noclobber(self.path) };
        kept.map_err(|error| error.error).with_context(failed)?;
        Ok(())
    }
}
