//! Chunked binary deltas (protocol.md §5): rebuild a new image from an old one and a small patch.
//! Owns the format (`docs/delta.md`), making and applying; leaves files and when to use a delta to
//! its callers.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (old, new) = (b"the old image".repeat(99), b"the new image".repeat(99));
//! let delta = farrier_delta::make(&old, &new)?;
//! let mut rebuilt = Vec::new();
//! let mut reader = farrier_delta::DeltaReader::open(std::io::Cursor::new(delta))?;
//! reader.apply(&mut std::io::Cursor::new(old), &mut rebuilt)?;
//! assert_eq!(rebuilt, new);
//! # Ok(())
//! # }
//! ```

mod apply;
mod differences;
mod format;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod make;
mod matching;
mod window;

pub use apply::{ApplyError, DeltaReader};
pub use format::{CHUNK_BYTES, ChunkRecord, FormatError, Header, MAX_WINDOW_BYTES};
pub use make::{MakeError, make};
