//! `farrier backup`, `farrier restore` and `farrier store verify`: they work on files, beside a server that may run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use farrier_server::PostgresAddress;
use farrier_server::backup::{Check, ServerFiles, Summary, back_up, look, restore};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output::{bytes, is_watched, now, print, print_json, table, thousands};

/// What `store verify` ends with when it has found something wrong; 1 means that it could not look.
const NOT_WHOLE: u8 = 2;

/// Which server's files.
#[derive(Args)]
struct Files {
    /// The server's data folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The server's PostgreSQL database, where its store is not in the data folder.
    #[arg(long, value_name = "URL", env = "FARRIER_STORE", hide_env_values = true)]
    store: Option<String>,

    /// The server's images, where they are not in the data folder.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// Print the answer as JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Files {
    fn of_server(&self, pki: Option<PathBuf>) -> anyhow::Result<ServerFiles> {
        let store = self.store.as_deref().map(str::parse::<PostgresAddress>).transpose();
        let store = store.context("--store or FARRIER_STORE cannot be used")?;
        Ok(ServerFiles { data: self.data.clone(), store, images: self.images.clone(), pki })
    }
}

/// Back up a server, also while it runs: store, images and what else lies in its data folder.
///
/// A PostgreSQL database is not in the backup: dump it by pg_dump, before this command.
#[derive(Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    files: Files,

    /// Also back up this folder of a certificate authority; its keys are secret.
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,

    /// The folder to make.
    out: PathBuf,
}

impl Backup {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let server = self.files.of_server(self.pki)?;
        let made = with_progress("backing up", |progress| back_up(&server, &self.out, now(), progress))?;
        if self.files.json {
            return print_json(&json!({ "backup": self.out, "made": made }));
        }
        print(&format!("Backed up to {}: {}.", self.out.display(), told(&made)))?;
        if !made.has_store {
            print("The PostgreSQL database is not in it: keep it with the dump that pg_dump made before.")?;
        }
        Ok(())
    }
}

/// Make a server's data folder from a backup; every file is checked first.
#[derive(Args)]
pub(crate) struct Restore {
    /// The folder that `farrier backup` made.
    backup: PathBuf,

    /// The data folder to make.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Where the certificate authority goes that is in the backup.
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,

    /// Print the answer as JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (backup, data, pki) = (&self.backup, &self.data, self.pki.as_deref());
        let made = with_progress("restoring", |progress| restore(backup, data, pki, progress))?;
        if self.json {
            return print_json(&json!({ "data": self.data, "restored": made }));
        }
        print(&format!("Restored to {}: {}.", self.data.display(), told(&made)))?;
        if !made.has_store {
            print("Restore the PostgreSQL database from its own dump before the server starts.")?;
        }
        Ok(())
    }
}

fn told(summary: &Summary) -> String {
    format!(
        "{} files, {} of them images, {}",
        thousands(summary.files),
        thousands(summary.images),
        bytes(summary.bytes)
    )
}

/// Look into a server's store.
#[derive(Subcommand)]
pub(crate) enum Store {
    /// Look whether store and images are whole, of a server that runs or not, or in a backup. Ends with 0 if they are, with
    /// 2 if they are not, with 1 if it could not look.
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    files: Files,
}

impl Store {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Verify(Verify { files }) = self;
        let server = files.of_server(None)?;
        let checks = with_progress("looking at", |progress| look(&server, progress))?;
        let wrong: u64 = checks.iter().map(|check| check.wrong).sum();
        if files.json {
            print_json(&json!({ "whole": wrong == 0, "checks": checks }))?;
        } else {
            show(&checks, wrong)?;
        }
        Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_WHOLE) })
    }
}

fn show(checks: &[Check], wrong: u64) -> anyhow::Result<()> {
    let row = |check: &Check| {
        let verdict =
            if check.wrong == 0 { "whole".to_owned() } else { format!("{} wrong", thousands(check.wrong)) };
        [check.name.to_owned(), thousands(check.looked_at), verdict]
    };
    print(&table(["CHECK", "LOOKED AT", "VERDICT"], checks.iter().map(row).collect()))?;
    if wrong == 0 {
        return print("\nThe store is whole.");
    }
    print("")?;
    for check in checks {
        for problem in &check.problems {
            print(&crate::output::plain(problem))?;
        }
        let untold = check.wrong.saturating_sub(check.problems.len() as u64);
        if untold > 0 {
            print(&format!("… and {} more of the {}.", thousands(untold), check.name))?;
        }
    }
    print("\nThe store is not whole. Restore it from a backup, or do what stands beside the problem.")
}

/// Tells a person who watches which file is being worked on.
fn with_progress<T, E>(
    doing: &str,
    work: impl FnOnce(&mut dyn FnMut(&Path)) -> Result<T, E>,
) -> Result<T, E> {
    let bar = if is_watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let done = work(&mut |path| {
        bar.set_message(format!("{doing} {}", path.display()));
        bar.tick();
    });
    bar.finish_and_clear();
    done
}
