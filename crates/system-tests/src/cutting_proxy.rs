//! A TCP proxy that can break connections: a tunnel, a garage, a base station that is switched off.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Forwards connections to a target that is named later, and counts what the target sends back.
pub struct CuttingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    target: OnceLock<SocketAddr>,
    from_target_bytes: AtomicU64,
    /// The connection that carries this byte is cut there, once.
    cut_at_byte: AtomicU64,
    cuts: AtomicU64,
    blocked: AtomicBool,
}

impl CuttingProxy {
    /// Listens on a free port of loopback; connections wait until the target is known.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        shared.cut_at_byte.store(u64::MAX, Ordering::SeqCst);
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where connections lead.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.target.set(target).unwrap();
    }

    /// Cuts the connection that carries this byte of all that the target sends, once.
    pub fn cut_once_after(&self, bytes: u64) {
        self.shared.cut_at_byte.store(bytes, Ordering::SeqCst);
    }

    /// Breaks all connections and takes no new ones, or takes them again.
    pub fn block(&self, blocked: bool) {
        self.shared.blocked.store(blocked, Ordering::SeqCst);
    }

    /// All bytes that the target has sent through this proxy.
    pub fn from_target_bytes(&self) -> u64 {
        self.shared.from_target_bytes.load(Ordering::SeqCst)
    }

    /// How often a connection was cut at its byte.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(forward(client, Arc::clone(&shared)));
    }
}

async fn forward(mut client: TcpStream, shared: Arc<Shared>) {
    let Some(target) = shared.target.get().filter(|_| !shared.blocked.load(Ordering::SeqCst)) else { return };
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            let before = shared.from_target_bytes.fetch_add(read as u64, Ordering::SeqCst);
            let cut_at = shared.cut_at_byte.load(Ordering::SeqCst);
            if before + read as u64 > cut_at {
                shared.cut_at_byte.store(u64::MAX, Ordering::SeqCst);
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let blocked = async {
        while !shared.blocked.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
        () = blocked => {}
    }
}
