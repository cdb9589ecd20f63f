//! The gateway's own CAN buses: an interface of this machine (SocketCAN), or one that a socketcand server has.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use farrier_diagnostics::can::{CanFrame, SocketcandMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::ConnectError;
use crate::topology::CanInterface;

/// How long a socketcand server may take to accept a connection, and to agree to a request.
const CONNECT: Duration = Duration::from_secs(5);

/// An open bus.
pub(super) enum CanBus {
    Socketcand(Socketcand),
    #[cfg(all(target_os = "linux", feature = "socketcan"))]
    SocketCan(socketcan_bus::SocketCan),
}

impl CanBus {
    /// Opens the bus for the frames of these ECUs.
    pub(super) async fn open(can: &CanInterface) -> Result<Self, ConnectError> {
        match can.socketcand {
            Some(address) => Socketcand::open(address, &can.interface).await.map(Self::Socketcand),
            None => open_interface(&can.interface),
        }
    }

    /// Carries frames in both directions until the bus is lost.
    pub(super) async fn carry(self, outgoing: mpsc::Receiver<CanFrame>, deliver: impl Fn(CanFrame)) {
        match self {
            Self::Socketcand(bus) => bus.carry(outgoing, deliver).await,
            #[cfg(all(target_os = "linux", feature = "socketcan"))]
            Self::SocketCan(bus) => bus.carry(outgoing, deliver).await,
        }
    }
}

#[cfg(all(target_os = "linux", feature = "socketcan"))]
fn open_interface(interface: &str) -> Result<CanBus, ConnectError> {
    socketcan_bus::SocketCan::open(interface)
        .map(CanBus::SocketCan)
        .map_err(|source| ConnectError::Can { interface: interface.to_owned(), source })
}

#[cfg(not(all(target_os = "linux", feature = "socketcan")))]
fn open_interface(interface: &str) -> Result<CanBus, ConnectError> {
    let source = std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "this program was built without SocketCAN (Linux, feature `socketcan`); name a socketcand server",
    );
    Err(ConnectError::Can { interface: interface.to_owned(), source })
}

/// A connection to a socketcand server in raw mode.
pub(super) struct Socketcand {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    received: BytesMut,
}

impl Socketcand {
    async fn open(address: SocketAddr, interface: &str) -> Result<Self, ConnectError> {
        let tcp = |source| ConnectError::Tcp { address, source };
        let late = |what| ConnectError::Timeout { address, what, limit: CONNECT };
        let stream = timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| late("a connection"))?
            .map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        let (reader, writer) = stream.into_split();
        let mut bus = Self { reader, writer, received: BytesMut::new() };
        let agreed = async {
            let open = SocketcandMessage::Open(interface.to_owned());
            let steps = [
                (None, SocketcandMessage::Hi),
                (Some(open), SocketcandMessage::Ok),
                (Some(SocketcandMessage::RawMode), SocketcandMessage::Ok),
            ];
            for (request, expected) in steps {
                let asked = request.as_ref().map_or_else(|| "greet".to_owned(), ToString::to_string);
                if let Some(request) = request {
                    bus.writer.write_all(request.to_string().as_bytes()).await.map_err(tcp)?;
                }
                if bus.next().await != Some(expected) {
                    return Err(ConnectError::Socketcand { address, request: asked });
                }
            }
            Ok(())
        };
        timeout(CONNECT, agreed).await.map_err(|_| late("socketcand to agree"))??;
        Ok(bus)
    }

    /// The next message; nothing if the connection is lost.
    async fn next(&mut self) -> Option<SocketcandMessage> {
        next_message(&mut self.reader, &mut self.received).await
    }

    async fn carry(self, mut outgoing: mpsc::Receiver<CanFrame>, deliver: impl Fn(CanFrame)) {
        let Self { mut reader, mut writer, mut received } = self;
        let reading = async {
            while let Some(message) = next_message(&mut reader, &mut received).await {
                if let SocketcandMessage::Frame(frame) = message {
                    deliver(frame);
                }
            }
        };
        let writing = async {
            while let Some(frame) = outgoing.recv().await {
                let text = SocketcandMessage::Send(frame).to_string();
                if let Err(error) = writer.write_all(text.as_bytes()).await {
                    return tracing::debug!(%error, "The connection to a socketcand server was lost.");
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }
}

async fn next_message(reader: &mut OwnedReadHalf, received: &mut BytesMut) -> Option<SocketcandMessage> {
    loop {
        match SocketcandMessage::take(received) {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "A socketcand server is not one; its connection is closed.");
                return None;
            }
        }
        if reader.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}

#[cfg(all(target_os = "linux", feature = "socketcan"))]
mod socketcan_bus {
    //! SocketCAN: the kernel's own interfaces.

    use std::io;
    use std::time::Duration;

    use farrier_diagnostics::can::CanFrame;
    use socketcan::tokio::CanSocket;
    use socketcan::{EmbeddedFrame, ExtendedId, Id, StandardId};
    use tokio::sync::mpsc;
    use tokio::time::{Instant, sleep};

    /// "No buffer space available": the interface's queue is full (its default length is ten frames).
    const QUEUE_FULL: i32 = 105;

    /// How long a full queue is waited for, and how often: a frame takes 0.25 ms at 500 kbit/s.
    const QUEUE_PATIENCE: Duration = Duration::from_secs(1);
    const QUEUE_POLL: Duration = Duration::from_millis(1);

    pub(in super::super) struct SocketCan {
        socket: CanSocket,
    }

    impl SocketCan {
        pub(super) fn open(interface: &str) -> io::Result<Self> {
            Ok(Self { socket: CanSocket::open(interface)? })
        }

        pub(super) async fn carry(self, mut outgoing: mpsc::Receiver<CanFrame>, deliver: impl Fn(CanFrame)) {
            let lost = |error: io::Error| tracing::warn!(%error, "A CAN interface was lost.");
            let reading = async {
                loop {
                    match self.socket.read_frame().await {
                        Ok(frame) => {
                            if let Some(frame) = data_frame(&frame) {
                                deliver(frame);
                            }
                        }
                        Err(error) => return lost(error),
                    }
                }
            };
            let writing = async {
                while let Some(frame) = outgoing.recv().await {
                    if let Err(error) = self.write(frame).await {
                        return lost(error);
                    }
                }
            };
            tokio::select! {
                () = reading => {}
                () = writing => {}
            }
        }

        async fn write(&self, frame: CanFrame) -> io::Result<()> {
            let frame = socketcan_frame(frame)?;
            let end = Instant::now() + QUEUE_PATIENCE;
            loop {
                match self.socket.write_frame(frame).await {
                    Err(error) if error.raw_os_error() == Some(QUEUE_FULL) && Instant::now() < end => {
                        sleep(QUEUE_POLL).await;
                    }
                    result => return result,
                }
            }
        }
    }

    /// A frame as this program has it; nothing for remote and error frames.
    fn data_frame(frame: &socketcan::CanFrame) -> Option<CanFrame> {
        let socketcan::CanFrame::Data(frame) = frame else { return None };
        let id = match frame.id() {
            Id::Standard(id) => u32::from(id.as_raw()),
            Id::Extended(id) => id.as_raw(),
        };
        CanFrame::new(id, frame.data())
    }

    fn socketcan_frame(frame: CanFrame) -> io::Result<socketcan::CanFrame> {
        let id = if frame.is_extended() {
            ExtendedId::new(frame.id()).map(Id::Extended)
        } else {
            u16::try_from(frame.id()).ok().and_then(StandardId::new).map(Id::Standard)
        };
        id.and_then(|id| socketcan::CanFrame::new(id, frame.data()))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no frame of classical CAN"))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn frames_are_the_same_on_both_sides() {
            for id in [0, 0x7FF, 0x800, 0x1FFF_FFFF] {
                let frame = CanFrame::new(id, &[1, 2, 3]).unwrap();
                let there = socketcan_frame(frame).unwrap();
                assert_eq!(there.is_extended(), id > 0x7FF);
                assert_eq!(data_frame(&there), Some(frame));
            }
        }

        #[tokio::test]
        async fn an_interface_that_is_not_there_is_an_error() {
            assert!(SocketCan::open("no-such-can").is_err());
        }
    }
}
