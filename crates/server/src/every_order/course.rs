//! Time, what is going to happen, and the fate of what is under way. Time moves only from one happening to the next.

use std::collections::BTreeMap;

use farrier_protocol::{MsgId, UnixMillis, UpTopic};

use super::tape::Tape;
use crate::testbed::START;

/// Names a vehicle's connection: a new one gets a new number.
pub(super) type Connection = u64;

#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// A vehicle's message arrives, perhaps again.
    Up { vehicle: usize, connection: Connection, message: Published },
    /// The server's acknowledgement arrives.
    UpAcknowledged { vehicle: usize, connection: Connection, sequence: u64 },
    /// A command arrives, perhaps again.
    Down { vehicle: usize, connection: Connection, msg_id: MsgId, payload: Vec<u8> },
    /// The vehicle's acknowledgement arrives.
    DownAcknowledged { vehicle: usize, connection: Connection, msg_id: MsgId },
    /// A gateway tries to connect.
    Connects { vehicle: usize },
    /// A connection breaks, as its gateway sees it.
    GatewayLoses { vehicle: usize, connection: Connection },
    /// A connection breaks, as the server sees it.
    ServerLoses { vehicle: usize, connection: Connection },
    /// A gateway gets power.
    PowerComes { vehicle: usize },
    /// Something that a gateway works on ends, unless its power was cut since.
    TaskEnds { vehicle: usize, boot: u64, task: u64 },
    /// The deadline of a StartDownload passes by a gateway's clock.
    DeadlinePasses { vehicle: usize, boot: u64, command: MsgId },
    /// An ECU's trial is over.
    TrialEnds { vehicle: usize, ecu: usize },
    /// The server's runner wakes; only the one that was set last counts.
    RunnerWakes { number: u64 },
    /// The server's process starts.
    ServerStarts,
    /// An operator acts.
    OperatorActs(Order),
}

/// A message of a vehicle with its place in the gateway's outbox; a WakeUp has none.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) topic: UpTopic,
    pub(super) payload: Vec<u8>,
    pub(super) sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    /// Starts the campaign that brings every vehicle to this version.
    Start {
        version: u8,
    },
    Cancel {
        vehicle: usize,
        version: u8,
    },
    RollBack {
        vehicle: usize,
        version: u8,
    },
    Abort {
        version: u8,
    },
}

pub(super) struct Course {
    pub(super) now: UnixMillis,
    pub(super) tape: Tape,
    coming: BTreeMap<(i64, u64), Happening>,
    planned: u64,
    log: Option<Vec<String>>,
}

pub(super) const SECOND: i64 = 1_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
/// How long a message is under way where nothing goes wrong.
const QUICK: i64 = 20;
/// How long a side waits for an acknowledgement before it gives the connection up.
const PATIENCE: i64 = 30 * SECOND;

impl Course {
    pub(super) fn new(tape: Tape, logs: bool) -> Self {
        Self { now: START, tape, coming: BTreeMap::new(), planned: 0, log: logs.then(Vec::new) }
    }

    pub(super) fn after(&mut self, ms: i64, happening: Happening) {
        self.planned += 1;
        self.coming.insert((self.now.0 + ms, self.planned), happening);
    }

    /// Moves time to what happens next.
    pub(super) fn next(&mut self) -> Option<Happening> {
        let ((at, _), happening) = self.coming.pop_first()?;
        self.now = UnixMillis(at);
        Some(happening)
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let at_ms = self.now.0 - START.0;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10}.{:03} s  {}", at_ms / SECOND, at_ms % SECOND, line()));
        }
    }

    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    pub(super) fn log(&self) -> String {
        self.log.as_deref().unwrap_or_default().join("\n")
    }

    /// Some time, mostly the least of it.
    pub(super) fn some_time(&mut self, least_ms: i64, unit_ms: i64) -> i64 {
        least_ms + i64::from(self.tape.draw()) * unit_ms
    }

    /// Sends something over a connection: it arrives soon, late (so that others overtake it), twice, or not at all.
    /// Where it is lost the connection is too, once its sender has waited long enough.
    pub(super) fn send(&mut self, vehicle: usize, connection: Connection, happening: Happening) {
        match self.tape.draw() {
            0..200 => self.after(QUICK, happening),
            200..225 => {
                let late = self.some_time(SECOND, 150);
                self.after(late, happening);
            }
            225..242 => {
                let later = self.some_time(QUICK, 3 * SECOND);
                self.note(|| format!("V{vehicle}: the next message on its way arrives twice"));
                self.after(later, happening.clone());
                self.after(QUICK, happening);
            }
            242.. => {
                self.note(|| format!("V{vehicle}: a message is lost on its way: {}", happening.name()));
                self.breaks(vehicle, connection, PATIENCE);
            }
        }
    }

    /// A connection breaks; the server may notice it later than the gateway.
    pub(super) fn breaks(&mut self, vehicle: usize, connection: Connection, after_ms: i64) {
        let notices_after = if self.tape.chance(80) { 90 * SECOND } else { 0 };
        self.after(after_ms, Happening::GatewayLoses { vehicle, connection });
        self.after(after_ms + notices_after, Happening::ServerLoses { vehicle, connection });
    }
}

impl Happening {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Up { .. } => "a vehicle's message",
            Self::UpAcknowledged { .. } => "the server's acknowledgement",
            Self::Down { .. } => "a command",
            Self::DownAcknowledged { .. } => "the vehicle's acknowledgement",
            Self::Connects { .. }
            | Self::GatewayLoses { .. }
            | Self::ServerLoses { .. }
            | Self::PowerComes { .. }
            | Self::TaskEnds { .. }
            | Self::DeadlinePasses { .. }
            | Self::TrialEnds { .. }
            | Self::RunnerWakes { .. }
            | Self::ServerStarts
            | Self::OperatorActs(_) => "nothing that travels",
        }
    }
}
