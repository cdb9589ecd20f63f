//! `make OLD NEW DELTA`: makes a delta; `scripts/bench-delta` measures it.

use std::io;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [old, new, delta] = arguments.as_slice() else {
        return Err(io::Error::other("expected OLD NEW DELTA").into());
    };
    std::fs::write(delta, farrier_delta::make(&std::fs::read(old)?, &std::fs::read(new)?)?)?;
    Ok(())
}
