//! The least of an MQTT 5 client that can send and be acknowledged: so light that the server is what is measured.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::{Endpoint, connect_tls};

const KEEP_ALIVE_S: u16 = 60;

/// A packet of the server, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connected {
        reason: u8,
    },
    Subscribed {
        reason: u8,
    },
    Acknowledged {
        packet_id: u16,
        reason: u8,
    },
    Message {
        packet_id: u16,
        payload: Vec<u8>,
    },
    /// The answer to a ping.
    Alive,
    /// The server ends the connection.
    Disconnected {
        reason: u8,
    },
}

/// One connection.
pub(crate) struct MqttLink {
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
    /// What is before it in `input` is handled.
    at: usize,
    output: Vec<u8>,
    last_packet_id: u16,
    acknowledged: u64,
}

impl MqttLink {
    /// Connects and subscribes to its commands.
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        client_id: &str,
        commands: &str,
    ) -> anyhow::Result<Self> {
        let stream = connect_tls(endpoint, tls).await?;
        let (input, output) = (Vec::new(), Vec::new());
        let mut link = Self { stream, input, at: 0, output, last_packet_id: 0, acknowledged: 0 };
        let mut body = b"\x00\x04MQTT\x05\x02".to_vec();
        body.extend(KEEP_ALIVE_S.to_be_bytes());
        body.push(0);
        put_text(&mut body, client_id);
        link.put(0x10, &[&body]);
        let packet_id = link.new_packet_id();
        let mut body = packet_id.to_be_bytes().to_vec();
        body.push(0);
        put_text(&mut body, commands);
        body.push(1);
        link.put(0x82, &[&body]);
        link.flush().await?;
        let connected = link.next().await?;
        ensure!(connected == Packet::Connected { reason: 0 }, "expected to be let in, found {connected:?}");
        let subscribed = link.next().await?;
        ensure!(
            subscribed == Packet::Subscribed { reason: 1 },
            "expected a subscription, found {subscribed:?}"
        );
        Ok(link)
    }

    /// Prepares a message with QoS 1; gives the id that its acknowledgement will have.
    pub(crate) fn put_publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let packet_id = self.new_packet_id();
        let mut head = Vec::with_capacity(topic.len() + 5);
        put_text(&mut head, topic);
        head.extend(packet_id.to_be_bytes());
        head.push(0);
        self.put(0x32, &[&head, payload]);
        packet_id
    }

    pub(crate) fn put_acknowledgement(&mut self, packet_id: u16) {
        self.put(0x40, &[&packet_id.to_be_bytes()]);
    }

    pub(crate) fn put_ping(&mut self) {
        self.put(0xC0, &[]);
    }

    /// Sends what is prepared.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(self.stream.flush().await?)
    }

    /// The next packet; waits for it.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Packet> {
        loop {
            if let Some(packet) = self.received()? {
                return Ok(packet);
            }
            self.input.drain(..self.at);
            self.at = 0;
            let read = self.stream.read_buf(&mut self.input).await?;
            ensure!(read > 0, "the server closed the connection");
        }
    }

    /// The next packet that has come already.
    pub(crate) fn received(&mut self) -> anyhow::Result<Option<Packet>> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some((kind, body, length)) = frame(rest) else { return Ok(None) };
        let packet = packet(kind, body)?;
        self.at += length;
        self.acknowledged += u64::from(matches!(packet, Packet::Acknowledged { reason: 0, .. }));
        Ok(Some(packet))
    }

    /// Messages that were acknowledged with success.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn new_packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        self.last_packet_id
    }

    fn put(&mut self, kind: u8, parts: &[&[u8]]) {
        self.output.push(kind);
        let mut length: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            let low = u8::try_from(length % 128).unwrap_or_default();
            length /= 128;
            self.output.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        parts.iter().for_each(|part| self.output.extend_from_slice(part));
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// The first whole packet: its first octet, its body, and how long it is with its head.
fn frame(octets: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (kind, rest) = octets.split_first()?;
    let (length, head) = variable_integer(rest)?;
    let body = rest.get(head..head + length)?;
    Some((*kind, body, 1 + head + length))
}

fn variable_integer(octets: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, octet) in octets.iter().take(4).enumerate() {
        value |= usize::from(octet & 0x7f) << (7 * at);
        if octet & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

fn packet(kind: u8, body: &[u8]) -> anyhow::Result<Packet> {
    let number = |at: usize| match body.get(at..at + 2) {
        Some([high, low]) => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(anyhow::anyhow!("the server sent a packet that is too short")),
    };
    let octet = |at: usize| body.get(at).copied().unwrap_or_default();
    Ok(match kind >> 4 {
        2 => Packet::Connected { reason: octet(1) },
        3 => {
            let topic = usize::from(number(0)?);
            let (properties, head) = variable_integer(body.get(topic + 4..).unwrap_or_default())
                .context("the server sent a message without properties")?;
            let payload = body.get(topic + 4 + head + properties..).unwrap_or_default();
            Packet::Message { packet_id: number(topic + 2)?, payload: payload.to_vec() }
        }
        4 => Packet::Acknowledged { packet_id: number(0)?, reason: octet(2) },
        9 => Packet::Subscribed { reason: body.last().copied().unwrap_or_default() },
        13 => Packet::Alive,
        14 => Packet::Disconnected { reason: octet(0) },
        other => bail!("the server sent a packet of type {other}, which is not expected here"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart_and_waited_for() {
        let acknowledged = [0x40, 2, 1, 2];
        assert_eq!(frame(&acknowledged[..3]), None);
        let (kind, body, length) = frame(&acknowledged).unwrap();
        assert_eq!(
            (packet(kind, body).unwrap(), length),
            (Packet::Acknowledged { packet_id: 258, reason: 0 }, 4)
        );
        let message = [0x32, 12, 0, 1, b't', 0, 7, 5, 2, 0, 0, 0, 9, b'x'];
        let (kind, body, length) = frame(&message).unwrap();
        assert_eq!(length, 14);
        assert_eq!(packet(kind, body).unwrap(), Packet::Message { packet_id: 7, payload: b"x".to_vec() });
        assert_eq!(variable_integer(&[0xff, 0x7f]), Some((16_383, 2)));
        assert_eq!(variable_integer(&[0x80]), None);
    }
}
