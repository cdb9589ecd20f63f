//! What is expected of what somebody types or gives, in English.

use crate::console::texts::FormTexts;

pub(super) const TEXTS: FormTexts = FormTexts {
    a_short_text: "1 to 128 characters without line breaks",
    a_sha256: "a SHA-256 of 64 hexadecimal digits",
    a_scheme: "semver, dotted, date or none",
    a_rule: "one of the rules that are offered",
    file_empty: "Expected a heading, found an empty file.",
    file_columns: "Expected the columns {}, found “{}”.",
    file_cells: "Line {}: expected {} cells, found {}.",
    file_quote: "Expected a closing quote in the record of line {}, found the end of the file.",
};
