//! What the MQTT and HTTPS endpoints ask of the rest of the server.
//! The endpoints own sockets, TLS, framing and who may speak on which topic; behind these traits the
//! conversation owns what a message means and the store owns what is remembered.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use farrier_protocol::{Binding, MsgId, PkgId, Sha256, Text, Thumbprint, UnixMillis, UpTopic};

/// Reads the wall clock: handed in, so that a whole fleet can be run in virtual time.
pub type WallClock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// Who is at the other end of a connection, as TLS proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The one common name of the certificate's subject: the client id.
    pub common_name: String,
    /// SHA-256 of the leaf certificate.
    pub thumbprint: Thumbprint,
    /// What else the certificate says; absent where whoever plays a vehicle has none.
    pub certificate: Option<Certificate>,
}

/// What the server knows of a vehicle's certificate beside whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial number in lower-case hex, at most the 20 octets that RFC 5280 allows.
    pub serial: String,
    /// Its last moment.
    pub ends_at: UnixMillis,
}

/// The store could not answer: nothing was changed, the vehicle shall try again.
#[derive(Debug, thiserror::Error)]
#[error("the server cannot read or write its store at the moment")]
pub struct DeskUnavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A message that a vehicle published on one of its own topics.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The certificate that the connection was made with; `None` if it came through a broker, which has seen the
    /// certificate and lets nobody publish on another's topics.
    pub peer: Option<Arc<PeerIdentity>>,
    /// From the topic. Its client id equals the certificate's common name and the MQTT client id.
    pub binding: Binding,
    /// Which of the `up` topics.
    pub topic: UpTopic,
    /// Unchecked, at most as large as the endpoint's packet limit; may exceed the topic's limit.
    pub payload: Bytes,
    /// When the packet was complete, by the server's wall clock.
    pub received_at: UnixMillis,
}

/// What became of a received message. All but a failing desk are acknowledged (protocol.md §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// Taken, its effects are durable.
    Accepted,
    /// Refused: cannot be parsed. MQTT 5 reason code 0x99.
    RefusedUnparsable,
    /// Refused: not this sender's to say. MQTT 5 reason code 0x87.
    RefusedIdentity,
    /// Refused: too many messages. MQTT 5 reason code 0x97.
    RefusedRate,
    /// Refused for any other reason. Acknowledged with success.
    Refused,
}

/// What a peer did at the endpoint that operators must know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// It connected so often that it is shut out for a time.
    Banned,
    /// It came with a certificate other than the one its client is connected with.
    OtherCertificate,
    /// It claimed a client id that is not its certificate's.
    ForeignClientId,
    /// It published on, or subscribed to, a topic that is not its own.
    ForeignTopic,
    /// It sends more messages than it may, and went on after they were refused.
    RateIgnored,
}

impl PeerEvent {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Banned => "BAN",
            Self::OtherCertificate => "OTHER_CERTIFICATE",
            Self::ForeignClientId => "FOREIGN_CLIENT_ID",
            Self::ForeignTopic => "FOREIGN_TOPIC",
            Self::RateIgnored => "RATE_IGNORED",
        }
    }
}

/// A connection of a client to the endpoint, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSession {
    /// The common name of its certificate.
    pub client_id: String,
    /// Sorts after those of the same client before it.
    pub id: String,
    /// When it was let in.
    pub came_at: UnixMillis,
    /// How it ended; absent while it lasts.
    pub end: Option<SessionEnd>,
}

/// When and why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub why: WhyGone,
    /// What it did, where that is why.
    pub detail: Option<&'static str>,
}

/// Why a vehicle is not connected any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyGone {
    /// It said that it goes.
    Left,
    /// The connection broke.
    Lost,
    /// Nothing came for one and a half times its keep alive.
    KeepAlive,
    /// It connected anew.
    TakenOver,
    /// Its certificate was revoked.
    Revoked,
    /// The vehicle was bound to another gateway or certificate.
    Rebound,
    /// It did what is not allowed.
    Violation,
    /// It did not read what it was sent.
    NotReading,
    /// It began a packet and did not send the rest.
    Unfinished,
    /// The store failed.
    StoreFailed,
    /// The server stopped.
    ServerStopped,
    /// The server cut it without saying why.
    Cut,
    /// The server ended before it could note it.
    Unknown,
}

impl WhyGone {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Left,
        Self::Lost,
        Self::KeepAlive,
        Self::TakenOver,
        Self::Revoked,
        Self::Rebound,
        Self::Violation,
        Self::NotReading,
        Self::Unfinished,
        Self::StoreFailed,
        Self::ServerStopped,
        Self::Cut,
        Self::Unknown,
    ];

    /// As it is stored and told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "LEFT",
            Self::Lost => "LOST",
            Self::KeepAlive => "KEEP_ALIVE",
            Self::TakenOver => "TAKEN_OVER",
            Self::Revoked => "REVOKED",
            Self::Rebound => "REBOUND",
            Self::Violation => "VIOLATION",
            Self::NotReading => "NOT_READING",
            Self::Unfinished => "UNFINISHED",
            Self::StoreFailed => "STORE_FAILED",
            Self::ServerStopped => "SERVER_STOPPED",
            Self::Cut => "CUT",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl FromStr for WhyGone {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|why| why.name() == name).ok_or(())
    }
}

/// A command that waits for its vehicle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCommand {
    /// The command's own id.
    pub msg_id: MsgId,
    /// The JSON as it goes out.
    pub payload: Bytes,
    /// After this it is not sent any more; `None` never expires.
    pub expires_at: Option<UnixMillis>,
}

/// Takes what vehicles publish, and holds what is to be sent to them.
pub trait MessageDesk: Send + Sync + 'static {
    /// Takes a message; resolves once it and all that it changed are durably stored.
    /// The calls of one connection begin in the order of arrival, and up to 32 run at a time.
    /// Once begun they are let finish, also when the vehicle has gone, unless that takes too long.
    ///
    /// # Errors
    /// The store failed: the endpoint sends no PUBACK and closes the connection, so that the vehicle
    /// sends the message again.
    fn receive(&self, inbound: Inbound) -> impl Future<Output = Result<Receipt, DeskUnavailable>> + Send;

    /// Stores that a message was refused for its rate, unread, and tells its sender so (RATE_LIMITED).
    /// Called at a bounded rate only, whatever a vehicle sends.
    ///
    /// # Errors
    /// The store failed, as for [`MessageDesk::receive`].
    fn refuse_for_rate(&self, inbound: Inbound) -> impl Future<Output = Result<(), DeskUnavailable>> + Send;

    /// Stores a security event. Called at a bounded rate only.
    ///
    /// # Errors
    /// The store failed; the event is in the log all the same.
    fn report(
        &self,
        peer: &PeerIdentity,
        event: PeerEvent,
        detail: String,
    ) -> impl Future<Output = Result<(), DeskUnavailable>> + Send;

    /// A client's connection began, or ended. Remembered later: nobody waits for it.
    fn session(&self, session: ClientSession);

    /// The undelivered, unexpired commands of a binding, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The store failed: the endpoint closes the connection.
    fn pending(
        &self,
        binding: &Binding,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<PendingCommand>, DeskUnavailable>> + Send;

    /// The vehicle has acknowledged this command (PUBACK).
    ///
    /// # Errors
    /// The store failed: the command goes out once more on the next connection.
    fn delivered(
        &self,
        binding: &Binding,
        msg_id: &MsgId,
    ) -> impl Future<Output = Result<(), DeskUnavailable>> + Send;
}

/// What a vehicle gets that asks for a package (protocol.md §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAnswer {
    /// The package's bytes.
    Serve {
        /// Where they are; the file does not change while it is there.
        path: PathBuf,
        /// How many.
        size_bytes: u64,
        /// How quickly, where its campaign says so.
        limit: Option<CampaignLimit>,
    },
    /// The package's detached signature.
    Signature(Vec<u8>),
    /// It is not part of an open StartDownload of this vehicle.
    Forbidden,
    /// It was part of one that is cancelled or expired.
    Gone,
    /// There is no such package.
    Unknown,
}

/// How many bytes all vehicles of a campaign together get from this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignLimit {
    /// Its name.
    pub campaign: Text,
    /// Of packages.
    pub bytes_per_second: u64,
}

/// How far a vehicle has been served a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The certificate that the connection was made with.
    pub peer: PeerIdentity,
    /// The package.
    pub pkg_id: PkgId,
    /// Of its bytes.
    pub hash: Sha256,
    /// The farthest byte that was served, exclusive.
    pub up_to_byte: u64,
}

/// Decides which vehicle may fetch which package, and is told how far it got.
pub trait PackageDesk: Send + Sync + 'static {
    /// May this vehicle fetch this package, and where is it?
    ///
    /// # Errors
    /// The store failed: the vehicle is told to try again later.
    fn package(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> impl Future<Output = Result<FileAnswer, DeskUnavailable>> + Send;

    /// May this vehicle fetch the package's detached signature, and which is it?
    ///
    /// # Errors
    /// The store failed: the vehicle is told to try again later.
    fn signature(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> impl Future<Output = Result<FileAnswer, DeskUnavailable>> + Send;

    /// How far downloads have got that are under way or have just ended; says of each whether the vehicle may
    /// still have the package. Called at most once a second for all vehicles together.
    ///
    /// # Errors
    /// The store failed: the same is told again in a second.
    fn downloading(
        &self,
        downloads: Vec<Download>,
    ) -> impl Future<Output = Result<Vec<bool>, DeskUnavailable>> + Send;
}
