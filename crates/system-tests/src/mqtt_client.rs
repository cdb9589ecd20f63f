//! An MQTT 5 client in the place of a gateway, for what a real gateway would never do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::{AsyncClient, Event, MqttOptions, PublishOptions, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::PATIENCE;

/// How long a message is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// One connection; it is not made again when it ends.
pub struct MqttClient {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    task: JoinHandle<()>,
}

impl MqttClient {
    /// Connects with the certificates in a folder; `None` if the server did not want it.
    pub async fn connect(port: u16, certificates: &Path, client_id: &str) -> Option<Self> {
        let mut options = MqttOptions::new(client_id, ("localhost", port));
        options.set_clean_start(true);
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
        let mut connected = Self { client, packets, task };
        match connected.next().await {
            Some(Packet::ConnAck(ack)) if ack.code == ConnectReturnCode::Success => Some(connected),
            _ => None,
        }
    }

    /// Publishes with QoS 1; the reason of the acknowledgement, or `None` if the connection was closed instead.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Option<PubAckReason> {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        self.client.publish(topic, payload.into(), options).await.ok()?;
        loop {
            if let Packet::PubAck(ack) = self.next().await? {
                return Some(ack.reason);
            }
        }
    }

    /// Subscribes with QoS 1; the reason, or `None` if the connection was closed instead.
    pub async fn subscribe(&mut self, filter: &str) -> Option<SubscribeReasonCode> {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.ok()?;
        loop {
            if let Packet::SubAck(ack) = self.next().await? {
                return ack.return_codes.first().copied();
            }
        }
    }

    /// The next message for this client, as JSON.
    pub async fn message(&mut self) -> serde_json::Value {
        loop {
            if let Packet::Publish(publish) = self.next().await.expect("an open connection") {
                return serde_json::from_slice(&publish.payload).unwrap();
            }
        }
    }

    /// Asserts that nothing is sent to this client for a moment.
    pub async fn hears_nothing(&mut self) {
        let heard = tokio::time::timeout(SILENCE, async {
            loop {
                match self.packets.recv().await {
                    Some(Packet::Publish(publish)) => return publish,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        });
        if let Ok(publish) = heard.await {
            panic!("expected no message, found {publish:?}");
        }
    }

    /// Breaks the connection without a word.
    pub fn vanish(self) {
        self.task.abort();
    }

    async fn next(&mut self) -> Option<Packet> {
        tokio::time::timeout(PATIENCE, self.packets.recv())
            .await
            .expect("a packet or an end within the patience")
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
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.join("ca.pem")).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}
