//! `farrier delta` as people use it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Folder(tempfile::TempDir);

impl Folder {
    /// With two images, `old` and `new`, of a little more than one chunk.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let old: Vec<u8> =
            (0..1_100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, *b"something new");
        std::fs::write(folder.path("old"), old).unwrap();
        std::fs::write(folder.path("new"), new).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        command.arg("delta").args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_remove("FARRIER_LOG").output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], says: &str) {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(stderr.contains(says) && !stderr.contains("panicked"), "expected {says:?} in {stderr}");
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_delta_is_made_and_applied_and_looked_into() {
    let folder = Folder::new();
    assert!(folder.succeeds(&["make", "old", "new", "delta"]).contains("0.0 % of the new image"));
    assert!(folder.succeeds(&["apply", "old", "delta", "rebuilt"]).contains("4,400,013 bytes, verified"));
    assert!(read(&folder.path("rebuilt")) == read(&folder.path("new")));

    let shown: Value = serde_json::from_str(&folder.succeeds(&["inspect", "delta", "--json"])).unwrap();
    assert_eq!(shown["new"]["size_bytes"], 4_400_013);
    assert_eq!(shown["size_bytes"], read(&folder.path("delta")).len());
    assert_eq!(shown["chunks"].as_array().unwrap().len(), 2);
    let digest = farrier_protocol::Sha256::of(&read(&folder.path("old"))).to_string();
    assert_eq!(shown["old"]["sha256"], digest.as_str());
    assert!(folder.succeeds(&["inspect", "delta"]).contains(&digest));
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = Folder::new();
    let old = read(&folder.path("old"));
    folder.fails(&["make", "old", "new", "old"], "--force");
    assert!(read(&folder.path("old")) == old);
    folder.succeeds(&["make", "old", "new", "delta"]);
    folder.fails(&["apply", "old", "delta", "new"], "--force");
    folder.succeeds(&["apply", "old", "delta", "new", "--force"]);
    assert_eq!(folder.names(), ["delta", "new", "old"]);
}

#[test]
fn what_fails_says_why_and_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.succeeds(&["make", "old", "new", "delta"]);
    folder.fails(&["apply", "new", "delta", "rebuilt"], "the old image that the delta was made from");
    folder.fails(&["apply", "old", "new", "rebuilt"], "another kind of file");
    folder.fails(&["apply", "old", "none", "rebuilt"], "name a file that exists");
    folder.fails(&["make", "old", "new", "nowhere/delta"], "check that the folder exists");
    let delta = read(&folder.path("delta"));
    std::fs::write(folder.path("short"), &delta[..delta.len() - 1]).unwrap();
    folder.fails(&["inspect", "short"], "fetch it again");
    let mut damaged = delta.clone();
    damaged[96 + 44] ^= 1;
    std::fs::write(folder.path("damaged"), damaged).unwrap();
    folder.fails(&["apply", "old", "damaged", "rebuilt"], "fetch it again");
    assert_eq!(folder.names(), ["damaged", "delta", "new", "old", "short"]);
}
