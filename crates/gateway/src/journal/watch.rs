//! Lets tests look on at every durable write of a journal, and stop it there as a power cut or a broken disk
//! would. Not part of the product.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::Transaction;

use super::JournalError;

/// An instant around a durable write; nothing else is written to this journal meanwhile.
#[derive(Clone, Copy)]
pub(crate) enum Instant<'a> {
    BeforeCommit(&'a Transaction<'a>),
    AfterCommit,
    BeforeMarker,
    AfterMarker(&'a Path),
}

pub(crate) trait Watch: Send + Sync + std::fmt::Debug {
    /// An error stops the journal here.
    fn at(&self, instant: Instant<'_>) -> Result<(), JournalError>;
}

static WATCHES: Mutex<Option<HashMap<PathBuf, Arc<dyn Watch>>>> = Mutex::new(None);

/// Has this look on at the journal that is opened in this folder from now on.
pub(crate) fn watch(folder: &Path, watch: Arc<dyn Watch>) {
    WATCHES.lock().unwrap().get_or_insert_default().insert(folder.to_owned(), watch);
}

pub(super) fn of(folder: &Path) -> Option<Arc<dyn Watch>> {
    WATCHES.lock().unwrap().as_ref()?.get(folder).cloned()
}
