//! What comes from the broker: each message to the desk, acknowledged after its commit, in the order of arrival.

use farrier_protocol::Topics;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rumqttc::AsyncClient;
use rumqttc::mqttbytes::v5::Publish;
use tokio::sync::mpsc;

use super::Ended;
use crate::conversation::ServerDesk;
use crate::desk::{DeskUnavailable, Inbound, MessageDesk};

/// Takes messages until one cannot be stored. How many are being taken at a time, the receive maximum bounds.
pub(super) async fn take(
    desk: &ServerDesk,
    topics: &Topics,
    client: &AsyncClient,
    arrived: &mut mpsc::Receiver<Publish>,
) -> Ended {
    let mut being_taken = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some((publish, taken)) = being_taken.next() => {
                let acknowledged = match taken {
                    Ok(()) => client.ack(&publish).await.map_err(Ended::from),
                    Err(error) => Err(Ended::Desk(error)),
                };
                if let Err(ended) = acknowledged {
                    return ended;
                }
            }
            publish = arrived.recv() => match publish {
                Some(publish) => being_taken.push_back(take_one(desk, topics, publish)),
                None => return Ended::NoAnswer,
            },
        }
    }
}

async fn take_one(
    desk: &ServerDesk,
    topics: &Topics,
    publish: Publish,
) -> (Publish, Result<(), DeskUnavailable>) {
    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
    let Some((binding, up)) = topics.parse_up(&topic) else {
        tracing::warn!(
            topic = topic.chars().take(160).collect::<String>(),
            "A message on no vehicle's topic is dropped."
        );
        return (publish, Ok(()));
    };
    let payload = publish.payload.clone();
    let inbound = Inbound { peer: None, binding, topic: up, payload, received_at: (desk.clock)() };
    // Whether it was accepted or refused, it is stored: the vehicle is told on its own topic.
    let taken = desk.receive(inbound).await.map(|_| ());
    (publish, taken)
}
