//! `apply OLD DELTA NEW`: applies a delta chunk by chunk and does nothing else, so that the memory of
//! this process is the memory of applying; `scripts/bench-delta` measures it.

use std::fs::File;
use std::io;

use farrier_delta::DeltaReader;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [old, delta, new] = arguments.as_slice() else {
        return Err(io::Error::other("expected OLD DELTA NEW").into());
    };
    DeltaReader::open(File::open(delta)?)?.apply(&mut File::open(old)?, &mut File::create(new)?)?;
    Ok(())
}
