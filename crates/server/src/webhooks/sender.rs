//! Sends one request to a webhook's receiver: resolves, connects, signs, and reads the beginning of the answer. No
//! redirect is followed, no connection kept, and everything together has ten seconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use farrier_protocol::UnixMillis;
use futures_util::StreamExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::WebhookSettings;
use super::address::{Target, may_connect};
use crate::store::webhooks::{Delivery, Webhook};
use crate::tls::outgoing::{self, OutgoingTlsError};

/// For one attempt, from the name's look-up to the answer.
const TIME: Duration = Duration::from_secs(10);
/// Octets of an answer's body that are kept.
const EXCERPT: usize = 1024;
/// Octets of an answer's header.
const MOST_HEADER_OCTETS: usize = 16 * 1024;
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the receiver did not answer within {0:?}")]
    TooSlow(Duration),
    #[error("the settings do not let webhooks go by http any more")]
    Insecure,
    #[error("the host's name could not be resolved")]
    Unresolved,
    #[error("the host has no public address, and the settings let webhooks go to no other")]
    PrivateAddress,
    #[error("could not connect: {0}")]
    Connect(std::io::ErrorKind),
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("the receiver did not speak HTTP to the end: {0}")]
    Http(hyper::Error),
    #[error("the request could not be made")]
    Request,
}

/// What a receiver answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) excerpt: String,
}

impl Answer {
    pub(crate) fn outcome(&self) -> String {
        match self.status {
            300..=399 => format!("answered {}; redirects are not followed", self.status),
            status => format!("answered {status}"),
        }
    }
}

/// Sends.
pub(crate) struct Sender {
    tls: TlsConnector,
    settings: WebhookSettings,
    time: Duration,
}

impl Sender {
    pub(crate) fn new(settings: &WebhookSettings) -> Result<Self, OutgoingTlsError> {
        let tls = outgoing::trusting(settings.roots.as_deref(), "webhooks.roots")?;
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), settings: settings.clone(), time: TIME })
    }

    /// The same with less patience.
    #[cfg(test)]
    pub(crate) fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    pub(super) async fn send(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        now: UnixMillis,
    ) -> Result<Answer, SendError> {
        let request = request(webhook, delivery, now).ok_or(SendError::Request)?;
        let exchange = timeout(self.time, self.exchange(&webhook.url, request));
        exchange.await.map_err(|_| SendError::TooSlow(self.time))?
    }

    async fn exchange(&self, target: &Target, request: Request<Body>) -> Result<Answer, SendError> {
        if !target.is_tls && !self.settings.allow_insecure_http {
            return Err(SendError::Insecure);
        }
        let stream = self.connect(target).await?;
        if !target.is_tls {
            return exchange_over(stream, request).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| SendError::Unresolved)?;
        let stream = self.tls.connect(name, stream).await.map_err(SendError::Tls)?;
        exchange_over(stream, request).await
    }

    /// The addresses are looked at here, where they are used: what a name leads to can change at any time.
    async fn connect(&self, target: &Target) -> Result<TcpStream, SendError> {
        let found = lookup_host((target.host.as_str(), target.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| SendError::Unresolved)?.collect();
        let allowed = found.iter().filter(|address| may_connect(address.ip(), &self.settings));
        let mut last = if found.is_empty() { SendError::Unresolved } else { SendError::PrivateAddress };
        for address in allowed.take(MOST_ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Without it the request only waits; it is no reason to fail.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = SendError::Connect(error.kind()),
            }
        }
        Err(last)
    }
}

async fn exchange_over<S>(stream: S, request: Request<Body>) -> Result<Answer, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEADER_OCTETS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(SendError::Http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(SendError::Http)?;
        let status = response.status().as_u16();
        Ok(Answer { status, excerpt: excerpt(Body::new(response.into_body())).await })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection carries the exchange, and ends with it.
    tokio::select! {
        biased;
        answer = exchange.as_mut() => answer,
        ended = connection.as_mut() => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(SendError::Http(error)),
        },
    }
}

/// The first octets of a body as text that can stand in a table; where it breaks off, what came.
async fn excerpt(body: Body) -> String {
    let (mut octets, mut stream) = (Vec::new(), body.into_data_stream());
    while octets.len() < EXCERPT
        && let Some(Ok(more)) = stream.next().await
    {
        octets.extend(more.iter().take(EXCERPT.saturating_sub(octets.len())));
    }
    let text = String::from_utf8_lossy(&octets);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn request(webhook: &Webhook, delivery: &Delivery, now: UnixMillis) -> Option<Request<Body>> {
    let mut signatures = webhook.secret.sign(&delivery.event_id, now, &delivery.body);
    if let Some((earlier, until)) = &webhook.earlier
        && now.0 < until.0
    {
        signatures = format!("{signatures} {}", earlier.sign(&delivery.event_id, now, &delivery.body));
    }
    let mut signatures = HeaderValue::try_from(signatures).ok()?;
    signatures.set_sensitive(true);
    let target = &webhook.url;
    let request = Request::post(target.path_and_query.as_str())
        .header(header::HOST, target.authority.as_str())
        .header(header::USER_AGENT, concat!("farrier/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, delivery.body.len())
        .header(header::CONNECTION, "close")
        .header("webhook-id", delivery.event_id.as_str())
        .header("webhook-timestamp", now.0.div_euclid(1000))
        .header("webhook-signature", signatures);
    request.body(Body::from(delivery.body.clone())).ok()
}
