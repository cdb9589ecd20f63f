//! Temporary folders: gone with what they were made for.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

/// Makes one below `dir`, else where this machine has its own.
pub(crate) fn temporary(prefix: &str, dir: Option<&Path>) -> anyhow::Result<TempDir> {
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix(prefix);
    let made = match dir {
        Some(dir) => folder.tempdir_in(dir),
        None => folder.tempdir(),
    };
    made.context("cannot make a temporary folder; name another place with --dir")
}
