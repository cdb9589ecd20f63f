//! Makes fsync and fdatasync of a child process fail on request, below SQLite and below the standard library:
//! a small library (`failing_sync.c`), compiled by `cc` and put before libc by `LD_PRELOAD`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

/// The library, and the folder through which it is told what to do.
pub struct FailingSync {
    library: Arc<TempDir>,
    folder: TempDir,
}

/// One call of fsync or fdatasync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Counts from 1 in each process.
    pub number: u32,
    /// Whether it was made to fail.
    pub failed: bool,
    /// The file or folder.
    pub path: PathBuf,
}

impl FailingSync {
    /// Compiles the library. All succeeds until [`FailingSync::fail`] is called.
    pub fn new() -> Self {
        let library = tempfile::tempdir().unwrap();
        let source = library.path().join("failing_sync.c");
        std::fs::write(&source, include_str!("failing_sync.c")).unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library.path().join("failing_sync.so"), &source])
            .arg("-ldl")
            .output()
            .unwrap_or_else(|error| {
                panic!("expected a C compiler as cc ({error}); scripts/test installs it as build-essential")
            });
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Self { library: Arc::new(library), folder: tempfile::tempdir().unwrap() }
    }

    /// The same for other processes, with rules and notes of its own; nothing is compiled again.
    pub fn for_others(&self) -> Self {
        Self { library: self.library.clone(), folder: tempfile::tempdir().unwrap() }
    }

    /// What a process needs in its environment; its children have it too.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        let library = self.library.path().join("failing_sync.so");
        [("LD_PRELOAD", library), ("FARRIER_FAILING_SYNC", self.folder.path().to_owned())]
    }

    /// From now on the syncs with these numbers fail with EIO, and are not carried out. Only files whose path
    /// contains the text are counted; processes at work keep their count.
    pub fn fail(&self, numbers: RangeInclusive<u32>, path_contains: &str) {
        let rule = format!("{}\n{}\n{path_contains}\n", numbers.start(), numbers.end());
        let [whole, named] = ["rule.new", "rule"].map(|name| self.folder.path().join(name));
        std::fs::write(&whole, rule).unwrap();
        std::fs::rename(whole, named).unwrap();
    }

    /// No sync fails any more; of all processes to come, only files whose path contains the text are counted.
    pub fn count(&self, path_contains: &str) {
        self.fail(RangeInclusive::new(1, 0), path_contains);
    }

    /// What was synced since the last call, by all processes, in this order.
    pub fn take_syncs(&self) -> Vec<Sync> {
        let path = self.folder.path().join("syncs");
        let Ok(noted) = std::fs::read_to_string(&path) else { return Vec::new() };
        std::fs::remove_file(path).unwrap();
        let sync = |line: &str| {
            let (number, rest) = line.split_once(' ').unwrap();
            let (outcome, path) = rest.split_once(' ').unwrap();
            Sync { number: number.parse().unwrap(), failed: outcome == "failed", path: path.into() }
        };
        noted.lines().map(sync).collect()
    }
}

impl Default for FailingSync {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Syncs a file four times, as another program does it; how many of them failed.
    fn failures(shim: &FailingSync, file: &str) -> usize {
        let path = shim.folder.path().join(file);
        std::fs::write(&path, "content").unwrap();
        let syncs = (0..4).filter(|_| {
            // dd calls fsync once, at its end.
            let mut dd = Command::new("dd");
            dd.args(["if=/dev/null", "conv=fsync,notrunc", "status=none"])
                .arg(format!("of={}", path.display()));
            !dd.envs(shim.environment()).output().unwrap().status.success()
        });
        syncs.count()
    }

    #[test]
    fn only_the_syncs_that_were_named_fail() {
        let shim = FailingSync::new();
        assert_eq!(failures(&shim, "journal"), 0);
        let syncs = shim.take_syncs();
        assert_eq!(syncs.len(), 4);
        assert!(syncs.iter().all(|sync| sync.number == 1 && !sync.failed && sync.path.ends_with("journal")));
        shim.fail(1..=1, "journal");
        assert_eq!((failures(&shim, "journal"), failures(&shim, "other")), (4, 0));
        let syncs = shim.take_syncs();
        assert_eq!(syncs.len(), 4, "other files are not counted");
        assert!(syncs.iter().all(|sync| sync.failed && sync.path.ends_with("journal")));
        shim.fail(2..=2, "journal");
        assert_eq!(failures(&shim, "journal"), 0, "each process counts from 1");
        shim.count("journal");
        assert_eq!(failures(&shim, "journal"), 0);
        let other = shim.for_others();
        shim.fail(1..=1, "");
        assert_eq!((failures(&shim, "journal"), failures(&other, "journal")), (4, 0));
    }
}
