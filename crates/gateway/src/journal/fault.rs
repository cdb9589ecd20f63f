//! What happens to a journal that is damaged: the fault is written down in `journal.fault`, the journal put
//! aside as `journal.damaged.sqlite3`. Until a workshop has brought the vehicle to one known state and deleted
//! the fault file, the gateway takes on no update.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use farrier_protocol::LongText;

const NAME: &str = "journal.fault";

/// What was found to be wrong, if anything was.
pub(super) fn read(folder: &Path) -> io::Result<Option<String>> {
    match std::fs::read(folder.join(NAME)) {
        Ok(bytes) => Ok(Some(LongText::beginning_of(String::from_utf8_lossy(&bytes).trim()).to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What people are told of a fault.
pub(crate) fn text(found: &str) -> String {
    format!("was damaged (found {found}); have the vehicle checked, then delete {NAME}")
}

/// Writes the fault down, durably; the first one stays. Then puts the journal aside.
pub(super) fn record(journal: &Path, found: &str) -> io::Result<()> {
    let folder = journal.parent().unwrap_or(Path::new("."));
    if read(folder)?.is_none() {
        let mut file = File::create(folder.join(NAME))?;
        file.write_all(found.as_bytes())?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
    }
    for suffix in ["-shm", "-wal", ""] {
        let to = with_suffix(&folder.join("journal.damaged.sqlite3"), suffix);
        match std::fs::rename(with_suffix(journal, suffix), to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    File::open(folder)?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
