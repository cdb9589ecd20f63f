//! The server on somebody's MQTT broker, instead of its own endpoint: as an MQTT 5 client it shares the vehicles'
//! messages with the other servers of its store, and publishes commands to them.
//!
//! Who a message comes from, its topic says: the broker lets each vehicle publish on its own topics only, which
//! is for its operator to set up (docs/broker.md). A message is acknowledged to the broker once it is stored, in the
//! order of arrival. No session of the broker is relied on for commands: they wait in the store.

mod inbox;
mod outbox;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farrier_protocol::Topics;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, Publish};
use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, Event, EventLoop, MqttOptions, TlsConfiguration,
    Transport,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use settings::{BrokerError, BrokerSettings};

pub(crate) use outbox::Wakes;

use crate::conversation::ServerDesk;
use crate::desk::DeskUnavailable;
use settings::BrokerAddress;

/// The largest packet that is taken, in octets: somewhat above the largest payload of the protocol, so that one
/// that is a little too large is refused with a reason.
const MAX_PACKET_OCTETS: u32 = 512 * 1024;
/// Requests to the client that wait; the event loop takes them as fast as the broker does.
const REQUESTS: usize = 256;
/// How long TCP, TLS, CONNECT and SUBSCRIBE may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Waits between two connections grow from the first to the second.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A connection that stood for so long was a good one: the waits begin anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The link with all it needs; [`BrokerLink::run`] is its life.
pub(crate) struct BrokerLink {
    desk: Arc<ServerDesk>,
    topics: Topics,
    wakes: Arc<Wakes>,
    settings: BrokerSettings,
    address: BrokerAddress,
    client_id: String,
    /// Whether it is subscribed at this moment.
    is_connected: Arc<AtomicBool>,
}

/// Why a connection to the broker ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Settings(#[from] BrokerError),
    #[error("the connection to the broker failed")]
    Connection(#[source] Box<rumqttc::ConnectionError>),
    #[error("the broker did not take a command")]
    NotPublished(#[source] rumqttc::PublishNoticeError),
    #[error("the MQTT client is closed")]
    Client(#[from] rumqttc::ClientError),
    #[error("the broker does not let this server subscribe; check the broker's access rules for it")]
    NotSubscribed(#[source] rumqttc::SubscribeNoticeError),
    #[error("the broker did not answer in time")]
    NoAnswer,
    #[error("the broker sent more messages at once than it may")]
    TooManyMessages,
    #[error("a message could not be stored; the broker will send it again")]
    Desk(#[from] DeskUnavailable),
}

impl BrokerLink {
    /// Checks the settings and reads the files; nothing is connected yet.
    ///
    /// # Errors
    /// Names the setting or the file, what was expected of it, and what to do.
    pub(crate) fn new(
        settings: &BrokerSettings,
        node: &str,
        topics: Topics,
        desk: Arc<ServerDesk>,
        wakes: Arc<Wakes>,
    ) -> Result<Self, BrokerError> {
        let client_id = settings.client_id.clone().unwrap_or_else(|| format!("farrier-{node}"));
        let address = settings.address().map_err(BrokerError::from)?;
        let is_connected = Arc::default();
        let link = Self { desk, topics, wakes, settings: settings.clone(), address, client_id, is_connected };
        link.transport()?;
        Ok(link)
    }

    /// Says at any time whether vehicles can be spoken to through it.
    pub(crate) fn is_connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_connected)
    }

    /// Connects again and again until told to stop. What is not acknowledged by then the broker keeps for this
    /// client id, or gives to another server.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let began = tokio::time::Instant::now();
            let ended = self.connect(&shutdown).await;
            self.is_connected.store(false, Ordering::Relaxed);
            let Some(ended) = ended else { return };
            if began.elapsed() >= GOOD_CONNECTION {
                wait = FIRST_WAIT;
            }
            let pause = jittered(wait);
            tracing::warn!(
                error = &ended as &dyn std::error::Error,
                broker = %self.address,
                wait_ms = pause.as_millis(),
                "The server is not connected to the broker; it connects again after a wait."
            );
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One connection; nothing if it ended because the server stops.
    async fn connect(&self, shutdown: &CancellationToken) -> Option<Ended> {
        let options = match self.options() {
            Ok(options) => options,
            Err(error) => return Some(error.into()),
        };
        let (client, mut events) = AsyncClient::builder(options).capacity(REQUESTS).build();
        let (publishes, mut arrived) = mpsc::channel(usize::from(self.settings.unacknowledged));
        // Three that never end by themselves: the event loop must not wait for a commit, nor for the other two.
        let link = async {
            tokio::select! {
                ended = receive(&mut events, &publishes) => ended,
                ended = inbox::take(&self.desk, &self.topics, &client, &mut arrived) => ended,
                ended = self.talk(&client) => ended,
            }
        };
        tokio::pin!(link);
        tokio::select! {
            ended = &mut link => return Some(ended),
            () = shutdown.cancelled() => {}
        }
        // What comes from now on is another server's; what has come is taken and acknowledged, as far as time goes.
        client.unsubscribe(self.filter()).await.ok();
        let is_still_connected = tokio::time::timeout(GOODBYE_TIMEOUT, &mut link).await.is_err();
        if is_still_connected {
            client.disconnect_now().await.ok();
            tokio::time::timeout(GOODBYE_TIMEOUT, link).await.ok();
        }
        None
    }

    /// The files are read for each connection, so that new certificates are taken up.
    fn transport(&self) -> Result<Transport, BrokerError> {
        if !self.address.is_encrypted {
            return Ok(Transport::tcp());
        }
        Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(self.settings.tls()?))))
    }

    fn options(&self) -> Result<MqttOptions, BrokerError> {
        let mut options =
            MqttOptions::new(self.client_id.clone(), (self.address.host.clone(), self.address.port));
        options
            .set_transport(self.transport()?)
            .set_keep_alive(self.settings.keep_alive_s)
            // The broker keeps what this server has not acknowledged, and what comes while it is away; of what is
            // under way to the broker the outbox knows more than a session could.
            .set_clean_start(false)
            .set_session_expiry_interval(Some(self.settings.session_expiry_s))
            .set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly)
            .set_receive_maximum(Some(self.settings.unacknowledged))
            .set_max_packet_size(Some(MAX_PACKET_OCTETS))
            .set_ack_mode(AckMode::Manual);
        Ok(options)
    }

    /// What all servers of a store subscribe to together; each message goes to one of them.
    fn filter(&self) -> String {
        format!("$share/{}/{}", self.settings.share, self.topics.all_up())
    }

    /// Subscribes, then publishes what is in the outbox for whoever is there.
    async fn talk(&self, client: &AsyncClient) -> Ended {
        let filter = self.filter();
        let subscribed = async {
            let notice = client.subscribe_tracked(filter.clone(), QoS::AtLeastOnce).await?;
            notice.wait_completion_async().await.map_err(Ended::NotSubscribed)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, subscribed).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => return ended,
            Err(_) => return Ended::NoAnswer,
        }
        tracing::info!(broker = %self.address, client_id = self.client_id, filter, "The server is connected to the broker.");
        self.is_connected.store(true, Ordering::Relaxed);
        outbox::publish_all(&self.desk, &self.topics, &self.wakes, client).await
    }
}

/// Moves the connection forward and hands over what comes in.
async fn receive(events: &mut EventLoop, publishes: &mpsc::Sender<Publish>) -> Ended {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                // Waiting here would stop the acknowledgements that make room.
                if publishes.try_send(publish).is_err() {
                    return Ended::TooManyMessages;
                }
            }
            Ok(_) => {}
            Err(error) => return Ended::Connection(Box::new(error)),
        }
    }
}

/// Between half of it and all of it, so that servers do not come back all at once.
fn jittered(wait: Duration) -> Duration {
    let mut octet = [0_u8; 1];
    // Without random numbers the wait is the same for all, which is no reason to give up.
    let _ = aws_lc_rs::rand::fill(&mut octet);
    wait.mul_f64(0.5 + f64::from(octet[0]) / 510.0)
}
