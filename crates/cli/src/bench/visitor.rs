//! Somebody who looks at the console of a bench.

use std::path::Path;

use anyhow::{Context, ensure};
use farrier_server::RunningServer;
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Client, Response, StatusCode};

use crate::operator::http_client;

const PASSWORD: &str = "a password for one bench";

/// Somebody who has signed in.
pub(super) struct Visitor {
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) cookie: String,
    ca: std::path::PathBuf,
}

impl Visitor {
    /// Comes in by the link for the first admin.
    pub(super) async fn first(server: &RunningServer) -> anyhow::Result<Self> {
        let link = server.console_link.as_deref().context("the server made no link into the console")?;
        let ca = server.operator_ca.as_ref().context("the server has no certificate of its own authority")?;
        let form = format!("name=bench&password={0}&again={0}", PASSWORD.replace(' ', "+"));
        Self::sign_in(server.operator_url.clone(), ca, link, form).await
    }

    /// The same person comes again, to another server over the same data.
    pub(super) async fn again(url: String, ca: &Path) -> anyhow::Result<Self> {
        let form = format!("name=bench&password={}", PASSWORD.replace(' ', "+"));
        let door = format!("{url}/sign-in");
        Self::sign_in(url, ca, &door, form).await
    }

    async fn sign_in(url: String, ca: &Path, door: &str, form: String) -> anyhow::Result<Self> {
        let mut visitor =
            Self { client: http_client(Some(ca))?, url, cookie: String::new(), ca: ca.to_owned() };
        let answer = visitor.send(door, form).await?;
        ensure!(answer.status() == StatusCode::SEE_OTHER, "signing in was refused: {}", answer.status());
        let cookie = answer.headers().get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).context("no session was made")?;
        visitor.cookie = cookie.to_owned();
        Ok(visitor)
    }

    /// The same session from another browser, with a connection of its own.
    pub(super) fn another(&self) -> anyhow::Result<Self> {
        let client = http_client(Some(&self.ca))?;
        Ok(Self { client, url: self.url.clone(), cookie: self.cookie.clone(), ca: self.ca.clone() })
    }

    /// A page that has to be there.
    pub(super) async fn page(&self, path: &str) -> anyhow::Result<String> {
        let request = self.client.get(format!("{}{path}", self.url)).header(COOKIE, &self.cookie);
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status == StatusCode::OK, "expected the page {path}, found {status}");
        Ok(body)
    }

    /// Sends a form of one of the pages.
    pub(super) async fn post(&self, path: &str, form: String) -> anyhow::Result<Response> {
        self.send(&format!("{}{path}", self.url), form).await
    }

    async fn send(&self, address: &str, form: String) -> anyhow::Result<Response> {
        let request = self.client.post(address).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        Ok(request.header(COOKIE, &self.cookie).body(form).send().await?)
    }
}
