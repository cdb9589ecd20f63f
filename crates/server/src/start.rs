//! Starting and stopping: everything that can be wrong is found before the first vehicle comes, and nothing is
//! lost when the server goes.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use farrier_protocol::{Binding, LongText, UnixMillis};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{self, Api, EvidenceDesk, Trust, Vitals};
use crate::artifacts::Artifacts;
use crate::audit_heads::HeadNotes;
use crate::broker::{BrokerError, BrokerLink, Wakes};
use crate::change_feed::{Feed, Herald};
use crate::config::{ConfigError, ServerConfig};
use crate::console::{self, Console, OidcError, Provider};
use crate::conversation::{Grants, Presence, Rules, ServerDesk};
use crate::delta_maker::DeltaMaker;
use crate::desk::WallClock;
use crate::evidence::{EvidenceKey, EvidenceKeyError};
use crate::files::{self, HttpsLimits};
use crate::gatekeeper::{ChangedGates, Gatekeeper};
use crate::mqtt::{self, Connections, MqttEndpoint, MqttMode};
use crate::new_token::{FirstTokenError, ensure_an_admin};
use crate::nodes::{Node, Untold};
use crate::operator_listener;
use crate::own_certificate::{self, CertificateWatch};
use crate::pki::PkiError;
use crate::private_file::write_private;
use crate::release_signature::{ReleaseKeyError, ReleaseSignature};
use crate::runner::Runner;
use crate::sampler::Sampler;
use crate::sessions::{SessionWriter, Sessions};
use crate::store::intake::KnownQueries;
use crate::store::releases::KnownReleases;
use crate::store::{Committed, Notice, Store, StoreAddress, StoreError};
use crate::tls::operator::OperatorTls;
use crate::tls::{OutgoingTlsError, TlsError, VehicleTls};
use crate::webhooks::{Deliverer, Sender};

/// Files that the server opens for other things than vehicles' MQTT connections: downloads, operators, the store.
const FILES_BESIDE_CONNECTIONS: u64 = 1_024;

/// Why the server did not start. Then no socket is open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder of the authority.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The files of the vehicles' listeners.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The release key.
    #[error(transparent)]
    ReleaseKey(#[from] ReleaseKeyError),
    /// The key that evidence is signed with.
    #[error(transparent)]
    EvidenceKey(#[from] EvidenceKeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another server works on the same folder.
    #[error(
        "{path} is in use by another server: expected one server per data folder; stop the other one, or choose another folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder of the data folder.
    #[error(
        "cannot write {path}: check that its folder exists, has room, and that this user may write there"
    )]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// How others are spoken to.
    #[error(transparent)]
    OutgoingTls(#[from] OutgoingTlsError),
    /// How people sign in.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// How the broker is reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// An address.
    #[error(
        "cannot listen on {address} ({listener}): expected a free address of this machine; stop what uses it, or choose another one"
    )]
    Listen {
        /// Which listener.
        listener: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The console's link.
    #[error("the link for the console's first admin could not be stored; the log says why")]
    Console,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers for the operator's token")]
    Random,
}

/// The server.
#[derive(Debug, Clone, Copy)]
pub struct Server;

/// A server that listens. Dropping it stops it too, but does not wait until nothing is under way.
pub struct RunningServer {
    /// Where vehicles speak MQTT with this server; none where they speak with a broker.
    pub mqtt: Option<SocketAddr>,
    /// Where vehicles fetch files.
    pub https: SocketAddr,
    /// Where operators speak to the API.
    pub operator: SocketAddr,
    /// The same as a URL.
    pub operator_url: String,
    /// The file with the first operator's token.
    pub operator_token: PathBuf,
    /// By which the first admin of the console chooses name and password, once, within an hour; absent where the console has one.
    pub console_link: Option<String>,
    /// The root that operators' programs trust; absent where the certificate is not the server's own, or none.
    pub operator_ca: Option<PathBuf>,
    shutdown: CancellationToken,
    runner_shutdown: CancellationToken,
    endpoints: Vec<JoinHandle<()>>,
    runner: JoinHandle<()>,
    pub(crate) store: Store,
    replaced: CancellationToken,
    listening: PathBuf,
    reload: Arc<Notify>,
    _cancel_on_drop: (DropGuard, DropGuard),
    _lock: File,
}

/// The sockets; vehicles that connect to a broker need one less.
struct Listeners {
    mqtt: Option<(TcpListener, SocketAddr)>,
    https: (TcpListener, SocketAddr),
    operator: (TcpListener, SocketAddr),
}

impl Server {
    /// Starts a server; it listens when this resolves.
    ///
    /// # Errors
    /// Names the setting, file or address, what was expected of it, and what to do.
    pub async fn start(config: ServerConfig) -> Result<RunningServer, StartError> {
        Self::start_with_clock(config, Arc::new(wall_clock)).await
    }

    /// Starts a server that takes `clock` for the wall clock, so that tests need not wait for deadlines.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_with_clock(
        config: ServerConfig,
        clock: WallClock,
    ) -> Result<RunningServer, StartError> {
        let topics = config.check()?;
        open_as_many_files_as_allowed(&config);
        let lock = lock_data(&config.data)?;
        let listening = config.data.join("listening.json");
        remove_if_there(&listening)?;
        let own = own_certificate::prepare(&config, clock())?;
        let tls = Arc::new(VehicleTls::load(&own.files, clock())?);
        let operator_tls = own.operator.as_ref().map(|files| OperatorTls::load(files, clock()));
        let operator_tls = operator_tls.transpose()?.map(Arc::new);
        let operator_ca = own
            .publish_operator_ca(&config.data)
            .map_err(|source| StartError::Data { path: config.data.clone(), source })?;
        let signature = Arc::new(release_signature(&config, own.pki.as_ref())?);
        let evidence = EvidenceDesk::new(EvidenceKey::load_or_make(&config.data)?);
        let node = node_name(&config)?;
        let images = config.images.clone().unwrap_or_else(|| config.data.join("images"));
        let artifacts =
            Artifacts::open(&images, &node).map_err(|source| StartError::Data { path: images, source })?;
        let webhook_sender = Arc::new(Sender::new(&config.webhooks)?);
        let listeners = Listeners::bind(&config).await?;

        let connections = Arc::new(Connections::new());
        let due_changed = Arc::new(Notify::new());
        let delta_wanted = Arc::new(Notify::new());
        let grants = Grants::default();
        let changed_gates = Arc::new(ChangedGates::default());
        let untold = Arc::new(Untold::default());
        let wakes = Arc::new(Wakes::default());
        let wake = whom_to_wake(&config, &connections, &untold, &wakes);
        let (told, to_deliver) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let tellers = Tellers {
            due_changed: Arc::clone(&due_changed),
            delta_wanted: Arc::clone(&delta_wanted),
            grants: grants.clone(),
            changed_gates: Arc::clone(&changed_gates),
            connections: Arc::clone(&connections),
            told: Arc::clone(&told),
        };
        let store = open_store(&config, wake, tellers)?;
        let replaced = CancellationToken::new();
        let this_node = enter_node(&store, &connections, &clock, &node, &untold, &replaced).await?;
        let operator_token = config.data.join("operator.token");
        ensure_an_admin(&store, &operator_token, clock())
            .await
            .map_err(|error| first_token(&operator_token, error))?;
        let rules = Arc::new(rules(&config, &listeners, &connections)?);

        let sessions = Arc::new(Sessions::default());
        let desk = Arc::new(ServerDesk {
            store: store.clone(),
            rules: Arc::clone(&rules),
            artifacts: artifacts.clone(),
            clock: Arc::clone(&clock),
            grants,
            sessions: Arc::clone(&sessions),
        });
        let session_writer =
            SessionWriter { store: store.clone(), sessions, node: node.clone(), started_at: clock() };
        let delta_maker = DeltaMaker {
            store: store.clone(),
            artifacts: artifacts.clone(),
            signature: Arc::clone(&signature),
            settings: config.deltas.clone(),
            clock: Arc::clone(&clock),
            node: node.clone(),
            wanted: delta_wanted,
        };
        let broker = match config.mqtt.mode {
            MqttMode::Endpoint => None,
            MqttMode::Broker => {
                let settings = &config.mqtt.broker;
                Some(BrokerLink::new(settings, &node, topics.clone(), Arc::clone(&desk), wakes)?)
            }
        };
        let (shutdown, runner_shutdown) = (CancellationToken::new(), CancellationToken::new());
        let feed = Feed::new(shutdown.clone());
        let herald = Herald {
            store: store.clone(),
            clock: Arc::clone(&clock),
            feed: Arc::clone(&feed),
            told,
            to_deliver: Arc::clone(&to_deliver),
        };
        let deliverer =
            Deliverer { store: store.clone(), sender: webhook_sender, clock: Arc::clone(&clock), to_deliver };
        let api = Api {
            store: store.clone(),
            rules: Arc::clone(&rules),
            artifacts,
            signature,
            evidence,
            clock: Arc::clone(&clock),
            vitals: Vitals::new(
                Arc::clone(&connections),
                Trust {
                    vehicles: Arc::clone(&tls),
                    operators: operator_tls.clone(),
                    alarms: config.expiry_alarms.clone(),
                },
                broker.as_ref().map(BrokerLink::is_connected),
                shutdown.clone(),
                config.allow_metrics_without_token,
            ),
            feed,
            webhooks: Arc::new(config.webhooks.clone()),
        };
        let head_notes = HeadNotes::new(store.clone(), Arc::clone(&clock), &config.data);
        let reload = Arc::new(Notify::new());
        let watch = CertificateWatch {
            config: config.clone(),
            own,
            tls: Arc::clone(&tls),
            operator_tls: operator_tls.clone(),
            reload: Arc::clone(&reload),
            connections: Arc::clone(&connections),
            store: store.clone(),
            clock: Arc::clone(&clock),
        };
        let gatekeeper = Gatekeeper {
            store: store.clone(),
            rules: Arc::clone(&rules),
            clock: Arc::clone(&clock),
            changed: changed_gates,
        };
        let sampler = Sampler {
            store: store.clone(),
            rules: Arc::clone(&rules),
            clock: Arc::clone(&clock),
            connections: Arc::clone(&connections),
        };
        let runner = Runner { store: store.clone(), rules, clock: Arc::clone(&clock), due_changed };

        let oidc = config.oidc.as_ref().map(Provider::new).transpose()?;
        let console = Console::new(api.clone(), operator_tls.is_some(), oidc);
        let console_link = console.first_link().await.map_err(|_| StartError::Console)?;

        let Listeners { mqtt, https, operator } = listeners;
        let mqtt_address = mqtt.as_ref().map(|(_, address)| *address);
        let scheme = if operator_tls.is_some() { "https" } else { "http" };
        let operator_url = format!("{scheme}://{}", operator.1);
        write_listening(&listening, mqtt_address, https.1, &operator_url)
            .map_err(|source| StartError::Data { path: listening.clone(), source })?;
        let endpoint = MqttEndpoint {
            desk: Arc::clone(&desk),
            connections,
            topics,
            clock,
            limits: config.mqtt.limits.clone(),
        };
        let uploads = api.clone();
        let mut endpoints = vec![
            tokio::spawn(files::serve(
                https.0,
                Arc::clone(&tls),
                desk,
                HttpsLimits { bytes_per_second: config.files.bytes_per_second, ..HttpsLimits::default() },
                shutdown.clone(),
            )),
            tokio::spawn(operator_listener::serve(
                operator.0,
                operator_tls,
                console::router(console).merge(api::router(api)),
                shutdown.clone(),
            )),
            tokio::spawn(watch.run(shutdown.clone())),
            tokio::spawn(delta_maker.run(shutdown.clone())),
            tokio::spawn(gatekeeper.run(shutdown.clone())),
            tokio::spawn(head_notes.run(shutdown.clone())),
            tokio::spawn(api::keep_uploads_tidy(uploads, shutdown.clone())),
            tokio::spawn(herald.run(shutdown.clone())),
            tokio::spawn(deliverer.run(shutdown.clone())),
            tokio::spawn(sampler.run(shutdown.clone())),
        ];
        if let Some((socket, _)) = mqtt {
            endpoints.push(tokio::spawn(mqtt::serve(socket, tls, endpoint, shutdown.clone())));
        }
        if let Some(broker) = broker {
            endpoints.push(tokio::spawn(broker.run(shutdown.clone())));
        }
        let node_shutdown = runner_shutdown.clone();
        let runner = tokio::spawn(async move {
            let telling = async {
                if let Some(node) = this_node {
                    node.tell(node_shutdown.clone()).await;
                }
            };
            // Beside the runner: when the endpoints have stopped, there is the end of their connections to write.
            let writing = session_writer.run(node_shutdown.clone());
            tokio::join!(runner.run(node_shutdown.clone()), telling, writing);
        });
        tracing::info!(mqtt = mqtt_address.map(tracing::field::display), https = %https.1, operator = operator_url, "The server listens.");
        Ok(RunningServer {
            mqtt: mqtt_address,
            https: https.1,
            operator: operator.1,
            console_link: console_link.map(|path| format!("{operator_url}{path}")),
            operator_url,
            operator_token,
            operator_ca,
            _cancel_on_drop: (shutdown.clone().drop_guard(), runner_shutdown.clone().drop_guard()),
            shutdown,
            runner_shutdown,
            endpoints,
            runner,
            store,
            replaced,
            listening,
            reload,
            _lock: lock,
        })
    }
}

impl RunningServer {
    /// Resolves when the server cannot go on although nobody stopped it, and why; the log has the cause.
    pub async fn failed(&self) -> &'static str {
        tokio::select! {
            () = self.store.failed().cancelled() => {
                "the store failed; what was acknowledged is kept, and the server has to be started again"
            }
            () = self.replaced.cancelled() => {
                "another server has started under this node's name; give each a --node of its own"
            }
        }
    }

    /// Loads certificates and the list of revoked ones anew, as SIGHUP asks for; what cannot be used is logged, and
    /// the earlier files stay in force.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Stops: no new connections, what is under way is finished within its time, the store is closed last.
    pub async fn stop(self) {
        // Whoever looks for the server shall not find it any more.
        if let Err(error) = std::fs::remove_file(&self.listening) {
            tracing::warn!(%error, "listening.json could not be removed.");
        }
        self.shutdown.cancel();
        for endpoint in self.endpoints {
            log_panic(endpoint.await);
        }
        self.runner_shutdown.cancel();
        log_panic(self.runner.await);
        self.store.close().await;
        tracing::info!("The server has stopped.");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "A part of the server ended by a panic.");
    }
}

fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Each connection is a file. What the system lets a program open at first is often far less than it allows it.
fn open_as_many_files_as_allowed(config: &ServerConfig) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "The limit of open files could not be raised.");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = (config.mqtt.limits.connections as u64).saturating_add(FILES_BESIDE_CONNECTIONS);
    if config.mqtt.mode == MqttMode::Endpoint && allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "Not as many vehicles can connect as mqtt.limits.connections says: the system lets this program open too few \
             files. Raise its limit (LimitNOFILE= of its systemd unit, ulimit -n)."
        );
    }
}

/// Makes the data folder, for this user alone, and keeps other servers out of it.
fn lock_data(data: &Path) -> Result<File, StartError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Data { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(refused(data))?;
    let path = data.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(refused(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StartError::Data { path, source }),
    }
}

/// What this server is called among those that share its store: as it is set, else a name that it makes at its
/// first start and keeps in its data folder, which no other server works on.
fn node_name(config: &ServerConfig) -> Result<String, StartError> {
    if let Some(name) = &config.node {
        return Ok(name.clone());
    }
    let path = config.data.join("node");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(StartError::Data { path, source });
        }
        Ok(_) | Err(_) => {}
    }
    let name = crate::store::new_id();
    write_private(&path, &name).map_err(|source| StartError::Data { path, source })?;
    Ok(name)
}

fn remove_if_there(path: &Path) -> Result<(), StartError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StartError::Data { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn release_signature(
    config: &ServerConfig,
    pki: Option<&crate::pki::Pki>,
) -> Result<ReleaseSignature, StartError> {
    let private = config.release_key.clone().or_else(|| pki.map(crate::pki::Pki::release_key));
    let public = config.release_public_key.clone().or_else(|| pki.map(crate::pki::Pki::release_public_key));
    let public = public.ok_or_else(|| ConfigError::Refused {
        key: "release_public_key",
        expected: "the public key by which images' signatures are checked, since there is no pki folder"
            .to_owned(),
        found: "nothing".to_owned(),
    })?;
    // In a pki folder whose private release key is kept elsewhere, images come signed.
    let private = private.filter(|path| config.release_key.is_some() || path.is_file());
    Ok(ReleaseSignature::load(private.as_deref(), &public)?)
}

impl Listeners {
    async fn bind(config: &ServerConfig) -> Result<Self, StartError> {
        Ok(Self {
            mqtt: match config.mqtt.mode {
                MqttMode::Endpoint => Some(bind("mqtt", config.mqtt.listen).await?),
                MqttMode::Broker => None,
            },
            https: bind("https", config.https).await?,
            operator: bind("operator", config.operator).await?,
        })
    }
}

async fn bind(listener: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { listener, address, source };
    let socket = TcpListener::bind(address).await.map_err(refused)?;
    let bound = socket.local_addr().map_err(refused)?;
    Ok((socket, bound))
}

/// What is done about vehicles that have new commands.
fn whom_to_wake(
    config: &ServerConfig,
    connections: &Arc<Connections>,
    untold: &Arc<Untold>,
    wakes: &Arc<Wakes>,
) -> Box<dyn Fn(BTreeSet<Binding>) + Send + Sync> {
    match config.mqtt.mode {
        MqttMode::Broker => {
            let wakes = Arc::clone(wakes);
            Box::new(move |bindings| bindings.into_iter().for_each(|binding| wakes.wake(binding)))
        }
        MqttMode::Endpoint => {
            let (connections, untold) = (Arc::clone(connections), Arc::clone(untold));
            let has_others = config.store.is_some();
            Box::new(move |bindings| {
                let elsewhere: Vec<_> =
                    bindings.into_iter().filter(|binding| !connections.wake(binding)).collect();
                if has_others && !elsewhere.is_empty() {
                    untold.wake(elsewhere);
                }
            })
        }
    }
}

/// What is told of a commit, beside the vehicles that it wakes.
struct Tellers {
    due_changed: Arc<Notify>,
    delta_wanted: Arc<Notify>,
    grants: Grants,
    changed_gates: Arc<ChangedGates>,
    connections: Arc<Connections>,
    told: Arc<Notify>,
}

impl Tellers {
    fn tell(&self, committed: Committed) {
        if committed.due_changed {
            self.due_changed.notify_one();
        }
        if committed.grants_taken_away {
            self.grants.taken_away();
        }
        if committed.delta_wanted {
            self.delta_wanted.notify_one();
        }
        committed.rebound.iter().for_each(|earlier| self.connections.cut_binding(earlier));
        if committed.told {
            self.told.notify_one();
        }
        self.changed_gates.add(committed.gates);
    }
}

fn open_store(
    config: &ServerConfig,
    wake: Box<dyn Fn(BTreeSet<Binding>) + Send + Sync>,
    tellers: Tellers,
) -> Result<Store, StoreError> {
    let on_commit = move |mut committed: Committed| {
        wake(std::mem::take(&mut committed.wake));
        tellers.tell(committed);
    };
    let address = match &config.store {
        Some(address) => StoreAddress::Postgres(Box::new(address.clone())),
        None => StoreAddress::Sqlite(config.data.join("farrier.db")),
    };
    Store::open(&address, Arc::new(on_commit))
}

/// Takes this server's place among those on its store, where there can be others.
async fn enter_node(
    store: &Store,
    connections: &Arc<Connections>,
    clock: &WallClock,
    name: &str,
    untold: &Arc<Untold>,
    replaced: &CancellationToken,
) -> Result<Option<Node>, StoreError> {
    if !store.is_shared() {
        return Ok(None);
    }
    let node = Node {
        store: store.clone(),
        connections: Arc::clone(connections),
        clock: Arc::clone(clock),
        name: name.to_owned(),
        run: crate::store::new_id(),
        untold: Arc::clone(untold),
        replaced: replaced.clone(),
    };
    node.enter().await?;
    let changes = Arc::clone(untold);
    connections.watch(move |client_id| changes.changed(client_id));
    let told = Arc::clone(connections);
    store.on_notice(move |notice| match notice {
        Notice::Wake(binding) => _ = told.wake(&binding),
        Notice::Cut(earlier) => told.cut_binding(&earlier),
    })?;
    Ok(Some(node))
}

fn rules(
    config: &ServerConfig,
    listeners: &Listeners,
    connections: &Arc<Connections>,
) -> Result<Rules, ConfigError> {
    let base_url =
        config.base_url.clone().unwrap_or_else(|| format!("https://localhost:{}", listeners.https.1.port()));
    let base_url: LongText = base_url.parse().map_err(|error| ConfigError::Refused {
        key: "base_url",
        expected: "at most 512 characters".to_owned(),
        found: format!("{error}"),
    })?;
    let presence = match config.mqtt.mode {
        MqttMode::Broker => Presence::Broker,
        MqttMode::Endpoint => {
            let connections = Arc::clone(connections);
            Presence::Connections(Arc::new(move |binding: &Binding| connections.is_connected(binding)))
        }
    };
    Ok(Rules {
        settings: config.deadlines.clone(),
        deltas: config.deltas.clone(),
        set_aside_after: config.campaigns.set_aside_after,
        enroll: config.enroll,
        releases: KnownReleases::default(),
        queries: KnownQueries::default(),
        approval: config.campaigns.approval,
        base_url,
        max_kb_per_msg: config.max_kb_per_msg,
        failure_report: config.failure_report,
        presence,
    })
}

fn first_token(path: &Path, error: FirstTokenError) -> StartError {
    match error {
        FirstTokenError::Random => StartError::Random,
        FirstTokenError::File(source) => StartError::Data { path: path.to_owned(), source },
        FirstTokenError::Store(error) => error.into(),
    }
}

fn write_listening(
    path: &Path,
    mqtt: Option<SocketAddr>,
    https: SocketAddr,
    operator: &str,
) -> io::Result<()> {
    let addresses = serde_json::json!({
        "mqtt": mqtt.map(|address| address.to_string()), "https": https.to_string(), "operator": operator,
    });
    write_private(path, &addresses.to_string())
}

#[cfg(test)]
mod tests;
