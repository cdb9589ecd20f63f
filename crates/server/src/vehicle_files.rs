//! Files with vehicles: CSV (RFC 4180) and JSON lines, as they are exported and imported.

use serde_json::{Map, Value, json};

/// Vehicles that the server takes in one request, at most.
pub const VEHICLES_AT_A_TIME: usize = 1_000;

/// The columns, in this order; a file may have them in another one and may lack some.
pub const COLUMNS: [&str; 8] =
    ["vehicle_id", "gateway_id", "vin", "region", "time_zone", "vehicle_type", "tags", "thumbprint"];

/// How vehicles stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// A heading and one line for each vehicle; tags are separated by `;`.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

/// A file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenFile {
    /// There is not even a heading.
    #[error("expected a heading, found an empty file")]
    Empty,
    /// A column with another name.
    #[error("expected the columns {}, found {found:?}", COLUMNS.join(", "))]
    Column {
        /// Its name.
        found: String,
    },
    /// A line with more or fewer cells than the heading.
    #[error("line {line}: expected {expected} cells, found {found}")]
    Cells {
        /// From 1.
        line: usize,
        /// So many has the heading.
        expected: usize,
        /// So many has the line.
        found: usize,
    },
    /// A quote that is never closed.
    #[error("expected a closing quote in the record of line {0}, found the end of the file")]
    Quote(usize),
}

impl FileFormat {
    /// What a text seems to be.
    pub fn of(text: &str) -> Self {
        let first = text.trim_start_matches('\u{feff}').trim_start().chars().next();
        if first == Some('{') { Self::JsonLines } else { Self::Csv }
    }

    /// What stands before the first vehicle.
    pub fn heading(self) -> String {
        match self {
            Self::Csv => format!("{}\n", COLUMNS.join(",")),
            Self::JsonLines => String::new(),
        }
    }

    /// The line of a vehicle that the API has shown.
    pub fn line(self, vehicle: &Value) -> String {
        match self {
            Self::Csv => format!("{}\n", csv_line(vehicle)),
            Self::JsonLines => format!("{}\n", json_line(vehicle)),
        }
    }

    /// The vehicles of a file as the API takes them, a JSON object each, with its line in the file.
    ///
    /// # Errors
    ///
    /// A CSV file that is none. What is wrong with a vehicle, the API says.
    pub fn vehicles(self, text: &str) -> Result<Vec<(usize, String)>, BrokenFile> {
        match self {
            Self::JsonLines => {
                let lines = (1_usize..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
                Ok(lines.map(|(number, line)| (number, line.to_owned())).collect())
            }
            Self::Csv => of_csv(text.strip_prefix('\u{feff}').unwrap_or(text)),
        }
    }
}

fn json_line(vehicle: &Value) -> Value {
    let known = COLUMNS.iter().filter_map(|name| Some((*name, vehicle.get(name)?)));
    known
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}

fn csv_line(vehicle: &Value) -> String {
    let cell = |name: &&str| match vehicle.get(*name) {
        Some(Value::String(text)) => quoted(text),
        Some(Value::Array(tags)) => {
            quoted(&tags.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";"))
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => String::new(),
    };
    COLUMNS.iter().map(cell).collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn of_csv(text: &str) -> Result<Vec<(usize, String)>, BrokenFile> {
    let mut records = records(text)?.into_iter();
    let (_, heading) = records.next().ok_or(BrokenFile::Empty)?;
    if let Some(unknown) = heading.iter().find(|name| !COLUMNS.contains(&name.trim())) {
        return Err(BrokenFile::Column { found: unknown.clone() });
    }
    records
        .map(|(line, cells)| {
            if cells.len() != heading.len() {
                return Err(BrokenFile::Cells { line, expected: heading.len(), found: cells.len() });
            }
            let known = heading.iter().zip(cells).filter(|(_, cell)| !cell.trim().is_empty());
            let fields = known.map(|(name, cell)| match name.trim() {
                "tags" => ("tags".to_owned(), json!(cell.split(';').map(str::trim).collect::<Vec<_>>())),
                name => (name.to_owned(), json!(cell.trim())),
            });
            Ok((line, Value::Object(fields.collect()).to_string()))
        })
        .collect()
}

/// Reads the records of a CSV file, each with the line in which it begins.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, BrokenFile> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begins, mut is_quoted) = (1_usize, 1_usize, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\n' {
            line = line.saturating_add(1);
        }
        match (is_quoted, character) {
            (true, '"') if characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            (_, '"') => is_quoted = !is_quoted,
            (false, ',') => record.push(std::mem::take(&mut cell)),
            (false, '\r') => {}
            (false, '\n') => {
                record.push(std::mem::take(&mut cell));
                records.push((begins, std::mem::take(&mut record)));
                begins = line;
            }
            (true | false, other) => cell.push(other),
        }
    }
    if is_quoted {
        return Err(BrokenFile::Quote(begins));
    }
    if !cell.is_empty() || !record.is_empty() {
        record.push(cell);
        records.push((begins, record));
    }
    records.retain(|(_, record)| record.iter().any(|cell| !cell.is_empty()));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_read_as_it_is_written() {
        let vehicle = json!({"vehicle_id": "V1", "gateway_id": "G", "vin": null, "region": "a \"b\", c", "tags": ["x", "y"]});
        let line = csv_line(&vehicle);
        assert_eq!(line, "V1,G,,\"a \"\"b\"\", c\",,,x;y,");
        let text = format!("\u{feff}{}\r\n{line}\r\n\r\n", COLUMNS.join(","));
        let read = FileFormat::of(&text).vehicles(&text).unwrap();
        let expected =
            json!({"vehicle_id": "V1", "gateway_id": "G", "region": "a \"b\", c", "tags": ["x", "y"]});
        assert_eq!(serde_json::from_str::<Value>(&read[0].1).unwrap(), expected);
        assert_eq!((read.len(), read[0].0), (1, 2));
        assert_eq!(json_line(&vehicle), expected);
        let lines = FileFormat::JsonLines.line(&vehicle);
        assert_eq!(FileFormat::of(&lines), FileFormat::JsonLines);
        assert_eq!(FileFormat::JsonLines.vehicles(&lines).unwrap()[0].0, 1);
    }

    #[test]
    fn a_csv_file_that_is_none_is_refused_with_its_line() {
        for (text, says) in [
            ("", "empty file"),
            ("colour\nred", "colour"),
            ("vehicle_id,gateway_id\nV1\n", "line 2"),
            ("vehicle_id\n\"V1", "line 2"),
        ] {
            let error = FileFormat::Csv.vehicles(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
