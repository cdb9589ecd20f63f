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
mod packet;
mod session;

use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::Topics;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use connections::Connections;

use crate::desk::{MessageDesk, WallClock};
use crate::tls::VehicleTls;
use crate::tls::listener::{ListenerLimits, VehicleListener, accept_vehicles};
use connection::Shared;

/// Times and numbers that bound what a vehicle can hold.
#[derive(Debug, Clone)]
pub struct MqttLimits {
    /// Connections at a time; more wait in the listen queue.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to a whole CONNECT.
    pub first_packet: Duration,
    /// For a vehicle to take what is sent to it.
    pub write: Duration,
    /// For the desk to take the last messages of a connection that ends.
    pub drain: Duration,
    /// For a vehicle to close its side after the server has closed its own.
    pub linger: Duration,
}

impl Default for MqttLimits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            handshake: Duration::from_secs(10),
            first_packet: Duration::from_secs(10),
            write: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}

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
    let listener_limits = ListenerLimits { connections: limits.connections, handshake: limits.handshake };
    let closing_time = limits.drain + limits.write + limits.linger;
    let shared = Arc::new(Shared {
        desk,
        connections: Arc::clone(&connections),
        topics: Arc::new(topics),
        clock,
        limits,
    });
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
