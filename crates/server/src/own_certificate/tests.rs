use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};

use farrier_protocol::{Thumbprint, VehicleId};

use super::*;
use crate::store::security_events::SecurityEvent;
use crate::store::test_database::TestDatabase;
use crate::store::vehicles::{self, EnrolledBy};
use crate::tls::testbed::{Testbed, binding, now};

const DAY_MS: i64 = 86_400_000;

/// A server's watch over the files of a testbed, with a clock that the test moves.
struct Watched {
    watch: CertificateWatch,
    clock: Arc<AtomicI64>,
    seen: Option<Seen>,
}

impl Watched {
    fn new(bed: &Testbed, database: &TestDatabase) -> Self {
        let clock = Arc::new(AtomicI64::new(now().0));
        let read = Arc::clone(&clock);
        let watch = CertificateWatch {
            config: ServerConfig::default(),
            own: OwnCertificate { files: bed.files(), operator: None, operator_ca: None, pki: None },
            tls: bed.tls(),
            operator_tls: None,
            connections: Arc::new(Connections::new()),
            store: database.open(Arc::new(|_| {})),
            clock: Arc::new(move || UnixMillis(read.load(Ordering::Relaxed))),
            reload: Arc::default(),
        };
        Self { watch, clock, seen: None }
    }

    /// Looks, as every two seconds; after a restart as for the first time.
    async fn look(&mut self, asked: bool) {
        let seen = self.seen.take().unwrap_or_else(|| self.watch.nothing_told());
        let (seen, news) = self.watch.look(seen, asked);
        self.watch.remember(news).await;
        self.seen = Some(seen);
    }

    async fn events(&self) -> Vec<SecurityEvent> {
        let newest = (UnixMillis(i64::MAX), String::new());
        let read = move |tx: &Tx<'_>| security_events::page(tx, &newest, 100);
        self.watch.store.read(read).await.unwrap()
    }

    /// How often each was told, the newest first.
    async fn told(&self) -> Vec<u64> {
        let events = self.events().await;
        assert!(events.iter().all(|event| event.kind == "EXPIRY" && event.subject == "revocation_list"));
        events.iter().map(|event| event.times).collect()
    }
}

#[tokio::test]
async fn what_ends_soon_is_told_once_whatever_restarts_there_are_and_again_when_it_is_over_or_another() {
    for database in TestDatabase::both() {
        let bed = Testbed::new();
        let begin = now().0;
        let mut watched = Watched::new(&bed, &database);
        let at = |watched: &Watched, ms: i64| watched.clock.store(begin + ms, Ordering::Relaxed);
        watched.look(false).await;
        assert_eq!(watched.told().await, Vec::<u64>::new());
        at(&watched, 29 * DAY_MS);
        watched.look(false).await;
        watched.look(false).await;
        assert_eq!(watched.told().await, [1]);
        watched.seen = None;
        watched.look(false).await;
        assert_eq!(watched.told().await, [1], "told again after a restart");

        at(&watched, 30 * DAY_MS + 10_000);
        watched.look(false).await;
        assert_eq!(watched.told().await, [1, 1]);
        watched.seen = None;
        watched.look(false).await;
        assert_eq!(watched.told().await, [1, 1]);

        bed.pki.renew_crl(UnixMillis(begin + 30 * DAY_MS)).unwrap();
        watched.look(true).await;
        assert_eq!(watched.told().await, [1, 1]);
        at(&watched, 59 * DAY_MS);
        watched.look(false).await;
        assert_eq!(watched.told().await, [1, 1, 1], "another list tells of its own end");
    }
}

#[tokio::test]
async fn what_a_revoked_certificate_did_is_told_of_its_vehicle() {
    for database in TestDatabase::both() {
        let bed = Testbed::new();
        let watched = Watched::new(&bed, &database);
        watched
            .watch
            .store
            .write::<_, StoreError>(|tx| {
                for gateway in ["CCU_001", "CCU_002"] {
                    let binding = binding("VEH_001", gateway);
                    match vehicles::by_id(tx, &binding.vehicle_id)? {
                        None => vehicles::enrol(tx, &binding, EnrolledBy::Operator, now())?,
                        Some(before) => {
                            let reason = "repair".parse().unwrap();
                            vehicles::rebind(tx, &before, &binding, None, &reason, now())?;
                        }
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
        let peer = |common_name: &str| PeerIdentity {
            common_name: common_name.to_owned(),
            thumbprint: Thumbprint::of_certificate(common_name.as_bytes()),
            certificate: None,
        };
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let refused =
            |common_name, times| News::Refused(RefusedPeer { peer: peer(common_name), address, times });
        let news = vec![
            News::Cut(peer("VEH_001_CCU_002")),
            // Its earlier gateway, and a stranger.
            refused("VEH_001_CCU_001", 7),
            refused("VEH_001_CCU_001", 2),
            refused("VEH_009_CCU_009", 1),
        ];
        watched.watch.remember(news).await;
        let vehicle: Option<VehicleId> = Some("VEH_001".parse().unwrap());
        let mut told: Vec<_> = watched.events().await;
        told.sort_by(|one, other| one.subject.cmp(&other.subject));
        let told: Vec<_> =
            told.iter().map(|event| (event.kind.as_str(), event.vehicle_id.clone(), event.times)).collect();
        assert_eq!(
            told,
            [
                ("REVOKED_HANDSHAKE", vehicle.clone(), 9),
                ("REVOKED", vehicle, 1),
                ("REVOKED_HANDSHAKE", None, 1)
            ]
        );
    }
}
