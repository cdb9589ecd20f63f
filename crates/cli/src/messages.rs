//! `farrier vehicle messages`: a vehicle's whole conversation as a time line.

use farrier_protocol::VehicleId;
use serde::Deserialize;
use serde_json::Value;

use crate::operator::{Operator, read};
use crate::output::{moment_ms, plain, print, print_json};

/// How long one request waits for the next entry, in seconds.
const WAIT_S: &str = "25";

/// Which part of a time line, and how it is shown.
pub(crate) struct Timeline<'a> {
    pub(crate) operator: &'a Operator,
    pub(crate) vehicle: &'a VehicleId,
    pub(crate) limit: u32,
    pub(crate) follow: bool,
    pub(crate) raw: bool,
    pub(crate) json: bool,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    #[serde(default)]
    newest: Option<String>,
}

#[derive(Deserialize)]
struct EntryAnswer {
    at_ms: i64,
    kind: String,
    sentence: String,
    #[serde(default)]
    msg_id: Option<String>,
    #[serde(default)]
    clock_skew_ms: Option<i64>,
    #[serde(default)]
    payload: Option<String>,
}

impl Timeline<'_> {
    /// Prints the newest entries, oldest first, and then each that comes.
    pub(crate) async fn print(&self) -> anyhow::Result<()> {
        let limit = self.limit.to_string();
        let mut page = self.page(&[("limit", &limit)]).await?;
        page.items.reverse();
        if page.items.is_empty() && !self.follow && !self.json {
            return print("Nothing passed between the server and this vehicle yet.");
        }
        self.show(&page.items)?;
        if self.follow { self.follow_from(page.newest).await } else { Ok(()) }
    }

    /// Prints each entry that comes, until nobody reads any more.
    async fn follow_from(&self, mut newest: Option<String>) -> anyhow::Result<()> {
        loop {
            let mut query = vec![("first", "oldest"), ("wait_s", WAIT_S), ("limit", "1000")];
            query.extend(newest.as_deref().map(|newest| ("after", newest)));
            let page = self.page(&query).await?;
            self.show(&page.items)?;
            newest = page.newest.or(newest);
        }
    }

    async fn page(&self, query: &[(&str, &str)]) -> anyhow::Result<Page> {
        let mut query = query.to_vec();
        if self.raw {
            query.push(("raw", "true"));
        }
        read(&self.operator.get_with(&["vehicles", self.vehicle.as_str(), "messages"], &query).await?)
    }

    /// One line for an entry; with `--raw` the message below it.
    fn show(&self, items: &[Value]) -> anyhow::Result<()> {
        for item in items {
            if self.json {
                print_json(item)?;
                continue;
            }
            let entry: EntryAnswer = read(item)?;
            print(&line(&entry))?;
            if let Some(payload) = &entry.payload {
                print(&format!("    {}", plain(payload)))?;
            }
        }
        Ok(())
    }
}

fn line(entry: &EntryAnswer) -> String {
    let direction = match entry.kind.as_str() {
        "received" | "refused" | "acknowledged" => "vehicle →",
        "command" => "→ vehicle",
        _ => "         ",
    };
    let id = entry.msg_id.as_ref().map(|id| format!("  [{}]", plain(id))).unwrap_or_default();
    // Less than a second is the way, not the clock.
    let skew = match entry.clock_skew_ms {
        Some(skew) if skew.abs() >= 1_000 => format!("  clock {:+.1} s", -(skew as f64) / 1_000.0),
        Some(_) | None => String::new(),
    };
    format!("{}  {direction}  {}{id}{skew}", moment_ms(entry.at_ms), plain(&entry.sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_whence_what_and_by_how_much_the_clock_is_wrong() {
        let entry = EntryAnswer {
            at_ms: 1_761_351_123_999,
            kind: "received".to_owned(),
            sentence: "WakeUp was taken, 321 bytes.".to_owned(),
            msg_id: Some("VMG-1".to_owned()),
            clock_skew_ms: Some(90_000),
            payload: None,
        };
        let expected =
            "2025-10-25 00:12:03.999  vehicle →  WakeUp was taken, 321 bytes.  [VMG-1]  clock -90.0 s";
        assert_eq!(line(&entry), expected);
    }
}
