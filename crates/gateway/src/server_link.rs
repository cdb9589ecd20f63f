//! The MQTT connection to the server: comes back without end, takes commands in, sends the outbox.
//!
//! A command is acknowledged only after it is in the journal. A message stays in the journal until the
//! server acknowledged it, so it is sent again, with the same `msg_id` and content, over any number of
//! connections and restarts. The client's own session state is thrown away with each connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farrier_protocol::{
    Binding, MsgId, Refusal, ServerMessage, Sha256, Text, Thumbprint, Topics, UnixMillis, UpTopic,
    VehicleBody, VehicleMessage, WakeUp,
};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason, Publish};
use rumqttc::{
    AckMode, AsyncClient, Event, EventLoop, MqttOptions, PublishNoticeError, PublishOptions, PublishResult,
    TlsConfiguration, Transport,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::GatewayFailure;
use crate::backoff::{Backoff, random_u64};
use crate::clock;
use crate::error_text::with_causes;
use crate::identity;
use crate::journal::{Journal, Outgoing};
use crate::status::Status;

/// Commands that may be under way to us without acknowledgement.
const RECEIVE_MAXIMUM: u16 = 16;
/// The largest packet taken: 256 KiB of payload (protocol.md §2), the topic and the header.
const MAX_PACKET_BYTES: u32 = 260 * 1024;
/// How long the server may take to acknowledge a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long TCP, TLS, CONNECT and SUBSCRIBE may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a clean stop may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A command as it came in.
#[derive(Debug)]
pub(crate) struct Received {
    pub msg_id: MsgId,
    /// What it says, or why it cannot be read.
    pub message: Result<ServerMessage, Refusal>,
    pub received_at: UnixMillis,
}

/// This boot of the gateway, as WakeUp tells it.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub boot_id: Text,
    pub boot_seq: u64,
    pub began: Instant,
    /// SHA-256 of this gateway's certificate.
    pub thumbprint: Thumbprint,
}

impl Boot {
    /// What the server is told after each connect.
    pub(crate) fn wake_up(&self, vci_digest: Option<Sha256>) -> WakeUp {
        WakeUp {
            boot_id: self.boot_id.clone(),
            boot_seq: self.boot_seq,
            uptime_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            client_cert_thumbprint: self.thumbprint.clone(),
            vci_digest,
        }
    }
}

/// The link with all it needs; [`ServerLink::run`] is its life.
pub(crate) struct ServerLink {
    pub binding: Binding,
    pub topics: Topics,
    pub server: (String, u16),
    pub keep_alive_s: u16,
    pub tls: Arc<rustls::ClientConfig>,
    pub boot: Boot,
    pub backoff: Backoff,
    pub journal: Journal,
    /// Something new is in the outbox.
    pub outgoing: Arc<Notify>,
    /// A command was taken in.
    pub incoming: Arc<Notify>,
    pub status: watch::Sender<Status>,
    pub stop: CancellationToken,
}

/// Why a connection ended, if not for good.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection to the server failed")]
    Connection(#[source] Box<rumqttc::ConnectionError>),
    #[error("the MQTT client is closed")]
    Client(#[from] rumqttc::ClientError),
    #[error("the server does not let this gateway subscribe to its own topic; is it enrolled?")]
    NotSubscribed(#[source] rumqttc::SubscribeNoticeError),
    #[error("the server did not take a message")]
    NotPublished(#[source] PublishNoticeError),
    #[error("the server did not answer in time")]
    NoAnswer,
    #[error("the server sent more commands at once than it may")]
    TooManyCommands,
    #[error(transparent)]
    Gateway(#[from] GatewayFailure),
}

impl ServerLink {
    /// Connects again and again until told to stop.
    ///
    /// # Errors
    /// Only those that stop the gateway: above all a journal that cannot be written.
    pub(crate) async fn run(mut self) -> Result<(), GatewayFailure> {
        loop {
            let Some(ended) = self.connect().await else { return Ok(()) };
            if self.status.borrow().connected {
                self.backoff.reset();
            }
            self.status.send_modify(|status| status.connected = false);
            if let Ended::Gateway(failure) = ended {
                return Err(failure);
            }
            let wait = self.backoff.next_wait(random_u64());
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(why = with_causes(&ended), wait_ms, "The gateway connects again after a wait.");
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection; nothing if it ended because the gateway stops.
    async fn connect(&self) -> Option<Ended> {
        let (client, mut events) = AsyncClient::builder(self.options()).capacity(64).build();
        let (publishes, mut taken) = mpsc::channel(usize::from(RECEIVE_MAXIMUM));
        let ended = tokio::select! {
            ended = receive(&mut events, &publishes) => ended,
            ended = self.talk(&client) => ended,
            ended = self.take_in(&client, &mut taken) => ended,
            () = self.stop.cancelled() => {
                let goodbye = async {
                    client.disconnect_now().await.ok();
                    while events.poll().await.is_ok() {}
                };
                tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.ok();
                return None;
            }
        };
        Some(ended)
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(self.binding.client_id(), (self.server.0.clone(), self.server.1));
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(self.tls.clone())))
            .set_keep_alive(self.keep_alive_s)
            .set_clean_start(true)
            .set_receive_maximum(Some(RECEIVE_MAXIMUM))
            .set_max_packet_size(Some(MAX_PACKET_BYTES))
            .set_ack_mode(AckMode::Manual);
        options
    }

    /// Subscribes, says WakeUp, then sends whatever is in the outbox.
    async fn talk(&self, client: &AsyncClient) -> Ended {
        match self.try_to_talk(client).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_to_talk(&self, client: &AsyncClient) -> Result<std::convert::Infallible, Ended> {
        let notice = client.subscribe_tracked(self.topics.down(&self.binding), QoS::AtLeastOnce).await?;
        let subscribed = tokio::time::timeout(CONNECT_TIMEOUT, notice.wait_completion_async()).await;
        subscribed.map_err(|_| Ended::NoAnswer)?.map_err(Ended::NotSubscribed)?;
        self.publish(client, UpTopic::Wakeup, self.wake_up().await?.to_json()).await?;
        self.status.send_modify(|status| status.connected = true);
        tracing::info!(server = %self.server.0, "The gateway is connected.");
        loop {
            // Asked for before the look into the outbox, so that nothing stored after it is missed.
            let more = self.outgoing.notified();
            while let Some(message) = self.next_outgoing().await? {
                self.publish(client, message.topic, message.payload).await?;
                self.journal.acknowledged(message.sequence).await.map_err(GatewayFailure::from)?;
            }
            more.await;
        }
    }

    async fn next_outgoing(&self) -> Result<Option<Outgoing>, Ended> {
        Ok(self.journal.next_outgoing().await.map_err(GatewayFailure::from)?)
    }

    async fn wake_up(&self) -> Result<VehicleMessage, Ended> {
        let vci_digest = self.journal.vci_digest().await.map_err(GatewayFailure::from)?;
        let body = VehicleBody::WakeUp(self.boot.wake_up(vci_digest));
        Ok(identity::message(&self.binding, body).map_err(GatewayFailure::from)?)
    }

    /// Publishes and waits for the acknowledgement; one that the server refuses for good counts as taken.
    async fn publish(&self, client: &AsyncClient, topic: UpTopic, payload: Vec<u8>) -> Result<(), Ended> {
        let name = self.topics.up(&self.binding, topic);
        loop {
            let options = PublishOptions::new(QoS::AtLeastOnce);
            let notice = client.publish_tracked(name.clone(), payload.clone(), options).await?;
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, notice.wait_async()).await;
            let reason = match answer.map_err(|_| Ended::NoAnswer)? {
                Ok(PublishResult::Qos1(ack)) => ack.reason,
                Err(PublishNoticeError::V5PubAck(reason)) => reason,
                Ok(
                    PublishResult::Qos0Flushed
                    | PublishResult::Qos2Completed(_)
                    | PublishResult::Qos2PubRecRejected(_),
                ) => return Err(Ended::NoAnswer),
                Err(error) => return Err(Ended::NotPublished(error)),
            };
            match reason {
                PubAckReason::Success => return Ok(()),
                PubAckReason::QuotaExceeded => {
                    tracing::warn!(%topic, "The server takes no more messages for now.");
                    tokio::time::sleep(self.backoff.clone().next_wait(random_u64())).await;
                }
                // So says a broker whose server is away; the message would be lost.
                PubAckReason::NoMatchingSubscribers => {
                    tracing::info!(%topic, "No server listens at the broker; the message is sent again after a wait.");
                    tokio::time::sleep(self.backoff.clone().next_wait(random_u64())).await;
                }
                PubAckReason::UnspecifiedError
                | PubAckReason::ImplementationSpecificError
                | PubAckReason::NotAuthorized
                | PubAckReason::TopicNameInvalid
                | PubAckReason::PacketIdentifierInUse
                | PubAckReason::PayloadFormatInvalid => {
                    tracing::error!(%topic, ?reason, "The server refuses a message; it is not sent again.");
                    return Ok(());
                }
            }
        }
    }

    /// Stores commands, tells the agent, acknowledges them.
    async fn take_in(&self, client: &AsyncClient, publishes: &mut mpsc::Receiver<Publish>) -> Ended {
        while let Some(publish) = publishes.recv().await {
            if let Err(ended) = self.take_one_in(client, &publish).await {
                return ended;
            }
        }
        Ended::NoAnswer
    }

    async fn take_one_in(&self, client: &AsyncClient, publish: &Publish) -> Result<(), Ended> {
        let received_at = clock::now();
        let payload = publish.payload.to_vec();
        if let Some(command) = Received::read(&payload, received_at, &self.binding) {
            self.journal.take_in(command.msg_id, payload, received_at).await.map_err(GatewayFailure::from)?;
            // Told for known ones too: the connection may have broken after the first was stored.
            self.incoming.notify_one();
        }
        client.ack(publish).await?;
        Ok(())
    }
}

impl Received {
    /// Reads a command; nothing if it cannot be answered, since it is another's or names no `msg_id`.
    pub(crate) fn read(payload: &[u8], received_at: UnixMillis, binding: &Binding) -> Option<Self> {
        match ServerMessage::parse(payload) {
            Ok(message) if message.binding() != *binding => {
                tracing::error!(found = %message.binding(), "A command for another vehicle came in.");
                None
            }
            Ok(message) => Some(Self { msg_id: message.msg_id.clone(), message: Ok(message), received_at }),
            Err(refused) => {
                tracing::warn!(msg_id = ?refused.msg_id, why = %refused.refusal, "A command is not understood.");
                refused.msg_id.map(|msg_id| Self { msg_id, message: Err(refused.refusal), received_at })
            }
        }
    }
}

/// Moves the connection forward and hands over what is published to us.
async fn receive(events: &mut EventLoop, publishes: &mpsc::Sender<Publish>) -> Ended {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                // Waiting here would stop the acknowledgements that make room.
                if publishes.try_send(publish).is_err() {
                    return Ended::TooManyCommands;
                }
            }
            Ok(_) => {}
            Err(error) => return Ended::Connection(Box::new(error)),
        }
    }
}
