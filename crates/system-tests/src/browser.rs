//! A real headless Chromium that looks at the console as a person does: by what buttons and fields are called, and by what is
//! to be read. Whatever goes wrong on any page (policy, scripts, requests elsewhere) fails the test that [ends](Browser::end) it.

mod axe;
mod chromedriver;
mod commands;
mod crawl;
mod faults;
mod keyboard;

use std::path::{Path, PathBuf};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use self::chromedriver::Chromedriver;
use self::commands::{Cdp, Log};
use crate::until;

pub use self::keyboard::Key;

/// The password of everybody who is invited here.
pub const PASSWORD: &str = "four feet and a hammer";

/// Says in the browser's log what the page's policy forbade; the log outlives the page.
const TELL_VIOLATIONS: &str = "document.addEventListener('securitypolicyviolation', (event) => \
    console.error('violates the policy: ' + event.violatedDirective + ' ' + event.blockedURI))";

/// Asks for an address as a page does.
const IS_PAGE: &str = "const done = arguments[arguments.length - 1]; fetch(arguments[0]).then((answer) => { \
    answer.body.cancel(); done(answer.ok && (answer.headers.get('content-type') || '').startsWith('text/html')) })";

/// Of a window, in CSS pixels.
const HEIGHT: u64 = 980;

/// How a page is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// In CSS pixels.
    pub width: u32,
    /// Whether the system prefers dark colours.
    pub is_dark: bool,
}

impl Look {
    /// A wide and a narrow screen, light and dark.
    pub const ALL: [Self; 4] = [
        Self { width: 1440, is_dark: false },
        Self { width: 1440, is_dark: true },
        Self { width: 420, is_dark: false },
        Self { width: 420, is_dark: true },
    ];
}

/// One browser with one window. A test that does not [end](Self::end) it fails.
pub struct Browser {
    page: Client,
    origin: String,
    is_ended: bool,
    // Last: with it the browser ends.
    driver: Chromedriver,
}

impl Browser {
    /// Starts a browser for the console at this origin; it asks for pages in English.
    pub async fn at(origin: &str) -> Self {
        let mut driver = Chromedriver::start().await;
        let capabilities = driver.capabilities();
        let capabilities = capabilities.as_object().expect("an object").clone();
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(driver.address())
            .await
            .unwrap_or_else(|error| panic!("chromedriver made no session; is Chromium installed? {error}"));
        driver.knows_browser(page.capabilities().and_then(|told| told["goog:processID"].as_u64()));
        let browser = Self { page, origin: origin.to_owned(), is_ended: false, driver };
        browser.cdp("Page.addScriptToEvaluateOnNewDocument", json!({ "source": TELL_VIOLATIONS })).await;
        browser.look(Look::ALL[0]).await;
        browser.page.goto("about:blank").await.unwrap();
        // What Chromium opened by itself before.
        browser.log("browser").await;
        browser.log("performance").await;
        browser
    }

    /// Opens a page: a path of the console, or a whole link.
    pub async fn goto(&self, path: &str) {
        let address = if path.starts_with('/') { format!("{}{path}", self.origin) } else { path.to_owned() };
        self.page.goto(&address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    }

    /// The path of the page that is shown, with its query.
    pub async fn path(&self) -> String {
        let address = self.page.current_url().await.unwrap();
        let query = address.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", address.path())
    }

    /// Waits until this page is shown.
    pub async fn comes_to(&self, path: &str) {
        until(&format!("the browser comes to {path}"), async || (self.path().await == path).then_some(()))
            .await;
    }

    /// Whether something is there by this selector, seen or not.
    pub async fn has(&self, css: &str) -> bool {
        !self.page.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    /// Everything that is to be read on the page.
    pub async fn text(&self) -> String {
        let text = self.glance("return document.body ? document.body.innerText : ''", vec![]).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What is to be read in the first element by this selector; nothing where there is none, or none that is shown.
    pub async fn text_in(&self, css: &str) -> String {
        let script =
            "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''";
        self.glance(script, vec![json!(css)]).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until this is to be read somewhere on the page.
    pub async fn sees(&self, text: &str) {
        self.sees_in("body", text).await;
    }

    /// Waits until this is to be read in the first element by this selector.
    pub async fn sees_in(&self, css: &str, text: &str) {
        let mut last = String::new();
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        while tokio::time::Instant::now() < deadline {
            last = self.text_in(css).await;
            if last.contains(text) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("waited in vain to read {text:?} in {css}; there it says:\n{last}");
    }

    /// Clicks on the button or the link that is called this, as soon as there is one.
    pub async fn press(&self, name: &str) {
        let name = quoted(name);
        let what = format!(
            "//button[normalize-space()={name}] | //a[normalize-space()={name}] | //summary[normalize-space()={name}]"
        );
        // What changes by itself may change between finding and clicking.
        until(&format!("there is {name} to press"), async || self.shown(&what).await?.click().await.ok())
            .await;
    }

    /// Whether there is a button or a link that is called this.
    pub async fn can_press(&self, name: &str) -> bool {
        let name = quoted(name);
        self.shown(&format!("//button[normalize-space()={name}] | //a[normalize-space()={name}]"))
            .await
            .is_some()
    }

    /// Types this into the field that is called so, in place of what is there.
    pub async fn fill(&self, label: &str, value: &str) {
        let field = self.field(label).await;
        field.clear().await.unwrap();
        field.send_keys(value).await.unwrap();
    }

    /// Chooses the option that reads so in the list that is called so.
    pub async fn choose(&self, label: &str, option: &str) {
        self.field(label).await.select_by_label(option).await.unwrap();
    }

    /// What stands in the field that is called so.
    pub async fn value(&self, label: &str) -> String {
        self.field(label).await.prop("value").await.unwrap().unwrap_or_default()
    }

    /// The field with this label.
    pub async fn field(&self, label: &str) -> Element {
        let label = quoted(label);
        let what = format!(
            "//*[@id=//label[normalize-space()={label}]/@for] | //label[normalize-space(text())={label}]//input"
        );
        until(&format!("there is a field {label}"), async || self.shown(&what).await).await
    }

    /// The first element by this XPath that is shown.
    async fn shown(&self, xpath: &str) -> Option<Element> {
        for element in self.page.find_all(Locator::XPath(xpath)).await.ok()? {
            // What is there for screen readers and for the Enter key alone is a point.
            let is_point = element.rectangle().await.is_ok_and(|(_, _, width, _)| width <= 1.0);
            if !is_point && element.is_displayed().await.unwrap_or(false) {
                return Some(element);
            }
        }
        None
    }

    /// Runs a script in the page, past its policy, and gives what it returns.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.page.execute(script, arguments).await.unwrap_or_else(|error| panic!("{error}: {script}"))
    }

    /// The same where a page may go away under it, for another one; then it is nothing.
    async fn glance(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.page.execute(script, arguments).await.unwrap_or_default()
    }

    /// Whether there is a page at this address; it may be that of a file.
    pub async fn is_page(&self, path: &str) -> bool {
        self.page.execute_async(IS_PAGE, vec![json!(path)]).await.unwrap() == json!(true)
    }

    /// Puts a mark into the page, which a page that is loaded anew does not have.
    pub async fn mark(&self) {
        self.run("window.markOfTheTest = true", vec![]).await;
    }

    /// Whether the page is the one that was marked.
    pub async fn is_marked(&self) -> bool {
        self.glance("return window.markOfTheTest === true", vec![]).await == json!(true)
    }

    /// Sets how wide the window is and which colours the system prefers.
    pub async fn look(&self, look: Look) {
        self.sized(look.width, HEIGHT).await;
        let scheme = if look.is_dark { "dark" } else { "light" };
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            // Nothing is on its way from one colour to another while it is looked at.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]});
        self.cdp("Emulation.setEmulatedMedia", media).await;
        // The page is told of it with its next frame.
        let frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))";
        self.page.execute_async(frames, vec![]).await.unwrap();
    }

    /// A picture of the page from its top on, of so many pixels at most, as PNG.
    pub async fn picture(&self, look: Look, most: u64) -> Vec<u8> {
        self.look(look).await;
        let height = self.run("return document.documentElement.scrollHeight", vec![]).await;
        let height = height.as_u64().unwrap_or_default().clamp(HEIGHT, most);
        self.sized(look.width, height).await;
        let picture = self.page.screenshot().await.unwrap();
        self.sized(look.width, HEIGHT).await;
        picture
    }

    async fn sized(&self, width: u32, height: u64) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Uses a one-time link, and so signs in.
    pub async fn uses_link(&self, link: &str, name: Option<&str>) {
        self.goto(link).await;
        if let Some(name) = name {
            self.fill("User name", name).await;
        }
        self.fill("New password", PASSWORD).await;
        self.fill("The same again", PASSWORD).await;
        self.press("Set password and sign in").await;
        self.comes_to("/").await;
    }

    /// Types name and password into the page that asks for them.
    pub async fn signs_in(&self, name: &str, password: &str) {
        self.fill("User name", name).await;
        self.fill("Password", password).await;
        self.press("Sign in").await;
    }

    /// The folder of the browser's process below `/proc`.
    pub fn process(&self) -> Option<PathBuf> {
        self.driver.browser().map(Path::to_owned)
    }

    /// A command of the DevTools protocol.
    async fn cdp(&self, command: &'static str, parameters: Value) -> Value {
        self.page
            .issue_cmd(Cdp(command, parameters))
            .await
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn log(&self, kind: &'static str) -> Value {
        self.page.issue_cmd(Log(kind)).await.unwrap()
    }

    /// What went wrong since the last look, on whatever page.
    pub async fn faults(&self) -> Vec<String> {
        let mut faults = faults::of_console(&self.log("browser").await);
        faults.extend(faults::of_network(&self.log("performance").await, &self.origin));
        faults
    }

    /// Gives a file to the field with this id.
    pub async fn chooses_file(&self, id: &str, file: &Path) {
        let field = self.page.find(Locator::Id(id)).await.unwrap();
        field.send_keys(file.to_str().expect("a path in UTF-8")).await.unwrap();
    }

    /// Lets no more octets a second leave the browser; -1 for as many as can.
    pub async fn sends_at_most(&self, octets: i64) {
        self.cdp("Network.enable", json!({})).await;
        let line =
            json!({ "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": octets });
        self.cdp("Network.emulateNetworkConditions", line).await;
    }

    /// Asserts that since the last look this went wrong, as the test wants it, and nothing else.
    pub async fn met_only(&self, expected: &str) {
        let faults = self.faults().await;
        assert!(
            faults.iter().any(|fault| fault.contains(expected)),
            "expected {expected:?}, found {faults:#?}"
        );
        let others: Vec<_> = faults.iter().filter(|fault| !fault.contains(expected)).collect();
        assert!(others.is_empty(), "beside {expected:?} went wrong: {others:#?}");
    }

    /// Asserts that nothing went wrong, and closes the browser.
    pub async fn end(mut self) {
        self.is_ended = true;
        let faults = self.faults().await;
        assert!(faults.is_empty(), "this went wrong on the pages: {faults:#?}");
        self.page.clone().close().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.driver.kill();
        assert!(self.is_ended || std::thread::panicking(), "a test must end its browser: so its log is read");
    }
}

/// As XPath quotes a text.
fn quoted(text: &str) -> String {
    if text.contains('\'') { format!("\"{text}\"") } else { format!("'{text}'") }
}
