//! What went wrong on pages, by the browser's own logs.

use serde_json::Value;

/// Errors and warnings: of scripts, of the policy, of what could not be loaded.
pub(super) fn of_console(log: &Value) -> Vec<String> {
    let entries = log.as_array().expect("a log").iter();
    let grave = entries.filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
    grave.map(|entry| format!("{}: {}", entry["source"], entry["message"])).collect()
}

/// Requests to another origin than the console's.
pub(super) fn of_network(log: &Value, origin: &str) -> Vec<String> {
    let here = format!("{origin}/");
    let mut elsewhere = Vec::new();
    for entry in log.as_array().expect("a log") {
        let event: Value = serde_json::from_str(entry["message"].as_str().expect("a message")).unwrap();
        if event["message"]["method"] != "Network.requestWillBeSent" {
            continue;
        }
        let address = event["message"]["params"]["request"]["url"].as_str().expect("an address");
        // A page that is blank, and what a page carries in itself, asks nobody.
        if !address.starts_with(&here)
            && !["about:", "data:", "blob:"].iter().any(|own| address.starts_with(own))
        {
            elsewhere.push(format!("a request to another origin: {address}"));
        }
    }
    elsewhere
}
