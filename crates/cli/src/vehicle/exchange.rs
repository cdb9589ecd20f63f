//! Vehicles in files: exported, and imported from them in batches.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use farrier_server::vehicle_files::{FileFormat, VEHICLES_AT_A_TIME};
use serde_json::{Map, Value, json};

use crate::operator::Operator;
use crate::output::{print, thousands};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A heading and one line for each vehicle; tags are separated by `;`.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl From<Format> for FileFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Jsonl => Self::JsonLines,
        }
    }
}

/// Writes the vehicles to stdout, page by page.
pub(super) async fn export(operator: &Operator, format: Format, query: Option<&str>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let format = FileFormat::from(format);
    write!(out, "{}", format.heading())?;
    let mut after: Option<String> = None;
    loop {
        let mut asked = vec![("limit", "1000")];
        asked.extend(query.map(|query| ("where", query)));
        asked.extend(after.as_deref().map(|after| ("after", after)));
        let page = operator.get_with(&["vehicles"], &asked).await?;
        for vehicle in page.get("items").and_then(Value::as_array).into_iter().flatten() {
            write!(out, "{}", format.line(vehicle))?;
        }
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            return Ok(());
        }
    }
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
    let format = format.unwrap_or(if is_csv { Format::Csv } else { Format::Jsonl });
    let vehicles = FileFormat::from(format).vehicles(&text)?;
    anyhow::ensure!(!vehicles.is_empty(), "expected vehicles in {}, found none", file.display());
    let mut done = 0_usize;
    let mut sums = [("enrolled", 0_u64), ("changed", 0), ("unchanged", 0)];
    for batch in vehicles.chunks(VEHICLES_AT_A_TIME) {
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
