//! Files that are written whole or not at all, private ones readable by their owner only.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::PkiError;

pub(super) struct NewFile {
    path: PathBuf,
    contents: String,
    mode: u32,
}

impl NewFile {
    pub(super) fn private(path: PathBuf, contents: String) -> Self {
        Self { path, contents, mode: 0o600 }
    }

    pub(super) fn public(path: PathBuf, contents: String) -> Self {
        Self { path, contents, mode: 0o644 }
    }

    /// Beside the target, so that the rename stays within one file system.
    fn temporary(&self) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".new");
        self.path.with_file_name(name)
    }
}

pub(super) fn create(dir: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(|source| PkiError::Write { path: dir.to_owned(), source })
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

/// Keeps other processes from changing the folder until the guard is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, PkiError> {
    let failed = |source| PkiError::Write { path: dir.to_owned(), source };
    let folder = File::open(dir).map_err(failed)?;
    folder.lock().map_err(failed)?;
    Ok(folder)
}

pub(super) fn check_free(files: &[NewFile], force: bool) -> Result<(), PkiError> {
    match files.iter().find(|file| !force && fs::symlink_metadata(&file.path).is_ok()) {
        Some(taken) => Err(PkiError::AlreadyExists { path: taken.path.clone() }),
        None => Ok(()),
    }
}

/// Writes all files, or, where one cannot be written, none that was not there before.
pub(super) fn write(files: &[NewFile], force: bool) -> Result<(), PkiError> {
    check_free(files, force)?;
    let written = files.iter().try_for_each(write_temporary).and_then(|()| {
        files.iter().try_for_each(|file| {
            fs::rename(file.temporary(), &file.path)
                .map_err(|source| PkiError::Write { path: file.path.clone(), source })
        })
    });
    if written.is_err() {
        for file in files {
            // Best effort: a leftover is overwritten by the next try and never taken for the file.
            let _ = fs::remove_file(file.temporary());
        }
    }
    written?;
    let folders: BTreeSet<_> = files.iter().filter_map(|file| file.path.parent()).collect();
    folders.into_iter().try_for_each(sync_folder)
}

fn write_temporary(file: &NewFile) -> Result<(), PkiError> {
    let path = file.temporary();
    let failed = |source| PkiError::Write { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => return Err(failed(source)),
        Ok(()) | Err(_) => {}
    }
    // The mode is given at creation: at no moment can others read a private key.
    let mut temporary =
        OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&path).map_err(failed)?;
    temporary.write_all(file.contents.as_bytes()).map_err(failed)?;
    temporary.sync_all().map_err(failed)
}

fn sync_folder(dir: &Path) -> Result<(), PkiError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| PkiError::Write { path: dir.to_owned(), source })
}
