//! Two small files beside the journal that say how far it had come, written in turn and each with its own
//! checksum. With them a journal that is gone, cut short or put back from an older copy is not taken for a
//! vehicle that never had an update.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use farrier_protocol::Sha256;

const NAMES: [&str; 2] = ["journal.mark0", "journal.mark1"];

/// How far the journal had come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Marker {
    /// Grows with each record and each boot.
    pub(super) generation: u64,
    /// The boot counter.
    pub(super) boot_seq: u64,
}

/// What the two files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// There are none: no journal was ever here.
    Nothing,
    /// The newer one of those that are whole.
    Marker(Marker),
    /// There are some, and none is whole.
    Unreadable,
}

impl Marker {
    /// The file that this marker is written to; the one before stays whole in the other.
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        let [even, odd] = NAMES;
        folder.join(if self.generation.is_multiple_of(2) { even } else { odd })
    }

    /// Writes it, durably.
    pub(super) fn write(self, folder: &Path) -> io::Result<()> {
        let path = self.path(folder);
        let is_new = !path.exists();
        let mut file = File::create(path)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        if is_new { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn to_text(self) -> String {
        let content = format!("generation {} boot {}", self.generation, self.boot_seq);
        format!("{content}\n{}\n", Sha256::of(content.as_bytes()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let [_, generation, _, boot_seq] = [words.next()?, words.next()?, words.next()?, words.next()?];
        let marker = Self { generation: generation.parse().ok()?, boot_seq: boot_seq.parse().ok()? };
        (marker.to_text() == text).then_some(marker)
    }
}

/// Reads both files.
pub(super) fn read(folder: &Path) -> io::Result<Found> {
    let mut exists = false;
    let mut newest = None;
    for name in NAMES {
        match std::fs::read(folder.join(name)) {
            Ok(bytes) => {
                exists = true;
                newest = newest.max(str::from_utf8(&bytes).ok().and_then(Marker::parse));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(match newest {
        Some(marker) => Found::Marker(marker),
        None if exists => Found::Unreadable,
        None => Found::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_whole_file_counts_and_damage_is_not_absence() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(read(folder).unwrap(), Found::Nothing);
        for generation in 1..=4 {
            let marker = Marker { generation, boot_seq: 7 };
            marker.write(folder).unwrap();
            assert_eq!(read(folder).unwrap(), Found::Marker(marker));
        }
        let newest = Marker { generation: 4, boot_seq: 7 };
        let text = std::fs::read_to_string(newest.path(folder)).unwrap();
        for torn in [&text[..0], &text[..20], &text.replace("generation 4", "generation 5")] {
            std::fs::write(newest.path(folder), torn).unwrap();
            let before = Marker { generation: 3, boot_seq: 7 };
            assert_eq!(read(folder).unwrap(), Found::Marker(before), "{torn:?}");
        }
        std::fs::write(folder.join(NAMES[1]), "").unwrap();
        assert_eq!(read(folder).unwrap(), Found::Unreadable);
    }
}
