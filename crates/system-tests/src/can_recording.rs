//! Records a CAN bus into a file that dissectors read: listens as one more socketcand client, and writes what it
//! hears as pcap of SocketCAN frames.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Link type of SocketCAN frames in pcap files.
const LINKTYPE_CAN_SOCKETCAN: u32 = 227;
/// Identifiers of 29 bits carry this flag.
const EXTENDED: u32 = 0x8000_0000;
const LONGEST_STANDARD_ID: u32 = 0x7FF;
/// The identifier of the frame that ends a recording; no ECU listens to it.
const END_MARK: u32 = 0x7FF;

/// A recording of a bus.
pub struct CanRecording {
    file: PathBuf,
    bus: SocketAddr,
    interface: String,
    frames: JoinHandle<Vec<(u32, Vec<u8>)>>,
}

impl CanRecording {
    /// Begins; when this returns, every frame is recorded.
    pub async fn start(file: &Path, bus: SocketAddr, interface: &str) -> Self {
        let socket = open(bus, interface).await;
        let frames = tokio::spawn(listen(socket));
        Self { file: file.to_owned(), bus, interface: interface.to_owned(), frames }
    }

    /// Ends once everything that was sent is in the file; how many frames that were.
    pub async fn stop(self) -> usize {
        let mut marker = open(self.bus, &self.interface).await;
        marker.get_mut().write_all(format!("< send {END_MARK:x} 0 >").as_bytes()).await.unwrap();
        let frames = timeout(PATIENCE, self.frames).await.expect("the bus to carry the last frame").unwrap();
        let mut pcap = Vec::new();
        for word in [0xA1B2_C3D4, 0x0004_0002, 0, 0, 0xFFFF, LINKTYPE_CAN_SOCKETCAN] {
            pcap.extend(u32::to_le_bytes(word));
        }
        for (number, (id, data)) in frames.iter().enumerate() {
            let length = u32::try_from(8 + data.len()).unwrap();
            // The bus takes no time; the dissector gets one frame a millisecond.
            let at = [number / 1_000, number % 1_000 * 1_000].map(|part| u32::try_from(part).unwrap());
            for word in [at[0], at[1], length, length] {
                pcap.extend(word.to_le_bytes());
            }
            let flag = if *id > LONGEST_STANDARD_ID { EXTENDED } else { 0 };
            pcap.extend((id | flag).to_be_bytes());
            pcap.extend([u8::try_from(data.len()).unwrap(), 0, 0, 0]);
            pcap.extend(data);
        }
        std::fs::write(self.file, pcap).unwrap();
        frames.len()
    }
}

/// Opens the bus in raw mode.
async fn open(bus: SocketAddr, interface: &str) -> BufReader<TcpStream> {
    let mut socket = BufReader::new(TcpStream::connect(bus).await.unwrap());
    assert_eq!(next(&mut socket).await.unwrap(), "hi");
    for request in [format!("< open {interface} >"), "< rawmode >".to_owned()] {
        socket.get_mut().write_all(request.as_bytes()).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap(), "ok");
    }
    socket
}

/// The next message without its brackets; nothing at the end.
async fn next(socket: &mut BufReader<TcpStream>) -> Option<String> {
    let mut message = Vec::new();
    socket.take(256).read_until(b'>', &mut message).await.unwrap();
    let text = String::from_utf8(message).unwrap();
    let inner = text.strip_suffix('>')?.trim_start().strip_prefix('<')?;
    Some(inner.trim().to_owned())
}

/// What is on the bus up to the last frame.
async fn listen(mut socket: BufReader<TcpStream>) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(message) = next(&mut socket).await {
        // frame ID SECONDS.MICROSECONDS DATA, the numbers in hexadecimal
        let words: Vec<&str> = message.split_whitespace().collect();
        let ["frame", id, _, data @ ..] = words.as_slice() else { panic!("{message}") };
        let id = u32::from_str_radix(id, 16).unwrap();
        if id == END_MARK {
            return frames;
        }
        let digits = data.concat();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        frames.push((id, (0..digits.len()).step_by(2).map(byte).collect()));
    }
    panic!("the bus is gone")
}
