//! The MQTT endpoint for vehicles: 5.0 and 3.1.1 over mutual TLS.
//!
//! It is no broker: a vehicle publishes to the server's desk on its own `up` topics, and takes the
//! server's commands on its own `down` topic. Who it is, its certificate says. There are no
//! sessions, retained messages, wildcards, shared subscriptions, topic aliases, wills or QoS 2.
//! Messages are acknowledged once the desk has stored them.

mod connection;
mod connections;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod meter;
mod noted;
mod opening;
mod packet;
mod session;
mod settings;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::Topics;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use connections::Connections;
pub(crate) use session::{bindings_of, seconds_until};
pub use settings::{MqttLimits, MqttMode, MqttSettings};

use crate::desk::{MessageDesk, WallClock};
use crate::tls::VehicleTls;
use crate::tls::listener::{ListenerLimits, VehicleListener, accept_vehicles};
use connection::Shared;

/// Connections above the limit that are listened to, to refuse them.
const PLACES_TO_BE_REFUSED: usize = 512;

/// What the endpoint needs besides its socket.
#[derive(Clone)]
pub struct MqttEndpoint<D> {
    /// Takes messages and holds commands.
    pub desk: Arc<D>,
    /// Where the live connections are registered.
    pub connections: Arc<Connections>,
    /// How topics are called.
    pub topics: Topics,
    /// Stamps what is received and judges what is expired.
    pub clock: WallClock,
    /// How much of everything.
    pub limits: MqttLimits,
}

/// Serves vehicles until `shutdown` is cancelled; then tells them, lets the desk take what it has
/// begun, and resolves when all connections are closed or their time to do so is over.
pub async fn serve<D: MessageDesk>(
    listener: TcpListener,
    tls: Arc<VehicleTls>,
    endpoint: MqttEndpoint<D>,
    shutdown: CancellationToken,
) {
    let MqttEndpoint { desk, connections, topics, clock, limits } = endpoint;
    let listener_limits = ListenerLimits {
        // Some more than are let in, so that whoever is one too many can be told so.
        connections: limits.connections.saturating_add(PLACES_TO_BE_REFUSED),
        handshakes: limits.handshakes,
        handshake: Duration::from_secs(limits.handshake_s),
    };
    let closing_time =
        Duration::from_secs(limits.drain_s.saturating_add(limits.write_s).saturating_add(limits.linger_s));
    let shared = Arc::new(Shared::new(desk, Arc::clone(&connections), topics, clock, limits));
    let mut tasks = accept_vehicles(listener, tls, VehicleListener::Mqtt, listener_limits, &shutdown, {
        move |stream, peer| connection::serve(stream, peer, Arc::clone(&shared))
    })
    .await;
    if timeout(closing_time, connections.close_all()).await.is_err() {
        tracing::warn!("Some vehicles' connections did not close in time and are cut.");
    }
    // What is left has not got as far as a CONNECT.
    tasks.shutdown().await;
}

#[cfg(test)]
mod tests;
