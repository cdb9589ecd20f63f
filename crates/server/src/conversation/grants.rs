//! Which packages vehicles may fetch, remembered for a second: a vehicle asks for one package in many ranges, one
//! right after the other. What this process takes away counts at once; what another one does, within the second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farrier_protocol::{PkgId, Sha256, Thumbprint, UnixMillis};
use tokio::time::Instant;

use crate::desk::{CampaignLimit, PeerIdentity};

/// How long an answer of the store is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Answers that are remembered at a time.
const MOST: usize = 16 * 1024;

/// What a vehicle asks for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) peer: PeerIdentity,
    pub(super) pkg_id: PkgId,
    pub(super) hash: Sha256,
}

impl Wanted {
    fn key(&self) -> Key {
        (self.peer.thumbprint.clone(), self.pkg_id.clone(), self.hash)
    }
}

type Key = (Thumbprint, PkgId, Sha256);

/// A package that a vehicle may fetch.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) size_bytes: u64,
    pub(super) until: UnixMillis,
    pub(super) limit: Option<CampaignLimit>,
    pub(super) beginning: Beginning,
}

/// When the store was asked, and how often grants had been taken away until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    at: Instant,
    taken_away: u64,
}

/// The memory; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<Key, Known>,
    taken_away: u64,
}

impl Grants {
    /// The length of the package, and how quickly it may leave, if the vehicle is known to have it; else what to remember the store's answer with.
    pub(super) fn look_up(
        &self,
        wanted: &Wanted,
        now: UnixMillis,
    ) -> Result<(u64, Option<CampaignLimit>), Beginning> {
        let at = Instant::now();
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match memory.known.get(&wanted.key()) {
            Some(known) if known.until > now && at < known.beginning.at + BELIEVED => {
                Ok((known.size_bytes, known.limit.clone()))
            }
            Some(_) | None => Err(Beginning { at, taken_away: memory.taken_away }),
        }
    }

    /// Remembers what the store said, unless something was taken away since it was asked.
    pub(super) fn remember(&self, wanted: &Wanted, known: Known) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.taken_away != known.beginning.taken_away {
            return;
        }
        if memory.known.len() >= MOST {
            let now = Instant::now();
            memory.known.retain(|_, known| now < known.beginning.at + BELIEVED);
        }
        if memory.known.len() < MOST {
            memory.known.insert(wanted.key(), known);
        }
    }

    /// Forgets everything, because something was taken away.
    pub(crate) fn taken_away(&self) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.taken_away = memory.taken_away.wrapping_add(1);
        memory.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn wanted() -> Wanted {
        let peer = PeerIdentity {
            common_name: "VEH_001_CCU_001".to_owned(),
            thumbprint: Thumbprint::of_certificate(b"certificate"),
            certificate: None,
        };
        Wanted { peer, pkg_id: "fw".parse().unwrap(), hash: Sha256::of(b"fw") }
    }

    fn ask(grants: &Grants) -> Known {
        let beginning = grants.look_up(&wanted(), NOW).unwrap_err();
        Known { size_bytes: 7, until: NOW.plus_seconds(60), limit: None, beginning }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_for_a_second_and_not_beyond_its_own_end() {
        let grants = Grants::default();
        grants.remember(&wanted(), ask(&grants));
        assert_eq!(grants.look_up(&wanted(), NOW).unwrap(), (7, None));
        grants.look_up(&wanted(), NOW.plus_seconds(60)).unwrap_err();
        tokio::time::advance(BELIEVED).await;
        grants.look_up(&wanted(), NOW).unwrap_err();
    }

    #[tokio::test]
    async fn what_is_taken_away_is_forgotten_even_while_the_store_is_being_asked() {
        let grants = Grants::default();
        grants.remember(&wanted(), ask(&grants));
        let asked_before = ask_again(&grants);
        grants.taken_away();
        grants.look_up(&wanted(), NOW).unwrap_err();
        grants.remember(&wanted(), asked_before);
        grants.look_up(&wanted(), NOW).unwrap_err();
    }

    fn ask_again(grants: &Grants) -> Known {
        let beginning = grants.look_up(&wanted(), NOW.plus_seconds(60)).unwrap_err();
        Known { size_bytes: 7, until: NOW.plus_seconds(60), limit: None, beginning }
    }
}
