//! `farrier audit`: shows, proves and exports who changed what.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use farrier_server::audit::{
    AuditCheckError, AuditEntry, AuditHead, BrokenChain, ChainCheck, check_data_folder, check_export,
};
use serde_json::{Value, json};

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, plain, print, print_json, table, thousands};

#[derive(Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the newest changes, newest last.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Prove that no entry was changed, removed, cut off or put elsewhere.
    ///
    /// Asks the server, unless a data folder or an exported log is named; these are checked without a server.
    Verify {
        /// A server's data folder, running or not.
        #[arg(long, value_name = "DIR", conflicts_with = "export")]
        data: Option<PathBuf>,
        /// A log that `farrier audit export` wrote.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// An end of the log that was printed before, NUMBER:HASH; the log must still go through it. Can be given
        /// several times.
        #[arg(long = "head", value_name = "NUMBER:HASH")]
        heads: Vec<AuditHead>,
    },
    /// Write the whole log, one JSON entry a line, and check it on the way.
    Export {
        /// Where to; it must not exist yet.
        out: PathBuf,
    },
}

impl Audit {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::List { limit } => self.list(*limit).await,
            Command::Verify { data: Some(data), heads, .. } => {
                self.verified(check_data_folder(data, heads.clone())?)
            }
            Command::Verify { export: Some(export), heads, .. } => {
                self.verified(check_export(export, heads.clone())?)
            }
            Command::Verify { heads, .. } => {
                let operator = Operator::new(&self.operator)?;
                let (head, _) = followed(&operator, heads.clone(), |_| Ok(())).await?;
                self.verified(head)
            }
            Command::Export { out } => self.export(out).await,
        }
    }

    async fn list(&self, limit: u32) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let page = operator.get_with(&["audit"], &[("limit", &limit.to_string())]).await?;
        if self.operator.json {
            return print_json(&page);
        }
        let mut entries: Vec<AuditEntry> = read(page.get("items").unwrap_or(&Value::Null))?;
        if entries.is_empty() {
            return print("Nothing was changed yet.");
        }
        entries.reverse();
        let rows = entries.into_iter().map(|entry| {
            [
                entry.seq.to_string(),
                moment(Some(entry.at_ms.0)),
                entry.actor,
                entry.client.unwrap_or_default(),
                entry.action,
                entry.object,
                entry.detail.unwrap_or_default(),
            ]
        });
        print(&table(["NUMBER", "WHEN", "WHO", "FROM", "ACTION", "OBJECT", "DETAIL"], rows.collect()))
    }

    fn verified(&self, head: AuditHead) -> anyhow::Result<()> {
        if self.operator.json {
            return print_json(&json!({"entries": head.seq, "head": head.to_string()}));
        }
        print(&format!(
            "The audit log holds: {} entries, none changed, removed or put elsewhere.\nIt ends with {head}\n\
             Keep that line where the server cannot write; later: farrier audit verify --head {head}",
            thousands(head.seq)
        ))
    }

    async fn export(&self, out: &Path) -> anyhow::Result<()> {
        use anyhow::Context;
        let operator = Operator::new(&self.operator)?;
        let unwritable = || {
            format!("cannot write {}; name a file that does not exist, in a folder that does", out.display())
        };
        let file = std::fs::File::create_new(out).with_context(unwritable)?;
        let mut file = std::io::BufWriter::new(file);
        let write = |entry: &AuditEntry| {
            serde_json::to_writer(&mut file, entry)?;
            file.write_all(b"\n")?;
            Ok(())
        };
        let (head, _) = followed(&operator, Vec::new(), write).await?;
        file.flush().and_then(|()| file.get_ref().sync_all()).with_context(unwritable)?;
        if self.operator.json {
            return print_json(&json!({"entries": head.seq, "head": head.to_string()}));
        }
        print(&format!(
            "Wrote {} entries to {}.\nThe log ends with {head}\nCheck it: farrier audit verify --export {} --head {head}",
            thousands(head.seq),
            plain(&out.display().to_string()),
            plain(&out.display().to_string()),
        ))
    }
}

/// Follows the server's log from its beginning to where the server said at first that it ends.
async fn followed(
    operator: &Operator,
    mut noted: Vec<AuditHead>,
    mut each: impl FnMut(&AuditEntry) -> anyhow::Result<()>,
) -> anyhow::Result<(AuditHead, u64)> {
    let mut after: Option<String> = None;
    let mut check: Option<ChainCheck> = None;
    let mut taken = 0;
    loop {
        let mut query = vec![("first", "oldest"), ("limit", "1000")];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = operator.get_with(&["audit"], &query).await?;
        let check_now = match &mut check {
            Some(check) => check,
            None => {
                noted.push(read(page.get("head").unwrap_or(&Value::Null))?);
                check.insert(ChainCheck::new(std::mem::take(&mut noted)))
            }
        };
        for entry in read::<Vec<AuditEntry>>(page.get("items").unwrap_or(&Value::Null))? {
            check_now.take(&entry).map_err(AuditCheckError::from)?;
            each(&entry)?;
            taken = entry.seq;
        }
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            let end = check.map(ChainCheck::end).transpose();
            let head = end.map_err(|broken: BrokenChain| AuditCheckError::from(broken))?;
            return Ok((head.unwrap_or(farrier_server::audit::BEFORE_THE_FIRST), taken));
        }
    }
}
