//! As much of HTTP/1.1 as it takes to fetch a package over a connection that stays open.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The longest head of an answer.
const MOST_HEAD: usize = 8 * 1024;

/// The head of an answer.
pub(crate) struct Head {
    /// With its empty line.
    pub(crate) length: usize,
    /// Octets that came, the head among them.
    pub(crate) filled: usize,
    pub(crate) content_length: u64,
}

/// Asks for a file, or for so many octets of it from the first one on.
pub(crate) async fn get(
    stream: &mut TlsStream<TcpStream>,
    host: &str,
    path: &str,
    range: Option<(u64, u64)>,
) -> anyhow::Result<()> {
    let range = range.map(|(first, length)| {
        format!("range: bytes={first}-{}\r\n", first.saturating_add(length).saturating_sub(1))
    });
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{}\r\n", range.unwrap_or_default());
    stream.write_all(request.as_bytes()).await?;
    Ok(stream.flush().await?)
}

/// Reads up to the end of the head, which must be that of a success; what comes with it stays in `octets`.
pub(crate) async fn read_head(stream: &mut TlsStream<TcpStream>, octets: &mut [u8]) -> anyhow::Result<Head> {
    let mut filled = 0;
    loop {
        let read = stream.read(octets.get_mut(filled..).unwrap_or_default()).await?;
        ensure!(read > 0, "the server closed the connection before it answered");
        filled += read;
        let so_far = octets.get(..filled.min(MOST_HEAD)).unwrap_or_default();
        if let Some(end) = so_far.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(octets.get(..end).unwrap_or_default()).to_lowercase();
            let status = text.split(' ').nth(1).unwrap_or_default();
            ensure!(matches!(status, "200" | "206"), "expected 200 or 206, found {status}: {text}");
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let content_length = length.context("an answer without a length")?.trim().parse()?;
            return Ok(Head { length: end + 4, filled, content_length });
        }
        ensure!(filled < MOST_HEAD, "the server's answer has a head without an end");
    }
}

/// Fetches a whole file of so many octets, in ranges of at most `most`.
pub(crate) async fn fetch(
    stream: &mut TlsStream<TcpStream>,
    host: &str,
    path: &str,
    size_bytes: u64,
    most: u64,
) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut octets = vec![0; 2 * MOST_HEAD];
    loop {
        let first = u64::try_from(content.len())?;
        let wanted = size_bytes.saturating_sub(first).min(most.max(1));
        if wanted == 0 {
            return Ok(content);
        }
        get(stream, host, path, Some((first, wanted))).await?;
        let head = read_head(stream, &mut octets).await?;
        ensure!(head.content_length == wanted, "asked for {wanted} octets, was sent {}", head.content_length);
        let all = content.len().saturating_add(usize::try_from(wanted)?);
        content.extend_from_slice(octets.get(head.length..head.filled).unwrap_or_default());
        while content.len() < all {
            let read = stream.read(&mut octets).await?;
            ensure!(read > 0, "the server closed the connection in the middle of the package");
            content.extend_from_slice(octets.get(..read).unwrap_or_default());
        }
        ensure!(content.len() == all, "the server sent more than it said");
    }
}
