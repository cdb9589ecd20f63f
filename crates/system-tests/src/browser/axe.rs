//! axe-core, which finds what keeps people from using a page.

use serde_json::Value;

use super::Browser;

const AXE: &str = include_str!("../../vendored/axe-core/axe.min.js");

/// Each grave finding in one line.
const LOOK: &str = "const done = arguments[arguments.length - 1]; \
    axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations \
        .filter((one) => ['serious', 'critical'].includes(one.impact)) \
        .flatMap((one) => one.nodes.map((node) => \
            `${one.id} (${one.impact}) at ${node.target}: ${node.failureSummary} ${node.html}`))), \
        (error) => done(['axe failed: ' + error]))";

impl Browser {
    /// What axe-core finds on the page as it is now, of what is serious or critical.
    pub async fn barriers(&self) -> Vec<String> {
        if self.run("return typeof axe === 'undefined'", vec![]).await == Value::Bool(true) {
            self.run(AXE, vec![]).await;
        }
        let found = self.page.execute_async(LOOK, vec![]).await.unwrap();
        found
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one.as_str().unwrap_or_default().to_owned())
            .collect()
    }
}
