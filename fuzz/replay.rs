//! Runs the committed inputs of a fuzz target through its entry point. The tests of the crates that own entry points
//! include this file, so that what fuzzing has found is held without `cargo fuzz`.

use std::path::Path;

/// Runs the corpus and the regressions of `target`; the input that a panic belongs to is printed before it.
pub(crate) fn replay(target: &str, entry: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut inputs = Vec::new();
    for kind in ["corpus", "regressions"] {
        // A target in which nothing was found has no folder of regressions.
        let folder = std::fs::read_dir(root.join(kind).join(target)).into_iter().flatten();
        inputs.extend(folder.map(|entry| entry.unwrap().path()));
    }
    assert!(!inputs.is_empty(), "expected inputs for {target} below {}", root.display());
    inputs.sort();
    for input in inputs {
        println!("{}", input.display());
        entry(&std::fs::read(&input).unwrap());
    }
}
