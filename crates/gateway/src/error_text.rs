//! An error with its causes in one line, for details that travel and for people at a terminal.

use std::error::Error;

/// The error, then what caused it, parted by colons.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let what = error.to_string();
        // A transparent error says the same as its cause.
        if !text.ends_with(&what) {
            text.push_str(": ");
            text.push_str(&what);
        }
        cause = error.source();
    }
    text
}
