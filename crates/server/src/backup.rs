//! Backups of a server's data folder, also while the server runs, and looking whether a store is whole.
//! A backup is a folder: the store as it was at one instant, the images that it names, what else lies in the data folder, and
//! `backup.json`, which lists every file with its digest.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use farrier_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::store::{PostgresAddress, StoreAddress, StoreError, images, verify};

pub use crate::store::verify::Check;

/// The SQLite file within a data folder and a backup.
const STORE: &str = "farrier.db";
/// The images' folder within a data folder and a backup.
const IMAGES: &str = "images";
/// The authority's folder within a backup.
const PKI: &str = "pki";
/// What says what a backup holds.
const MANIFEST: &str = "backup.json";
/// What of a data folder is of one run or one place, and nothing to keep.
const LEFT_OUT: [&str; 3] = ["lock", "listening.json", "node"];
/// The form of a backup that this version writes and reads.
const FORMAT: u32 = 1;
/// Octets that are copied at a time.
const CHUNK: usize = 1 << 20;

/// Why a backup was not made or not restored. Then nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something already.
    #[error("expected {path} not to exist, or to be an empty folder; name another one")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("expected {expected} in {path}, found none; correct the path")]
    Absent {
        /// What.
        expected: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A file that belongs to the backup is missing or damaged.
    #[error(
        "{path} is not as it was when the backup was made: expected SHA-256 {expected}, found {found}; use another backup"
    )]
    Changed {
        /// Which file.
        path: PathBuf,
        /// Its digest then.
        expected: String,
        /// Its digest now.
        found: String,
    },
    /// The manifest is of another form.
    #[error(
        "{path} cannot be read: expected the list of a backup of form {FORMAT}, found {found}; use the version that wrote it"
    )]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: String,
    },
    /// The store that was restored is not whole.
    #[error("the store in {path} is not whole: {found}; use another backup")]
    NotWhole {
        /// The backup.
        path: PathBuf,
        /// The first problem.
        found: String,
    },
    /// The keys of the authority have no place.
    #[error(
        "expected a folder for the authority's keys that are in the backup, found none; name it by --pki"
    )]
    NoPlaceForPki,
    /// A file could not be read or written.
    #[error(
        "{path} could not be read or written; check that it is there, that there is room, and that this user may"
    )]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What `backup.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    form: u32,
    made_at_ms: i64,
    /// `sqlite`, or the PostgreSQL database, which is dumped by its own means.
    store: String,
    files: Vec<BackedUpFile>,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackedUpFile {
    path: PathBuf,
    size_bytes: u64,
    sha256: String,
}

/// What was backed up or restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// All files.
    pub files: u64,
    /// Images and deltas among them.
    pub images: u64,
    /// Octets of all of them.
    pub bytes: u64,
    /// Whether the store itself is in the backup: a PostgreSQL database is not.
    pub has_store: bool,
}

/// What belongs to one server.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// Its data folder.
    pub data: PathBuf,
    /// Its PostgreSQL database, where it has one.
    pub store: Option<PostgresAddress>,
    /// Its images, where they are not in the data folder.
    pub images: Option<PathBuf>,
    /// The authority's folder, where its keys shall be in the backup.
    pub pki: Option<PathBuf>,
}

impl ServerFiles {
    fn store_address(&self) -> StoreAddress {
        match &self.store {
            Some(address) => StoreAddress::Postgres(Box::new(address.clone())),
            None => StoreAddress::Sqlite(self.data.join(STORE)),
        }
    }

    fn images(&self) -> PathBuf {
        self.images.clone().unwrap_or_else(|| self.data.join(IMAGES))
    }

    fn check_store(&self) -> Result<(), BackupError> {
        if self.store.is_none() && !self.data.join(STORE).is_file() {
            return Err(BackupError::Absent { expected: "a server's farrier.db", path: self.data.clone() });
        }
        Ok(())
    }
}

/// Backs a server up, running or not. `progress` is told of each file before it is copied.
///
/// # Errors
/// Names the file; then there is no backup.
pub fn back_up(
    server: &ServerFiles,
    out: &Path,
    now: UnixMillis,
    mut progress: impl FnMut(&Path),
) -> Result<Summary, BackupError> {
    server.check_store()?;
    let unfinished = Unfinished::beside(out)?;
    let mut copies = Copies { to: unfinished.path.clone(), files: Vec::new() };
    // Before the store: the heads of the audit log that are noted beside it are then in it.
    for name in other_files(&server.data)? {
        progress(&name);
        copies.copy(&server.data.join(&name), &name)?;
    }
    if server.store.is_none() {
        progress(Path::new(STORE));
        crate::store::snapshot(&server.data.join(STORE), &unfinished.path.join(STORE))?;
        copies.note(Path::new(STORE))?;
    }
    let snapshot = match &server.store {
        Some(_) => server.store_address(),
        None => StoreAddress::Sqlite(unfinished.path.join(STORE)),
    };
    // Images are only ever added, and before they are named: all that the store names are there.
    let named = crate::store::read_once(&snapshot, images)?;
    for sha256 in named.keys() {
        let name = Path::new(IMAGES).join(sha256.to_string());
        progress(&name);
        let digest = copies.copy(&server.images().join(sha256.to_string()), &name)?;
        if digest != sha256.to_string() {
            return Err(BackupError::Changed {
                path: server.images().join(sha256.to_string()),
                expected: sha256.to_string(),
                found: digest,
            });
        }
    }
    if let Some(pki) = &server.pki {
        for name in files_below(pki)? {
            let kept = Path::new(PKI).join(&name);
            progress(&kept);
            copies.copy(&pki.join(&name), &kept)?;
        }
    }
    let store = server.store.as_ref().map_or("sqlite", |address| address.shown()).to_owned();
    let summary = summary(&copies.files);
    let manifest = Manifest { form: FORMAT, made_at_ms: now.0, store, files: copies.files };
    write_manifest(&unfinished.path, &manifest)?;
    unfinished.finish(out)?;
    Ok(summary)
}

/// Makes a data folder from a backup, after every file of it was checked. `pki` is where the authority's keys go.
///
/// # Errors
/// Names the file; then nothing is restored.
pub fn restore(
    backup: &Path,
    data: &Path,
    pki: Option<&Path>,
    mut progress: impl FnMut(&Path),
) -> Result<Summary, BackupError> {
    let manifest = read_manifest(backup)?;
    let has_pki = manifest.files.iter().any(|file| file.path.starts_with(PKI));
    let pki = match (has_pki, pki) {
        (true, None) => return Err(BackupError::NoPlaceForPki),
        (true, Some(pki)) => Some((Unfinished::beside(pki)?, pki)),
        (false, _) => None,
    };
    let unfinished = Unfinished::beside(data)?;
    for file in &manifest.files {
        progress(&file.path);
        let (to, name) = match (file.path.strip_prefix(PKI), &pki) {
            (Ok(name), Some((pki, _))) => (pki.path.clone(), name),
            (Ok(_) | Err(_), _) => (unfinished.path.clone(), file.path.as_path()),
        };
        let found = Copies { to, files: Vec::new() }.copy(&backup.join(&file.path), name)?;
        if found != file.sha256 {
            let (path, expected) = (backup.join(&file.path), file.sha256.clone());
            return Err(BackupError::Changed { path, expected, found });
        }
    }
    let restored = ServerFiles { data: unfinished.path.clone(), store: None, images: None, pki: None };
    if restored.data.join(STORE).is_file() {
        let checks = look(&restored, |_| {})?;
        // An older schema is no harm: the server brings it forward when it starts.
        let wrong = checks.iter().filter(|check| check.name != "schema").find(|check| check.wrong > 0);
        if let Some(check) = wrong {
            let found = check.problems.first().cloned().unwrap_or_default();
            return Err(BackupError::NotWhole { path: backup.to_owned(), found });
        }
    }
    if let Some((unfinished, pki)) = pki {
        unfinished.finish(pki)?;
    }
    unfinished.finish(data)?;
    Ok(summary(&manifest.files))
}

/// Looks whether a store is whole, of a server that runs or not, or in a backup: the file, references, schema, whether
/// all that is written can be read, and the images. `progress` is told of each image before it is read.
///
/// # Errors
/// The store cannot be opened or read at all.
pub fn look(server: &ServerFiles, mut progress: impl FnMut(&Path)) -> Result<Vec<Check>, BackupError> {
    server.check_store()?;
    let mut checks = crate::store::read_once(&server.store_address(), verify::all)?;
    if checks.iter().any(|check| check.name == "schema" && check.wrong > 0) {
        return Ok(checks);
    }
    let mut check = Check::new("images");
    for (sha256, size_bytes) in crate::store::read_once(&server.store_address(), images)? {
        let path = server.images().join(sha256.to_string());
        progress(&path);
        check.count(match digest_of(&path) {
            Ok((found, size)) if found == sha256.to_string() && size == size_bytes => None,
            Ok((found, size)) => Some(format!(
                "{}: expected {size_bytes} octets with SHA-256 {sha256}, found {size} with {found}; upload it again",
                path.display()
            )),
            Err(error) => Some(format!("{}: {error}; upload it again", path.display())),
        });
    }
    checks.push(check);
    Ok(checks)
}

fn summary(files: &[BackedUpFile]) -> Summary {
    Summary {
        files: files.len() as u64,
        images: files.iter().filter(|file| file.path.starts_with(IMAGES)).count() as u64,
        bytes: files.iter().map(|file| file.size_bytes).sum(),
        has_store: files.iter().any(|file| file.path == Path::new(STORE)),
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

/// A folder that is being filled, and removed unless it gets its name.
struct Unfinished {
    path: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    fn beside(wanted: &Path) -> Result<Self, BackupError> {
        let is_free = match fs::read_dir(wanted) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !is_free {
            return Err(BackupError::Exists { path: wanted.to_owned() });
        }
        let mut name = wanted.file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        let path = wanted.with_file_name(name);
        // Of an attempt that was cut off.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_at(&path)(error)),
            Ok(()) | Err(_) => {}
        }
        make_folder(&path)?;
        Ok(Self { path, is_finished: false })
    }

    fn finish(mut self, wanted: &Path) -> Result<(), BackupError> {
        fs::rename(&self.path, wanted).map_err(io_at(wanted))?;
        self.is_finished = true;
        let parent = wanted.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(io_at(parent))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed now is removed by the next attempt.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// For this user alone: there are secrets in it.
fn make_folder(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_at(path))
}

/// Files that were copied to a folder, durably.
struct Copies {
    to: PathBuf,
    files: Vec<BackedUpFile>,
}

impl Copies {
    /// Copies a file, readable by this user alone; gives its digest.
    fn copy(&mut self, from: &Path, name: &Path) -> Result<String, BackupError> {
        let to = self.to.join(name);
        if let Some(parent) = to.parent() {
            make_folder(parent)?;
        }
        let mut source = File::open(from).map_err(io_at(from))?;
        let mut copy =
            File::options().create_new(true).write(true).mode(0o600).open(&to).map_err(io_at(&to))?;
        let (digest, size_bytes) =
            read_through(&mut source, |octets| copy.write_all(octets)).map_err(io_at(from))?;
        copy.sync_all().map_err(io_at(&to))?;
        self.files.push(BackedUpFile { path: name.to_owned(), size_bytes, sha256: digest.clone() });
        Ok(digest)
    }

    /// Notes a file that is in the folder already, and makes it durable.
    fn note(&mut self, name: &Path) -> Result<(), BackupError> {
        let path = self.to.join(name);
        File::open(&path).and_then(|file| file.sync_all()).map_err(io_at(&path))?;
        let (sha256, size_bytes) = digest_of(&path).map_err(io_at(&path))?;
        self.files.push(BackedUpFile { path: name.to_owned(), size_bytes, sha256 });
        Ok(())
    }
}

fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    read_through(&mut File::open(path)?, |_| Ok(()))
}

/// Reads a file to its end; gives its digest and length.
fn read_through(file: &mut File, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(String, u64)> {
    let (mut hash, mut size_bytes, mut chunk) = (Context::new(&SHA256), 0_u64, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut chunk)?;
        let Some(octets) = chunk.get(..read).filter(|octets| !octets.is_empty()) else { break };
        hash.update(octets);
        each(octets)?;
        size_bytes = size_bytes.saturating_add(read as u64);
    }
    Ok((HEXLOWER.encode(hash.finish().as_ref()), size_bytes))
}

/// What lies in a data folder beside store and images: tokens, certificates, noted heads.
fn other_files(data: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let is_kept = |name: &PathBuf| {
        let first = name.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned());
        let first = first.unwrap_or_default();
        !first.starts_with(STORE)
            && first != IMAGES
            && !LEFT_OUT.contains(&first.as_str())
            && !first.ends_with(".new")
    };
    Ok(files_below(data)?.into_iter().filter(is_kept).collect())
}

/// The regular files below a folder, as paths from there, in order.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(within) = folders.pop() {
        let path = folder.join(&within);
        for entry in fs::read_dir(&path).map_err(io_at(&path))? {
            let entry = entry.map_err(io_at(&path))?;
            let kind = entry.file_type().map_err(io_at(&path))?;
            let name = within.join(entry.file_name());
            if kind.is_dir() && name != Path::new(IMAGES) {
                folders.push(name);
            } else if kind.is_file() {
                files.push(name);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| BackupError::Manifest { path: path.clone(), found: error.to_string() })?;
    let mut file =
        File::options().create_new(true).write(true).mode(0o600).open(&path).map_err(io_at(&path))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io_at(&path))
}

fn read_manifest(backup: &Path) -> Result<Manifest, BackupError> {
    let path = backup.join(MANIFEST);
    if !path.is_file() {
        return Err(BackupError::Absent { expected: "a backup's backup.json", path: backup.to_owned() });
    }
    let text = fs::read(&path).map_err(io_at(&path))?;
    let refused = |found: String| BackupError::Manifest { path: path.clone(), found };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
    if manifest.form != FORMAT {
        return Err(refused(format!("form {}", manifest.form)));
    }
    // A list from elsewhere must not lead out of the folder.
    let leads_out = |file: &BackedUpFile| {
        file.path.components().any(|part| !matches!(part, std::path::Component::Normal(_)))
    };
    if let Some(file) = manifest.files.iter().find(|file| leads_out(file)) {
        return Err(refused(format!("the path {:?}", file.path)));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests;
