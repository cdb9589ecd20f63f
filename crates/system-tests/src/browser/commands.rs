//! What chromedriver understands besides WebDriver: its logs, and the DevTools protocol.

use fantoccini::wd::WebDriverCompatibleCommand;
use reqwest::{Method, Url};
use serde_json::{Value, json};

/// Takes what is in a log out of it.
#[derive(Debug)]
pub(super) struct Log(pub(super) &'static str);

/// One command of the DevTools protocol.
#[derive(Debug)]
pub(super) struct Cdp(pub(super) &'static str, pub(super) Value);

type Endpoint = Result<Url, <Url as std::str::FromStr>::Err>;

fn endpoint(base: &Url, session: Option<&str>, rest: &str) -> Endpoint {
    base.join(&format!("session/{}/{rest}", session.expect("a session")))
}

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Endpoint {
        endpoint(base, session, "se/log")
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "type": self.0 }).to_string()))
    }
}

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Endpoint {
        endpoint(base, session, "goog/cdp/execute")
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "cmd": self.0, "params": self.1 }).to_string()))
    }
}
