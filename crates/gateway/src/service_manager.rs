//! Tells systemd how the gateway does: started, alive, stopping (sd_notify(3), by the datagram socket that
//! `NOTIFY_SOCKET` names). Outside of systemd nothing is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the gateway is alive.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment says.
    ///
    /// # Errors
    /// A `NOTIFY_SOCKET` that cannot be used.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name: &str| std::env::var_os(name);
        let is_ours =
            variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string().as_str());
        Self::new(variable("NOTIFY_SOCKET"), variable("WATCHDOG_USEC").filter(|_| is_ours))
    }

    fn new(socket: Option<OsString>, watchdog_us: Option<OsString>) -> io::Result<Self> {
        let socket = match socket {
            None => None,
            Some(name) => Some((UnixDatagram::unbound()?, address(&name)?)),
        };
        let watchdog_us = watchdog_us.and_then(|text| text.to_str()?.parse().ok()).filter(|us| *us > 0);
        // Half of the time, as sd_watchdog_enabled(3) recommends.
        Ok(Self { socket, watchdog: watchdog_us.map(|us: u64| Duration::from_micros(us) / 2) })
    }

    /// How often [`ServiceManager::alive`] is expected, if at all.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The gateway works.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The gateway still answers.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The gateway was asked to stop.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(state, %error, "systemd cannot be told.");
        }
    }
}

/// A path, or a name in the abstract namespace if it begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_of_start_life_and_stop_on_both_kinds_of_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("farrier-{}", std::process::id());
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (socket, name) in sockets {
            let manager = ServiceManager::new(Some(name), Some("60000000".into())).unwrap();
            assert_eq!(manager.watchdog(), Some(Duration::from_secs(30)));
            manager.ready();
            manager.alive();
            manager.stopping();
            assert_eq!([(); 3].map(|()| received(&socket)), ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        }
    }

    #[test]
    fn without_systemd_nothing_is_told() {
        let manager = ServiceManager::new(None, Some("0".into())).unwrap();
        assert_eq!(manager.watchdog(), None);
        manager.ready();
    }
}
