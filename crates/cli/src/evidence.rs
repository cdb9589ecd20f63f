//! `farrier evidence`: the register of RXSWINs; signed records of updates for UN R156, exported and checked.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use farrier_server::audit::AuditHead;
use farrier_server::evidence::{EvidencePublicKey, VerifiedArchive, verify};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, plain, print, print_json, table, thousands};

#[derive(Args)]
pub(crate) struct Evidence {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the records of a campaign or a vehicle to a signed archive (tar with JSON and HTML).
    Export {
        /// The campaign.
        #[arg(long, value_name = "NAME", required_unless_present = "vehicle", conflicts_with = "vehicle")]
        campaign: Option<String>,
        /// The vehicle.
        #[arg(long, value_name = "ID")]
        vehicle: Option<String>,
        /// Where to; it must not exist yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Prove that an archive is as it was signed. Needs no server.
    Verify {
        /// The archive.
        file: PathBuf,
        /// The public key (PEM) of the server that made it: its evidence.pub.pem, or what `evidence key` prints.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// An end of the audit log that was noted elsewhere, NUMBER:HASH; the log in the archive must go through it. Can be
        /// given several times.
        #[arg(long = "head", value_name = "NUMBER:HASH")]
        heads: Vec<AuditHead>,
    },
    /// Print the public key that the server signs evidence with.
    Key,
    /// The register of RXSWINs (UN R156, 7.1.2.3).
    #[command(subcommand)]
    Rxswin(Rxswin),
}

#[derive(Subcommand)]
enum Rxswin {
    /// List the newest revision of each RXSWIN.
    List,
    /// Show every revision of one RXSWIN of a vehicle type.
    Show {
        /// The vehicle type.
        #[arg(long = "type", value_name = "TYPE")]
        vehicle_type: String,
        /// The RXSWIN.
        rxswin: String,
    },
    /// Register all software that is relevant to an RXSWIN from now on. Earlier revisions stay as they are.
    Set {
        /// The vehicle type.
        #[arg(long = "type", value_name = "TYPE")]
        vehicle_type: String,
        /// The RXSWIN.
        rxswin: String,
        /// One piece of software, HARDWARE=VERSION@SHA256; can be given several times.
        #[arg(long = "software", value_name = "HARDWARE=VERSION@SHA256", value_parser = software)]
        software: Vec<Value>,
        /// All software from a JSON file, a list as the API takes it.
        #[arg(long, value_name = "FILE", conflicts_with = "software")]
        from: Option<PathBuf>,
        /// Of the type approval, as the number of an extension.
        #[arg(long)]
        approval: Option<String>,
        /// For people.
        #[arg(long)]
        note: Option<String>,
    },
}

#[derive(Deserialize)]
struct Revision {
    vehicle_type: String,
    rxswin: String,
    revision: u64,
    software: Vec<Software>,
    #[serde(default)]
    approval: Option<String>,
    recorded_at_ms: i64,
    recorded_by: String,
}

#[derive(Deserialize)]
struct Software {
    hw_part_no: String,
    version: String,
    sha256: String,
}

fn software(text: &str) -> Result<Value, String> {
    let parts = text.split_once('=').and_then(|(hardware, rest)| Some((hardware, rest.rsplit_once('@')?)));
    match parts {
        Some((hardware, (version, sha256))) => {
            Ok(json!({"hw_part_no": hardware, "version": version, "sha256": sha256}))
        }
        None => Err(format!("expected HARDWARE=VERSION@SHA256, found {text:?}")),
    }
}

impl Evidence {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::Verify { file, key, heads } => self.verify(file, key, heads),
            Command::Export { campaign, vehicle, out } => {
                let path = match (campaign, vehicle) {
                    (Some(campaign), _) => ["evidence", "campaigns", campaign],
                    (None, Some(vehicle)) => ["evidence", "vehicles", vehicle],
                    (None, None) => anyhow::bail!("expected --campaign NAME or --vehicle ID, found neither"),
                };
                self.export(&path, out).await
            }
            Command::Key => {
                let answer = Operator::new(&self.operator)?.get(&["evidence", "key"]).await?;
                if self.operator.json {
                    return print_json(&answer);
                }
                let pem = answer.get("public_key_pem").and_then(Value::as_str).unwrap_or_default();
                print(pem.trim_end())
            }
            Command::Rxswin(rxswin) => self.rxswin(rxswin).await,
        }
    }

    async fn export(&self, path: &[&str], out: &Path) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let unwritable = || {
            format!("cannot write {}; name a file that does not exist, in a folder that does", out.display())
        };
        let mut file = std::fs::File::create_new(out).with_context(unwritable)?;
        let mut size_bytes = 0_u64;
        let fetched = operator
            .fetch(path, |octets| {
                size_bytes = size_bytes.saturating_add(octets.len() as u64);
                file.write_all(octets).with_context(unwritable)
            })
            .await;
        if let Err(error) = fetched.and_then(|()| file.sync_all().with_context(unwritable)) {
            // What is not whole is of no use to anybody; the error that counts is the first.
            let _ = std::fs::remove_file(out);
            return Err(error);
        }
        if self.operator.json {
            return print_json(&json!({"file": out, "size_bytes": size_bytes}));
        }
        let shown = plain(&out.display().to_string());
        print(&format!(
            "Wrote {} bytes to {shown}.\nCheck it: farrier evidence verify {shown} --key evidence.pub.pem",
            thousands(size_bytes)
        ))
    }

    fn verify(&self, file: &Path, key: &Path, heads: &[AuditHead]) -> anyhow::Result<()> {
        let key = EvidencePublicKey::load(key)?;
        let archive = std::fs::File::open(file)
            .with_context(|| format!("cannot read {}; check the path", file.display()))?;
        let verified = verify(std::io::BufReader::new(archive), &key, heads)?;
        let VerifiedArchive { subject, server, made_at, files, updates, audit_from, audit_head } = verified;
        if self.operator.json {
            return print_json(&json!({
                "subject": subject, "server": server, "made_at_ms": made_at, "files": files, "updates": updates,
                "audit_from": audit_from, "audit_head": audit_head.to_string(),
            }));
        }
        let audit = match audit_from {
            Some(from) => format!("entries {from} to {} of the audit log, which hold", audit_head.seq),
            None => "no entry of the audit log".to_owned(),
        };
        print(&format!(
            "The archive holds: {}, signed by {} at {}.\n{} file(s), {} record(s) of updates, {audit}.\n\
             The audit log ended with {audit_head}",
            plain(&subject),
            plain(&server),
            moment(Some(made_at.0)),
            thousands(files),
            thousands(updates),
        ))
    }

    async fn rxswin(&self, command: &Rxswin) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let path = ["evidence", "rxswins"];
        let answer = match command {
            Rxswin::List | Rxswin::Show { .. } => operator.list(&path).await?,
            Rxswin::Set { vehicle_type, rxswin, software, from, approval, note } => {
                let software = match from {
                    None => Value::from(software.as_slice()),
                    Some(path) => {
                        let text = std::fs::read_to_string(path)
                            .with_context(|| format!("reading {}", path.display()))?;
                        serde_json::from_str(&text)
                            .with_context(|| format!("{}: expected a list in JSON", path.display()))?
                    }
                };
                let body = json!({
                    "vehicle_type": vehicle_type, "rxswin": rxswin, "software": software, "approval": approval,
                    "note": note,
                });
                let answer = operator.post(&path, &body).await?;
                if self.operator.json {
                    return print_json(&answer);
                }
                let set: Revision = read(&answer)?;
                return print(&format!(
                    "{} of vehicle type {}: revision {}, {} piece(s) of software.",
                    plain(&set.rxswin),
                    plain(&set.vehicle_type),
                    set.revision,
                    set.software.len()
                ));
            }
        };
        let keep = |all: &[Value], number: usize| -> bool {
            let of = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
            let Some(this) = all.get(number) else { return false };
            let key = (of(this, "vehicle_type"), of(this, "rxswin"));
            match command {
                Rxswin::Show { vehicle_type, rxswin } => {
                    key == (Some(vehicle_type.clone()), Some(rxswin.clone()))
                }
                // Revisions of one come one after the other.
                Rxswin::List | Rxswin::Set { .. } => all
                    .get(number.saturating_add(1))
                    .is_none_or(|next| (of(next, "vehicle_type"), of(next, "rxswin")) != key),
            }
        };
        let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let kept: Vec<Value> = (0..all.len())
            .filter(|number| keep(all, *number))
            .filter_map(|number| all.get(number).cloned())
            .collect();
        if self.operator.json {
            return print_json(&Value::from(kept));
        }
        let revisions: Vec<Revision> = read(&Value::from(kept))?;
        if revisions.is_empty() {
            return print(
                "Nothing is registered. Register it: farrier evidence rxswin set RXSWIN --type TYPE --software …",
            );
        }
        let rows = revisions.iter().flat_map(|revision| {
            revision.software.iter().map(|software| {
                [
                    revision.vehicle_type.clone(),
                    revision.rxswin.clone(),
                    revision.revision.to_string(),
                    moment(Some(revision.recorded_at_ms)),
                    revision.recorded_by.clone(),
                    revision.approval.clone().unwrap_or_default(),
                    software.hw_part_no.clone(),
                    software.version.clone(),
                    software.sha256.clone(),
                ]
            })
        });
        let heads =
            ["TYPE", "RXSWIN", "REVISION", "RECORDED", "BY", "APPROVAL", "HARDWARE", "VERSION", "SHA-256"];
        print(&table(heads, rows.collect()))
    }
}
