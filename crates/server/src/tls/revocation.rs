//! Which certificates are revoked, and which live connections were made with one of them: a list that arrives later
//! ends what was begun before it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farrier_protocol::Sha256;
use tokio_util::sync::CancellationToken;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::desk::PeerIdentity;

/// Names a certificate as lists of revoked ones do: by its issuer and its serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CertificateKey(Sha256);

impl CertificateKey {
    fn new(issuer_der: &[u8], serial: &[u8]) -> Self {
        // Leading zeros are the encoding's, not the number's.
        let first = serial.iter().position(|octet| *octet != 0).unwrap_or(serial.len());
        let digest = Sha256::of(issuer_der);
        let mut octets = digest.as_bytes().to_vec();
        octets.extend_from_slice(serial.get(first..).unwrap_or_default());
        Self(Sha256::of(&octets))
    }

    /// Of a certificate; nothing where it is none.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(Self::new(certificate.issuer().as_raw(), certificate.raw_serial()))
    }

    /// Of all certificates that a list names.
    pub(super) fn of_list<'a>(list: &'a CertificateRevocationList<'a>) -> impl Iterator<Item = Self> + 'a {
        let issuer = list.issuer().as_raw();
        list.iter_revoked_certificates().map(move |revoked| Self::new(issuer, revoked.raw_serial()))
    }
}

/// The live connections of vehicles, of all listeners, and the lists that are in force.
#[derive(Debug, Default)]
pub(super) struct LivePeers(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    revoked: HashSet<CertificateKey>,
    last_id: u64,
    peers: HashMap<u64, Peer>,
}

#[derive(Debug)]
struct Peer {
    key: CertificateKey,
    identity: PeerIdentity,
    cut: CancellationToken,
}

/// A connection's place among the live ones; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Presence {
    live: Arc<LivePeers>,
    id: u64,
    cut: CancellationToken,
}

impl LivePeers {
    /// A connection begins; nothing if its certificate was revoked since its handshake began.
    pub(super) fn enter(self: &Arc<Self>, key: CertificateKey, identity: &PeerIdentity) -> Option<Presence> {
        let mut live = self.live();
        if live.revoked.contains(&key) {
            return None;
        }
        live.last_id += 1;
        let (id, cut) = (live.last_id, CancellationToken::new());
        live.peers.insert(id, Peer { key, identity: identity.clone(), cut: cut.clone() });
        Some(Presence { live: Arc::clone(self), id, cut })
    }

    /// Other lists are in force: ends the connections of those that are revoked now, and tells whose they were.
    pub(super) fn revoke(&self, revoked: HashSet<CertificateKey>) -> Vec<PeerIdentity> {
        let mut live = self.live();
        live.revoked = revoked;
        let cut = live.peers.values().filter(|peer| live.revoked.contains(&peer.key));
        cut.map(|peer| {
            peer.cut.cancel();
            peer.identity.clone()
        })
        .collect()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// Resolves when the certificate of the connection is revoked.
    pub(super) async fn revoked(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.live.live().peers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use farrier_protocol::Thumbprint;

    use super::*;

    #[test]
    fn a_list_ends_what_it_names_and_nothing_else_and_lets_nothing_in_later() {
        let live = Arc::new(LivePeers::default());
        let key = |serial: &[u8]| CertificateKey::new(b"issuer", serial);
        let peer = |name: &str| PeerIdentity {
            common_name: name.to_owned(),
            thumbprint: Thumbprint::of_certificate(name.as_bytes()),
            certificate: None,
        };
        let one = live.enter(key(&[1]), &peer("one")).unwrap();
        let other = live.enter(key(&[2]), &peer("other")).unwrap();
        assert_eq!(live.revoke(HashSet::from([key(&[0, 1])])), [peer("one")]);
        assert!(one.cut.is_cancelled() && !other.cut.is_cancelled());
        assert!(live.enter(key(&[1]), &peer("one")).is_none());
        assert!(live.enter(CertificateKey::new(b"another issuer", &[1]), &peer("x")).is_some());
        drop((one, other));
        assert_eq!(live.live().peers.len(), 0);
    }
}
