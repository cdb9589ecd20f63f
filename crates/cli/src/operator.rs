//! The client of the server's operator API (`/api/v1`): the only way in which these commands touch a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the server calls the root that its certificate leads to.
const CA_BESIDE_TOKEN: &str = "operator.ca.pem";

/// What these options stand under in the help, behind those of each command.
const HEADING: &str = "Server and answer";

/// Which server, and who asks.
#[derive(Args, Clone)]
pub(crate) struct OperatorArgs {
    /// Address of the server's operator API.
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "FARRIER_SERVER",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub(crate) server: String,

    /// The operator's token; the server writes its first one to operator.token in its data folder.
    #[arg(long, global = true, help_heading = HEADING, env = "FARRIER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// A file that holds the operator's token.
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,

    /// The root certificate (PEM) that the server's certificate must lead to. Without it: operator.ca.pem beside
    /// the token file, else what this machine trusts.
    #[arg(long, global = true, help_heading = HEADING, env = "FARRIER_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Print the answer as JSON, for programs.
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,
}

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    #[error(
        "expected an operator's token, found none: give --token-file DATA/operator.token (the server wrote it at \
         its first start), --token, or FARRIER_TOKEN"
    )]
    NoToken,
    #[error("cannot read the token file {path}; name the operator.token of the server's data folder")]
    TokenFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("expected a token of printable characters in one line, found something else; copy it again")]
    TokenForm,
    #[error(
        "cannot use the root certificate {path}; name the operator.ca.pem of the server's data folder with --ca"
    )]
    Ca {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "expected the server's address as host:port or https://host:port, found {found:?}; correct --server"
    )]
    Address { found: String },
    #[error("cannot reach the server at {url}; start it with `farrier server`, or correct --server")]
    Unreachable {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error(
        "the certificate of the server at {url} is not trusted; name the root certificate that it leads to with --ca or \
         FARRIER_CA (the server writes its own to operator.ca.pem in its data folder)"
    )]
    Untrusted {
        url: Url,
        #[source]
        source: Box<rustls::Error>,
    },
    #[error(
        "expected TLS from the server at {url}, found something else; if it speaks plain HTTP, give --server http://…"
    )]
    NoTls { url: Url },
    #[error("the server at {url} does not take this token: {detail}")]
    Unauthorized { url: Url, detail: String },
    #[error("{message}")]
    Refused { status: StatusCode, code: String, message: String },
    #[error("nothing of these lines was imported:\n{}", told(faults))]
    RefusedLines { faults: Vec<LineFault> },
    #[error(
        "expected the operator API of a Farrier server at {url}, found another answer ({status}); correct --server"
    )]
    NotOurs { url: Url, status: StatusCode },
    #[error("the HTTP client could not be set up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A problem document (RFC 9457), as far as people need it.
#[derive(Deserialize)]
struct Problem {
    title: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    lines: Vec<LineFault>,
}

/// What is wrong in a line of an import.
#[derive(Debug, Deserialize)]
pub(crate) struct LineFault {
    line: usize,
    #[serde(default)]
    field: Option<String>,
    expected: String,
    found: String,
}

impl LineFault {
    fn count_in_file(&mut self, numbers: &[usize]) {
        let number = self.line.checked_sub(1).and_then(|index| numbers.get(index));
        self.line = number.copied().unwrap_or(self.line);
    }
}

fn told(faults: &[LineFault]) -> String {
    let line = |fault: &LineFault| {
        let field = fault.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        crate::output::plain(&format!(
            "line {}: {field}expected {}, found {}",
            fault.line, fault.expected, fault.found
        ))
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Speaks to one server in the name of one operator.
#[derive(Clone)]
pub(crate) struct Operator {
    http: Client,
    base: Url,
    authorization: HeaderValue,
}

impl Operator {
    /// Prepares a client; nothing is sent yet.
    pub(crate) fn new(args: &OperatorArgs) -> Result<Self, OperatorError> {
        let token = match (&args.token, &args.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => read_token(path)?,
            (None, None) => return Err(OperatorError::NoToken),
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| OperatorError::TokenForm)?;
        authorization.set_sensitive(true);
        let beside_token = args.token_file.as_ref().map(|path| path.with_file_name(CA_BESIDE_TOKEN));
        let ca = args.ca.clone().or_else(|| beside_token.filter(|path| path.is_file()));
        Ok(Self { http: http_client(ca.as_deref())?, base: base_url(&args.server)?, authorization })
    }

    /// The address of a path of the same server, for people to open.
    pub(crate) fn address_of(&self, path: &str) -> String {
        self.base.join(path).map_or_else(|_| path.to_owned(), |url| url.to_string())
    }

    pub(crate) async fn get(&self, path: &[&str]) -> Result<Value, OperatorError> {
        self.send(Method::GET, path, None, |request| request).await
    }

    pub(crate) async fn get_with(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, OperatorError> {
        let mut encoded = Url::parse("query:").map_err(|error| OperatorError::Setup(Box::new(error)))?;
        encoded.query_pairs_mut().extend_pairs(query);
        self.send(Method::GET, path, encoded.query(), |request| request).await
    }

    /// A whole list, page by page, oldest or lowest name first as the server gives it.
    pub(crate) async fn list(&self, path: &[&str]) -> Result<Value, OperatorError> {
        self.list_with(path, &[]).await
    }

    /// The same of what a query asks for.
    pub(crate) async fn list_with(
        &self,
        path: &[&str],
        asked: &[(&str, &str)],
    ) -> Result<Value, OperatorError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = vec![("limit", "1000")];
            query.extend(asked);
            query.extend(after.as_deref().map(|after| ("after", after)));
            let mut page = self.get_with(path, &query).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() {
                return Ok(Value::Array(items));
            }
        }
    }

    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, OperatorError> {
        self.send(Method::POST, path, None, |request| request.json(body)).await
    }

    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> Result<Value, OperatorError> {
        self.send(Method::PUT, path, None, |request| request.json(body)).await
    }

    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, OperatorError> {
        self.send(Method::PATCH, path, None, |request| request.json(body)).await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, OperatorError> {
        self.send(Method::DELETE, path, None, |request| request).await
    }

    /// Brings vehicles as JSON lines; `numbers` are the lines of the operator's file that they stand in.
    pub(crate) async fn import(
        &self,
        lines: String,
        dry_run: bool,
        numbers: &[usize],
    ) -> Result<Value, OperatorError> {
        let query = format!("dry_run={dry_run}");
        let with = |request: reqwest::RequestBuilder| {
            request.header(CONTENT_TYPE, "text/plain; charset=utf-8").body(lines)
        };
        let sent = self.send(Method::POST, &["vehicles", "import"], Some(&query), with).await;
        sent.map_err(|mut error| {
            if let OperatorError::RefusedLines { faults } = &mut error {
                faults.iter_mut().for_each(|fault| fault.count_in_file(numbers));
            }
            error
        })
    }

    /// Sends the next part of an image.
    pub(crate) async fn patch_upload(
        &self,
        sha256: &str,
        offset_bytes: u64,
        part: Vec<u8>,
    ) -> Result<Value, OperatorError> {
        let query = format!("offset_bytes={offset_bytes}");
        let with = |request: reqwest::RequestBuilder| {
            request.header(CONTENT_TYPE, "application/octet-stream").body(part)
        };
        self.send(Method::PATCH, &["uploads", sha256], Some(&query), with).await
    }

    /// Fetches what is no JSON, piece by piece; `each` is given the octets as they come.
    pub(crate) async fn fetch(
        &self,
        path: &[&str],
        mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut response = self.request(Method::GET, path, None, |request| request).await?;
        if !response.status().is_success() {
            let (url, status) = (response.url().clone(), response.status());
            let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
            return Err(self.refusal(&body, url, status).into());
        }
        while let Some(octets) = response.chunk().await.map_err(|source| self.unreachable(source))? {
            each(&octets)?;
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: Option<&str>,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Value, OperatorError> {
        let response = self.request(method, path, query, with).await?;
        let (url, status) = (response.url().clone(), response.status());
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| OperatorError::NotOurs { url, status });
        }
        Err(self.refusal(&body, url, status))
    }

    async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: Option<&str>,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, OperatorError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(["api", "v1"]).extend(path);
        }
        url.set_query(query);
        let request = self.http.request(method, url).header(AUTHORIZATION, self.authorization.clone());
        with(request).send().await.map_err(|source| self.unreachable(source))
    }

    fn refusal(&self, body: &[u8], url: Url, status: StatusCode) -> OperatorError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(Problem { detail, .. }) if status == StatusCode::UNAUTHORIZED => {
                OperatorError::Unauthorized { url: self.base.clone(), detail: crate::output::plain(&detail) }
            }
            Ok(Problem { lines, .. }) if !lines.is_empty() => OperatorError::RefusedLines { faults: lines },
            Ok(Problem { title, code, detail, .. }) => OperatorError::Refused {
                status,
                code,
                // The title only names the status.
                message: crate::output::plain(if detail.is_empty() { &title } else { &detail }),
            },
            Err(_) => OperatorError::NotOurs { url, status },
        }
    }
}

impl Operator {
    /// What kept a request from being answered.
    fn unreachable(&self, source: reqwest::Error) -> OperatorError {
        let url = self.base.clone();
        match tls_error(&source) {
            Some(rustls::Error::InvalidMessage(_)) => OperatorError::NoTls { url },
            Some(error @ rustls::Error::InvalidCertificate(_)) => {
                OperatorError::Untrusted { url, source: Box::new(error.clone()) }
            }
            Some(_) | None => OperatorError::Unreachable { url, source: source.without_url() },
        }
    }
}

/// What TLS had against the server, if it is the cause.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error carries is not among its sources, but one below.
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = carried.and_then(|carried| carried.downcast_ref()) {
            return Some(found);
        }
        cause = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

/// Reads what a command needs out of an answer; keys that a newer server adds are ignored.
pub(crate) fn read<T: DeserializeOwned>(answer: &Value) -> anyhow::Result<T> {
    use anyhow::Context;
    T::deserialize(answer)
        .context("the server's answer is not what this program expects; use the same version of both")
}

fn read_token(path: &Path) -> Result<String, OperatorError> {
    std::fs::read_to_string(path).map_err(|source| OperatorError::TokenFile { path: path.to_owned(), source })
}

/// With or without `https://`; plain HTTP only for whoever asks for it.
fn base_url(server: &str) -> Result<Url, OperatorError> {
    let address = || OperatorError::Address { found: server.to_owned() };
    let text = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let url = Url::parse(&text).map_err(|_| address())?;
    let usable = matches!(url.scheme(), "https" | "http") && url.has_host() && matches!(url.path(), "" | "/");
    if usable { Ok(url) } else { Err(address()) }
}

/// Trusts this root and no other; without one, those that the machine trusts. What leads elsewhere is not followed: the API leads
/// nowhere.
pub(crate) fn http_client(ca: Option<&Path>) -> Result<Client, OperatorError> {
    fn setup(error: impl std::error::Error + Send + Sync + 'static) -> OperatorError {
        OperatorError::Setup(Box::new(error))
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?;
    let tls = match (ca, builder.clone().with_platform_verifier()) {
        (Some(path), _) => builder.with_root_certificates(roots(path)?),
        (None, Ok(platform)) => platform,
        // A machine that trusts nobody can still speak plain HTTP; a certificate is refused with what to do.
        (None, Err(_)) => builder.with_root_certificates(RootCertStore::empty()),
    };
    let tls = tls.with_no_client_auth();
    let builder = Client::builder().tls_backend_preconfigured(tls).no_proxy();
    builder.redirect(reqwest::redirect::Policy::none()).build().map_err(setup)
}

fn roots(path: &Path) -> Result<RootCertStore, OperatorError> {
    let unusable = |source| OperatorError::Ca { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.into()))? {
        let certificate = certificate.map_err(|error| unusable(error.into()))?;
        roots.add(certificate).map_err(|error| unusable(error.into()))?;
    }
    if roots.is_empty() { Err(unusable("there is no certificate in it".into())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_accepted_with_and_without_scheme() {
        for server in ["127.0.0.1:8080", "https://127.0.0.1:8080", "https://127.0.0.1:8080/"] {
            assert_eq!(base_url(server).unwrap().as_str(), "https://127.0.0.1:8080/");
        }
        assert_eq!(base_url("http://127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080/");
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_was_found() {
        for server in ["ftp://x", "https://", "https://x/path", ""] {
            let error = base_url(server).unwrap_err().to_string();
            assert!(error.contains(&format!("{server:?}")), "{error}");
        }
    }

    #[test]
    fn a_missing_token_names_every_way_to_give_one() {
        let args = OperatorArgs {
            server: "127.0.0.1:1".to_owned(),
            token: None,
            token_file: None,
            ca: None,
            json: false,
        };
        let error = Operator::new(&args).err().unwrap().to_string();
        for way in ["--token-file", "--token", "FARRIER_TOKEN"] {
            assert!(error.contains(way), "{error}");
        }
    }
}
