//! Peers whose handshake was refused because their certificate is revoked. The library says so only that it was, so whose it
//! was is noted while it judges. What is to be told is counted by certificate and given out now and then, so that whoever tries
//! again and again fills neither memory nor store.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::peer_identity;
use crate::desk::PeerIdentity;

/// Certificates that are counted at a time. Only an authority of ours makes more of them, and all are in the metrics.
const MOST: usize = 1_024;
/// What is told of one certificate is told again after this, with how often it came meanwhile.
const PAUSE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// Whose revoked certificate this task's handshake was refused for.
    static REVOKED: RefCell<Option<PeerIdentity>>;
}

/// Runs a handshake; gives with its outcome whose certificate was revoked, if one was.
pub(super) async fn noting<T>(handshake: impl Future<Output = T>) -> (T, Option<PeerIdentity>) {
    let noted = async {
        let outcome = handshake.await;
        (outcome, REVOKED.with(RefCell::take))
    };
    REVOKED.scope(RefCell::default(), noted).await
}

/// Judges as the library does, which looks at the signature of the authority before it looks into the list.
#[derive(Debug)]
pub(super) struct NotingVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for NotingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        if let Err(Error::InvalidCertificate(CertificateError::Revoked)) = &verified {
            // Outside of a handshake nobody asks.
            let _ = REVOKED.try_with(|revoked| revoked.replace(peer_identity(end_entity).ok()));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}

/// A peer that was refused, how often since it was told last, and from where the last time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusedPeer {
    pub(crate) peer: PeerIdentity,
    pub(crate) address: IpAddr,
    pub(crate) times: u64,
}

/// Those of whom operators have still to be told, and those who were told lately.
#[derive(Debug, Default)]
pub(super) struct RefusedPeers(Mutex<HashMap<String, Counted>>);

#[derive(Debug)]
struct Counted {
    refused: RefusedPeer,
    told_at: Option<Instant>,
}

impl RefusedPeers {
    pub(super) fn note(&self, peer: PeerIdentity, address: IpAddr) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = peer.thumbprint.as_str();
        if let Some(Counted { refused, .. }) = counted.get_mut(key) {
            refused.times = refused.times.saturating_add(1);
            refused.address = address;
        } else if counted.len() < MOST {
            let refused = RefusedPeer { address, times: 1, peer };
            counted.insert(refused.peer.thumbprint.to_string(), Counted { refused, told_at: None });
        }
    }

    /// Those who are to be told at `now`: each once in a while.
    pub(super) fn take(&self, now: Instant) -> Vec<RefusedPeer> {
        let mut due = Vec::new();
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.retain(|_, Counted { refused, told_at }| {
            let was_told_lately = told_at.is_some_and(|told| now.saturating_duration_since(told) < PAUSE);
            if was_told_lately || refused.times == 0 {
                return was_told_lately;
            }
            let times = std::mem::take(&mut refused.times);
            due.push(RefusedPeer { peer: refused.peer.clone(), times, ..*refused });
            *told_at = Some(now);
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use farrier_protocol::Thumbprint;

    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn peer(number: usize) -> PeerIdentity {
        PeerIdentity {
            common_name: format!("V{number}_G"),
            thumbprint: Thumbprint::of_certificate(number.to_string().as_bytes()),
            certificate: None,
        }
    }

    #[test]
    fn whoever_tries_again_and_again_is_told_once_in_a_while_with_how_often() {
        let (refused, begin) = (RefusedPeers::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        refused.note(peer(1), FROM);
        refused.note(peer(1), FROM);
        assert_eq!(refused.take(at(0)), [RefusedPeer { peer: peer(1), address: FROM, times: 2 }]);
        for second in 1..60 {
            refused.note(peer(1), FROM);
            assert_eq!(refused.take(at(second)), []);
        }
        refused.note(peer(2), FROM);
        let mut due = refused.take(at(60));
        due.sort_by_key(|one| one.times);
        assert_eq!(due.iter().map(|one| one.times).collect::<Vec<_>>(), [1, 59]);
        assert_eq!(refused.take(at(200)), []);
        assert_eq!(refused.0.lock().unwrap().len(), 0, "nothing is kept of who stays away");
    }

    #[test]
    fn however_many_certificates_come_no_more_are_counted_than_there_is_room_for() {
        let refused = RefusedPeers::default();
        for number in 0..2 * MOST {
            refused.note(peer(number), FROM);
        }
        assert_eq!(refused.take(Instant::now()).len(), MOST);
    }
}
