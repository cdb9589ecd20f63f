//! Vehicles in files: exported as CSV (RFC 4180) or JSON lines, imported from them in batches.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::operator::Operator;
use crate::output::{print, thousands};

/// Vehicles of one request; the server takes no more.
const AT_A_TIME: usize = 1_000;
/// The columns, in this order; a file may have them in another one and may lack some.
const COLUMNS: [&str; 8] =
    ["vehicle_id", "gateway_id", "vin", "region", "time_zone", "vehicle_type", "tags", "thumbprint"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A heading and one line for each vehicle; tags are separated by `;`.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Writes the vehicles to stdout, page by page.
pub(super) async fn export(operator: &Operator, format: Format, query: Option<&str>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    let mut after: Option<String> = None;
    loop {
        let mut asked = vec![("limit", "1000")];
        asked.extend(query.map(|query| ("where", query)));
        asked.extend(after.as_deref().map(|after| ("after", after)));
        let page = operator.get_with(&["vehicles"], &asked).await?;
        for vehicle in page.get("items").and_then(Value::as_array).into_iter().flatten() {
            match format {
                Format::Csv => writeln!(out, "{}", csv_line(vehicle))?,
                Format::Jsonl => writeln!(out, "{}", json_line(vehicle))?,
            }
        }
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            return Ok(());
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

/// Reads the records of a CSV file, each with the line in which it begins.
fn records(text: &str) -> anyhow::Result<Vec<(usize, Vec<String>)>> {
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
    anyhow::ensure!(
        !is_quoted,
        "expected a closing quote in the record of line {begins}, found the end of the file"
    );
    if !cell.is_empty() || !record.is_empty() {
        record.push(cell);
        records.push((begins, record));
    }
    records.retain(|(_, record)| record.iter().any(|cell| !cell.is_empty()));
    Ok(records)
}

/// The vehicles of a file as JSON lines, each with its line in the file.
fn vehicles(text: &str, format: Format) -> anyhow::Result<Vec<(usize, String)>> {
    if format == Format::Jsonl {
        let lines = (1_usize..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        return Ok(lines.map(|(number, line)| (number, line.to_owned())).collect());
    }
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let (_, heading) = records.next().context("expected a heading, found an empty file")?;
    if let Some(unknown) = heading.iter().find(|name| !COLUMNS.contains(&name.trim())) {
        anyhow::bail!("expected the columns {}, found {unknown:?}", COLUMNS.join(", "));
    }
    records
        .map(|(line, cells)| {
            anyhow::ensure!(
                cells.len() == heading.len(),
                "line {line}: expected {} cells, found {}",
                heading.len(),
                cells.len()
            );
            let known = heading.iter().zip(cells).filter(|(_, cell)| !cell.trim().is_empty());
            let fields = known.map(|(name, cell)| match name.trim() {
                "tags" => ("tags".to_owned(), json!(cell.split(';').map(str::trim).collect::<Vec<_>>())),
                name => (name.to_owned(), json!(cell.trim())),
            });
            Ok((line, Value::Object(fields.collect()).to_string()))
        })
        .collect()
}

/// Brings a file's vehicles to the server; what was taken before a batch is refused stays, and importing again is no
/// harm.
pub(super) async fn import(
    operator: &Operator,
    file: &Path,
    format: Option<Format>,
    dry_run: bool,
    prints_json: bool,
) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {} as UTF-8 text", file.display()))?;
    let is_csv = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let vehicles = vehicles(&text, format.unwrap_or(if is_csv { Format::Csv } else { Format::Jsonl }))?;
    anyhow::ensure!(!vehicles.is_empty(), "expected vehicles in {}, found none", file.display());
    let mut done = 0_usize;
    let mut sums = [("enrolled", 0_u64), ("changed", 0), ("unchanged", 0)];
    for batch in vehicles.chunks(AT_A_TIME) {
        let lines: Vec<&str> = batch.iter().map(|(_, vehicle)| vehicle.as_str()).collect();
        let numbers: Vec<usize> = batch.iter().map(|(line, _)| *line).collect();
        let answer = operator.import(lines.join("\n"), dry_run, &numbers).await.with_context(|| {
            format!(
                "{} of {} vehicles were imported before",
                thousands_of(done),
                thousands_of(vehicles.len())
            )
        })?;
        done = done.saturating_add(batch.len());
        for (name, sum) in &mut sums {
            *sum = sum.saturating_add(answer.get(*name).and_then(Value::as_u64).unwrap_or(0));
        }
        if done < vehicles.len() {
            let told = format!("{} of {} vehicles\n", thousands_of(done), thousands_of(vehicles.len()));
            // Where stderr is closed, nobody waits for it.
            let _ = std::io::stderr().write_all(told.as_bytes());
        }
    }
    if prints_json {
        let sums: Map<_, _> = sums.iter().map(|(name, sum)| ((*name).to_owned(), json!(sum))).collect();
        return print(&Value::Object(sums).to_string());
    }
    let [(_, enrolled), (_, changed), (_, unchanged)] = sums.map(|(name, sum)| (name, thousands(sum)));
    let tried = if dry_run { "Only tried: " } else { "" };
    print(&format!("{tried}{enrolled} enrolled, {changed} changed, {unchanged} as they were."))
}

fn thousands_of(number: usize) -> String {
    thousands(u64::try_from(number).unwrap_or(u64::MAX))
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
        let read = vehicles(&text, Format::Csv).unwrap();
        let expected =
            json!({"vehicle_id": "V1", "gateway_id": "G", "region": "a \"b\", c", "tags": ["x", "y"]});
        assert_eq!(serde_json::from_str::<Value>(&read[0].1).unwrap(), expected);
        assert_eq!((read.len(), read[0].0), (1, 2));
        assert_eq!(json_line(&vehicle), expected);
    }

    #[test]
    fn a_csv_file_that_is_none_is_refused_with_its_line() {
        for (text, says) in [
            ("", "empty file"),
            ("colour\nred", "colour"),
            ("vehicle_id,gateway_id\nV1\n", "line 2"),
            ("vehicle_id\n\"V1", "line 2"),
        ] {
            let error = vehicles(text, Format::Csv).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
