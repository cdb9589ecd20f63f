//! `farrier pki`: the certificate authority in a folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use farrier_protocol::{Binding, GatewayId, VehicleId};
use farrier_server::pki::{LEAF_VALIDITY, Pki as Authority};

use crate::output::now;

#[derive(Subcommand)]
pub(crate) enum Pki {
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
        let done = match self {
            Self::Init { dir, force } => {
                Authority::init(dir, *force, now())?;
                format!(
                    "Made a certificate authority and a release key in {}.\n\
                     Keep root.key.pem and release.key.pem secret, and a copy of the folder in a safe place.",
                    dir.display()
                )
            }
            Self::IssueServer { dir, names, out, force } => {
                Authority::open(dir)?.issue_server(names, out, LEAF_VALIDITY, *force, now())?;
                issued(&format!("server {}", names.join(", ")), out)
            }
            Self::IssueNode { dir, name, out, force } => {
                Authority::open(dir)?.issue_node(name, out, LEAF_VALIDITY, *force, now())?;
                issued(&format!("server {name}"), out)
            }
            Self::IssueVehicle { dir, binding, out, force } => {
                let binding = binding.binding();
                Authority::open(dir)?.issue_vehicle(&binding, out, LEAF_VALIDITY, *force, now())?;
                issued(&format!("{binding}"), out)
            }
            Self::Revoke { dir, binding } => {
                let binding = binding.binding();
                let revoked = Authority::open(dir)?.revoke(&binding, now())?;
                let mut text = format!("Revoked {} certificate(s) of {binding}:", revoked.len());
                for thumbprint in revoked {
                    text.push_str(&format!("\n  {thumbprint}"));
                }
                text
            }
        };
        writeln!(std::io::stdout(), "{done}")?;
        Ok(())
    }
}

fn issued(holder: &str, out: &Path) -> String {
    format!(
        "Issued a certificate to {holder}, valid for {} days: cert.pem, key.pem and ca.pem are in {}.",
        LEAF_VALIDITY.as_secs() / 86_400,
        out.display()
    )
}
