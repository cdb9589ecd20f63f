//! Changes of the files beside the journal: each is done so that a power cut leaves the file as before or as after,
//! or shows in what is noted beside it. What a file means is the business of those who change it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;

/// One change of a file, or of a folder's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Disk space is taken.
    Reserve,
    /// Bytes are added at the end.
    Append,
    /// What stands behind a length is cut off.
    Cut,
    /// What was written is made durable.
    Sync,
    /// A file gets its name.
    Rename,
    /// A file goes.
    Remove,
}

/// Takes the disk space of a file before the first byte is fetched, without changing its length.
pub(crate) fn reserve(file: &impl AsFd, path: &Path, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    change(Change::Reserve, path, || match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        // A file system without reservation can at least be asked.
        Err(Errno::OPNOTSUPP) => {
            let disk = rustix::fs::fstatvfs(file)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free >= size { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
        reserved => Ok(reserved?),
    })
}

/// Opens a file to be read and changed; it may not be there yet.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Writes at the present end of a file.
pub(crate) fn append(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    change(Change::Append, path, || file.write_all(bytes))
}

/// The same without waiting for the disk.
#[cfg_attr(not(test), expect(unused_variables, reason = "only tests look on"))]
pub(crate) async fn append_soon(file: &mut tokio::fs::File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    watch::before(Change::Append, path)?;
    file.write_all(bytes).await?;
    #[cfg(test)]
    file.flush().await?;
    #[cfg(test)]
    watch::after(Change::Append, path)?;
    Ok(())
}

/// Cuts a file off at a length.
pub(crate) fn cut(file: &File, path: &Path, length: u64) -> io::Result<()> {
    change(Change::Cut, path, || file.set_len(length))
}

/// Makes a file's content durable.
pub(crate) fn sync(file: &File, path: &Path) -> io::Result<()> {
    change(Change::Sync, path, || file.sync_data())
}

/// Renames a file whose content is durable; the new name is durable too when this returns.
pub(crate) fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
    change(Change::Rename, to, || std::fs::rename(from, to))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    sync(&File::open(folder)?, folder)
}

/// Writes a small file anew: after a power cut the old or the new content is there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    append(&mut file, &new, content)?;
    sync(&file, &new)?;
    move_durably(&new, path)
}

/// Deletes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    change(Change::Remove, path, || match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}

#[cfg_attr(not(test), expect(unused_variables, reason = "only tests look on"))]
fn change(change: Change, path: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    #[cfg(test)]
    watch::before(change, path)?;
    work()?;
    #[cfg(test)]
    watch::after(change, path)?;
    Ok(())
}

#[cfg(test)]
mod watch {
    use super::*;

    pub(super) fn before(change: Change, path: &Path) -> io::Result<()> {
        crate::watch::of(path).map_or(Ok(()), |watch| watch.before_change(change, path))
    }

    pub(super) fn after(change: Change, path: &Path) -> io::Result<()> {
        crate::watch::of(path).map_or(Ok(()), |watch| watch.after_change(change, path))
    }
}
