//! The whole server behind the endpoint: what a vehicle hears, and what operators find in the store.

use farrier_protocol::{Thumbprint, VehicleId};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::*;
use crate::store::vehicles::{self, EnrolledBy};
use crate::store::{StoreError, Tx, messages, security_events};
use crate::{RunningServer, Server, ServerConfig};

/// A server with an authority of its own, which knows the vehicle VEH_001.
pub(super) struct RealServer {
    pub(super) bed: Testbed,
    pub(super) server: RunningServer,
    pub(super) certificates: std::path::PathBuf,
}

impl RealServer {
    pub(super) async fn start(limits: MqttLimits) -> Self {
        let bed = Testbed::new();
        let certificates = bed.vehicle(&own());
        let mut config = ServerConfig::for_one_machine(bed.path("data"), bed.path("pki"));
        for address in [&mut config.mqtt.listen, &mut config.https, &mut config.operator] {
            address.set_port(0);
        }
        config.mqtt.limits = limits;
        let server = Server::start(config).await.unwrap();
        let real = Self { bed, server, certificates };
        let thumbprint = real.thumbprint();
        real.write(move |tx| {
            vehicles::enrol(tx, &own(), EnrolledBy::Operator, now())?;
            vehicles::set_thumbprint(tx, &own().vehicle_id, Some(&thumbprint))
        })
        .await;
        real
    }

    pub(super) fn thumbprint(&self) -> Thumbprint {
        let leaf = CertificateDer::from_pem_file(self.certificates.join("cert.pem")).unwrap();
        Thumbprint::of_certificate(&leaf)
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.server.store.write(job).await.unwrap()
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.server.store.read(job).await.unwrap()
    }

    /// The vehicle's connection, not yet accepted.
    async fn dial(&self, version: Version) -> Client<TlsStream<TcpStream>> {
        let stream = connect(self.bed.usual_client(&self.certificates), self.server.mqtt.unwrap().port())
            .await
            .unwrap();
        Client::new(stream, version)
    }

    /// The vehicle, connected.
    pub(super) async fn vehicle(&self, version: Version) -> Client<TlsStream<TcpStream>> {
        let mut vehicle = self.dial(version).await;
        vehicle.connect("VEH_001_CCU_001").await;
        assert_eq!(vehicle.frame().await.unwrap().body[..2], [0, 0]);
        vehicle
    }
}

/// What a vehicle heard: acknowledgements, by packet id, and messages, which are acknowledged in turn.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Puback { packet_id: u16, reason: Option<u8> },
    Message(Value),
    Closed { reason: Option<u8> },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) async fn hear(&mut self) -> Heard {
        let Some(frame) = self.frame().await else { return Heard::Closed { reason: None } };
        match frame.kind {
            4 => Heard::Puback {
                packet_id: u16::from_be_bytes([frame.body[0], frame.body[1]]),
                reason: frame.body.get(2).copied(),
            },
            3 => {
                let topic_octets = usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
                let (packet_id, rest) = frame.body[2 + topic_octets..].split_at(2);
                self.puback(u16::from_be_bytes([packet_id[0], packet_id[1]])).await;
                let properties = match self.version {
                    Version::V5_0 => 1 + usize::from(rest[0]),
                    Version::V3_1_1 => 0,
                };
                Heard::Message(serde_json::from_slice(&rest[properties..]).unwrap())
            }
            14 => Heard::Closed { reason: frame.body.first().copied() },
            kind => panic!("a packet of kind {kind}: {frame:?}"),
        }
    }
}

async fn security_events(real: &RealServer) -> Vec<String> {
    let vehicle: VehicleId = own().vehicle_id;
    let events = real.read(move |tx| security_events::of_vehicle(tx, &vehicle, 10)).await;
    events.into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn a_vehicle_above_its_rate_hears_why_once_and_operators_find_it_in_the_store() {
    let limits = MqttLimits {
        messages_per_second: 1,
        message_burst: 2,
        rate_refusals: 1000,
        connects_per_minute: 2,
        ..MqttLimits::default()
    };
    let real = RealServer::start(limits).await;
    let mut vehicle = real.vehicle(Version::V5_0).await;
    vehicle.subscribe(&[(DOWN, 1)]).await;
    vehicle.expect_suback().await;
    let mut refused_for_rate = 0;
    let mut told = Vec::new();
    for packet_id in 1..=20 {
        let payload = format!(
            r#"{{"msg_id":"M{packet_id}","proto_ver":"1.0","type":"WakeUp","vehicle_id":"VEH_001","gateway_id":"CCU_001","ts":1}}"#
        );
        vehicle.publish(UP, Some(packet_id), payload.as_bytes()).await;
        loop {
            match vehicle.hear().await {
                Heard::Puback { packet_id: acknowledged, reason } => {
                    assert_eq!(acknowledged, packet_id);
                    refused_for_rate += u32::from(reason == Some(0x97));
                    break;
                }
                Heard::Message(message) => told.push(message),
                Heard::Closed { reason } => panic!("closed: {reason:?}"),
            }
        }
    }
    assert!(refused_for_rate >= 10, "{refused_for_rate}");
    while !told.iter().any(|message| message["code"] == "RATE_LIMITED") {
        match vehicle.hear().await {
            Heard::Message(message) => told.push(message),
            other @ (Heard::Puback { .. } | Heard::Closed { .. }) => panic!("{other:?}"),
        }
    }
    vehicle.ping().await;
    vehicle.expect_pong().await;
    let rate_limited: Vec<_> = told.iter().filter(|message| message["code"] == "RATE_LIMITED").collect();
    let [told] = rate_limited.as_slice() else { panic!("{rate_limited:?}") };
    assert_eq!(told["type"], "MessageRejected");
    assert!(told["correlation_id"].as_str().unwrap().starts_with('M'), "{told}");
    let stored = real.read(|tx| messages::refused_of(tx, &own().vehicle_id, 100)).await;
    assert_eq!(stored.iter().filter(|refused| refused.refusal.code.name() == "RATE_LIMITED").count(), 1);

    drop(vehicle);
    for _ in 0..2 {
        let mut banned = real.dial(Version::V5_0).await;
        banned.connect("VEH_001_CCU_001").await;
        banned.frame().await;
    }
    // The event is stored beside the refusal; the writer does jobs in their order, so this one is behind it.
    while !security_events(&real).await.contains(&"BAN".to_owned()) {
        real.write(|_| Ok(())).await;
    }
    real.server.stop().await;
}

#[tokio::test]
async fn a_vehicle_that_is_bound_anew_loses_its_connection_unless_its_certificate_stays() {
    let real = RealServer::start(MqttLimits::default()).await;
    let mut vehicle = real.vehicle(Version::V5_0).await;
    let rebind = |gateway_id: &'static str, thumbprint: Option<Thumbprint>| {
        real.write(move |tx| {
            let before = vehicles::by_id(tx, &own().vehicle_id)?.unwrap();
            let binding = Binding { gateway_id: gateway_id.parse().unwrap(), ..own() };
            vehicles::rebind(tx, &before, &binding, thumbprint.as_ref(), &"repair".parse().unwrap(), now())
        })
    };
    rebind("CCU_001", Some(real.thumbprint())).await;
    vehicle.ping().await;
    vehicle.expect_pong().await;
    rebind("CCU_002", None).await;
    assert_eq!(vehicle.hear().await, Heard::Closed { reason: Some(0x87) });
    real.server.stop().await;
}

#[tokio::test]
async fn a_revocation_is_told_of_the_vehicle_whose_connection_it_cuts_and_whose_handshake_it_refuses() {
    let real = RealServer::start(MqttLimits::default()).await;
    let mut vehicle = real.vehicle(Version::V5_0).await;
    real.bed.pki.revoke(&own(), now()).unwrap();
    real.server.reload();
    assert_eq!(vehicle.hear().await, Heard::Closed { reason: Some(0x87) });
    // A TLS 1.3 client learns by reading that it was refused.
    let port = real.server.mqtt.unwrap().port();
    if let Ok(mut refused) = connect(real.bed.usual_client(&real.certificates), port).await {
        refused.read_u8().await.unwrap_err();
    }
    let begun = std::time::Instant::now();
    loop {
        let told = security_events(&real).await;
        if ["REVOKED", "REVOKED_HANDSHAKE"].iter().all(|kind| told.iter().any(|one| one == kind)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    real.server.stop().await;
}
