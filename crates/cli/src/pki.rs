//! `farrier pki`: the certificate authority in a folder.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use farrier_protocol::{Binding, GatewayId, VehicleId};
use farrier_server::pki::{Issued, LEAF_VALIDITY, Pki as Authority};
use serde_json::{Value, json};

use crate::output::{now, print, print_json};

#[derive(Args)]
pub(crate) struct Pki {
    /// Print the answer as JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a certificate authority and a release key in a folder.
    Init {
        /// The folder; made if it is not there.
        dir: PathBuf,
        /// Replace what is there: certificates issued so far are no longer accepted.
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate to a server.
    IssueServer {
        /// The folder that `pki init` made.
        dir: PathBuf,
        /// A DNS name or IP address that vehicles know the server by; can be given several times.
        #[arg(long = "name", required = true)]
        names: Vec<String>,
        /// Where cert.pem, key.pem and ca.pem go.
        #[arg(long)]
        out: PathBuf,
        /// Replace files that are there.
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate to a server for its connection to a broker.
    IssueNode {
        /// The folder that `pki init` made.
        dir: PathBuf,
        /// What the broker calls the server; letters, digits, '-' and '.'.
        #[arg(long)]
        name: String,
        /// Where cert.pem, key.pem and ca.pem go.
        #[arg(long)]
        out: PathBuf,
        /// Replace files that are there.
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate to a vehicle's gateway.
    IssueVehicle {
        /// The folder that `pki init` made.
        dir: PathBuf,
        #[command(flatten)]
        binding: BindingArgs,
        /// Where cert.pem, key.pem and ca.pem go.
        #[arg(long)]
        out: PathBuf,
        /// Replace files that are there.
        #[arg(long)]
        force: bool,
    },
    /// Revoke all certificates of a vehicle's gateway.
    Revoke {
        /// The folder that `pki init` made.
        dir: PathBuf,
        #[command(flatten)]
        binding: BindingArgs,
    },
}

#[derive(Args)]
pub(crate) struct BindingArgs {
    /// The vehicle's id.
    #[arg(long)]
    vehicle: VehicleId,
    /// The id of its gateway.
    #[arg(long)]
    gateway: GatewayId,
}

impl BindingArgs {
    fn binding(&self) -> Binding {
        Binding { vehicle_id: self.vehicle.clone(), gateway_id: self.gateway.clone() }
    }
}

impl Pki {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let Done { text, value } = self.command.run()?;
        if self.json { print_json(&value) } else { print(&text) }
    }
}

/// What was done, for people and for programs.
struct Done {
    text: String,
    value: Value,
}

impl Command {
    fn run(&self) -> anyhow::Result<Done> {
        Ok(match self {
            Self::Init { dir, force } => {
                let pki = Authority::init(dir, *force, now())?;
                let text = format!(
                    "Made a certificate authority and a release key in {}.\n\
                     Keep root.key.pem and release.key.pem secret, and a copy of the folder in a safe place.",
                    dir.display()
                );
                let value = json!({
                    "pki": dir, "root_certificate": pki.root_certificate(), "revoked": pki.crl(),
                    "release_public_key": pki.release_public_key(),
                });
                Done { text, value }
            }
            Self::IssueServer { dir, names, out, force } => {
                let issued = Authority::open(dir)?.issue_server(names, out, LEAF_VALIDITY, *force, now())?;
                let holder = format!("server {}", names.join(", "));
                told(&holder, json!({ "names": names }), &issued, out)
            }
            Self::IssueNode { dir, name, out, force } => {
                let issued = Authority::open(dir)?.issue_node(name, out, LEAF_VALIDITY, *force, now())?;
                told(&format!("server {name}"), json!({ "name": name }), &issued, out)
            }
            Self::IssueVehicle { dir, binding, out, force } => {
                let binding = binding.binding();
                let issued =
                    Authority::open(dir)?.issue_vehicle(&binding, out, LEAF_VALIDITY, *force, now())?;
                let holder = json!({ "vehicle_id": binding.vehicle_id, "gateway_id": binding.gateway_id });
                told(&binding.to_string(), holder, &issued, out)
            }
            Self::Revoke { dir, binding } => {
                let binding = binding.binding();
                let revoked = Authority::open(dir)?.revoke(&binding, now())?;
                let mut text = format!("Revoked {} certificate(s) of {binding}:", revoked.len());
                for thumbprint in &revoked {
                    text.push_str(&format!("\n  {thumbprint}"));
                }
                let value = json!({
                    "vehicle_id": binding.vehicle_id, "gateway_id": binding.gateway_id, "revoked": revoked,
                });
                Done { text, value }
            }
        })
    }
}

/// A certificate was issued; `value` says whose it is.
fn told(holder: &str, mut value: Value, issued: &Issued, out: &Path) -> Done {
    let text = format!(
        "Issued a certificate to {holder}, valid for {} days: cert.pem, key.pem and ca.pem are in {}.",
        LEAF_VALIDITY.as_secs() / 86_400,
        out.display()
    );
    let certificate = json!({
        "certificate": out.join("cert.pem"), "key": out.join("key.pem"), "ca": out.join("ca.pem"),
        "thumbprint": issued.thumbprint, "serial": issued.serial, "ends_at_ms": issued.ends_at.0,
    });
    if let (Value::Object(value), Value::Object(certificate)) = (&mut value, certificate) {
        value.extend(certificate);
    }
    Done { text, value }
}
