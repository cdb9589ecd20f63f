//! Lets tests look on at every durable write of a gateway, and stop it there as a power cut or a broken disk
//! would. Not part of the product.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::Transaction;

use crate::disk::Change;
use crate::journal::JournalError;

/// An instant around a durable write of the journal; nothing else is written to it meanwhile.
#[derive(Clone, Copy)]
pub(crate) enum Instant<'a> {
    BeforeCommit(&'a Transaction<'a>),
    AfterCommit,
    BeforeMarker,
    AfterMarker(&'a Path),
}

/// An error stops the journal, or the change of the file, here.
pub(crate) trait Watch: Send + Sync + std::fmt::Debug {
    fn at(&self, instant: Instant<'_>) -> Result<(), JournalError>;
    fn before_change(&self, change: Change, path: &Path) -> io::Result<()>;
    fn after_change(&self, change: Change, path: &Path) -> io::Result<()>;
}

static WATCHES: Mutex<Option<HashMap<PathBuf, Arc<dyn Watch>>>> = Mutex::new(None);

/// Has this look on at what a gateway writes below this folder, its `state_dir`, from now on.
pub(crate) fn watch(state_dir: &Path, watch: Arc<dyn Watch>) {
    WATCHES.lock().unwrap().get_or_insert_default().insert(state_dir.to_owned(), watch);
}

/// Who looks on at this file or folder.
pub(crate) fn of(path: &Path) -> Option<Arc<dyn Watch>> {
    let watches = WATCHES.lock().unwrap();
    path.ancestors().find_map(|folder| watches.as_ref()?.get(folder)).cloned()
}
