//! An MQTT 5 client in the place of a gateway, for what a real gateway would never do.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::{AsyncClient, Event, MqttOptions, PublishOptions, TlsConfiguration, Transport};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::PATIENCE;

/// The largest packet that a server sends: a command of 256 KiB and what stands around it.
const MOST_OCTETS: u32 = 512 * 1024;
/// How long a message is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// One connection; it is not made again when it ends.
pub struct MqttClient {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    /// Messages that came while something else was waited for: they may overtake an acknowledgement.
    messages: VecDeque<Publish>,
    task: JoinHandle<()>,
}

impl MqttClient {
    /// Connects with the certificates in a folder; `None` if the server did not want it.
    pub async fn connect(port: u16, certificates: &Path, client_id: &str) -> Option<Self> {
        let mut options = MqttOptions::new(client_id, ("localhost", port));
        options.set_clean_start(true);
        options.set_max_packet_size(Some(MOST_OCTETS));
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls(certificates)))));
        let (client, mut event_loop) = AsyncClient::builder(options).capacity(64).build();
        let (sender, packets) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(event) = event_loop.poll().await {
                if let Event::Incoming(packet) = event
                    && sender.send(packet).is_err()
                {
                    return;
                }
            }
        });
        let mut connected = Self { client, packets, messages: VecDeque::new(), task };
        let code = connected.answer(|packet| {
            let Packet::ConnAck(ack) = packet else { return None };
            Some(ack.code)
        });
        (code.await == Some(ConnectReturnCode::Success)).then_some(connected)
    }

    /// Publishes with QoS 1; the reason of the acknowledgement, or `None` if the connection was closed instead.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Option<PubAckReason> {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        self.client.publish(topic, payload.into(), options).await.ok()?;
        self.answer(|packet| {
            let Packet::PubAck(ack) = packet else { return None };
            Some(ack.reason)
        })
        .await
    }

    /// Subscribes with QoS 1; the reason, or `None` if the connection was closed instead.
    pub async fn subscribe(&mut self, filter: &str) -> Option<SubscribeReasonCode> {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.ok()?;
        self.answer(|packet| {
            let Packet::SubAck(ack) = packet else { return None };
            ack.return_codes.first().copied()
        })
        .await
    }

    /// The next message for this client, as JSON.
    pub async fn message(&mut self) -> serde_json::Value {
        let publish = match self.messages.pop_front() {
            Some(publish) => publish,
            None => {
                let heard = tokio::time::timeout(PATIENCE, self.next_message()).await;
                heard.expect("a message within the patience").expect("an open connection")
            }
        };
        serde_json::from_slice(&publish.payload).unwrap()
    }

    /// The next message for this client, as JSON; `None` if the connection ends before.
    pub async fn next(&mut self) -> Option<serde_json::Value> {
        let publish = match self.messages.pop_front() {
            Some(publish) => publish,
            None => self.next_message().await?,
        };
        Some(serde_json::from_slice(&publish.payload).unwrap())
    }

    /// Asserts that nothing is sent to this client for a moment.
    pub async fn hears_nothing(&mut self) {
        assert!(self.messages.is_empty(), "expected no message, found {:?}", self.messages);
        // A connection that was closed hears nothing either.
        if let Ok(Some(publish)) = tokio::time::timeout(SILENCE, self.next_message()).await {
            panic!("expected no message, found {publish:?}");
        }
    }

    /// Waits until the server ends the connection; `false` if it does not.
    pub async fn ends(&mut self) -> bool {
        let end = async {
            while let Some(packet) = self.packets.recv().await {
                if matches!(packet, Packet::Disconnect(_)) {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.is_ok()
    }

    /// Breaks the connection without a word.
    pub fn vanish(self) {
        self.task.abort();
    }

    async fn next_message(&mut self) -> Option<Publish> {
        loop {
            if let Packet::Publish(publish) = self.packets.recv().await? {
                return Some(publish);
            }
        }
    }

    /// The answer that `wanted` finds in a packet; `None` if the connection ends before.
    async fn answer<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> Option<T> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let packet = self.packets.recv().await?;
                if let Some(answer) = wanted(&packet) {
                    return Some(answer);
                }
                if let Packet::Publish(publish) = packet {
                    self.messages.push_back(publish);
                }
            }
        });
        found.await.expect("an answer or an end within the patience")
    }
}

/// TLS 1.3 with the certificate in a folder, and nothing but the hybrid key exchange.
pub fn tls(certificates: &Path) -> rustls::ClientConfig {
    let chain = CertificateDer::pem_file_iter(certificates.join("cert.pem")).unwrap();
    tls_builder(certificates)
        .with_client_auth_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(certificates.join("key.pem")).unwrap(),
        )
        .unwrap()
}

/// The same without a certificate of its own.
pub fn tls_without_certificate(certificates: &Path) -> rustls::ClientConfig {
    tls_builder(certificates).with_no_client_auth()
}

fn tls_builder(
    certificates: &Path,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // The second for Debian's mosquitto; Farrier's servers do not take it.
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.join("ca.pem")).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}
