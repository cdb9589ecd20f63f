//! `farrier-gateway --config FILE` runs until SIGTERM or SIGINT; `check` and `status` look at it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use farrier_gateway::arguments::{Arguments, Command};
use farrier_gateway::{Gateway, GatewayConfig, Pulse, ServiceManager, StatusReport, check, with_causes};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(config) = arguments.config else {
        let kind = clap::error::ErrorKind::MissingRequiredArgument;
        Arguments::command().error(kind, "--config <FILE> is required").exit();
    };
    let done = match arguments.command {
        None => run(&config).await,
        Some(Command::Check) => return print_findings(&config).await,
        Some(Command::Status { json }) => status(&config, json).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farrier-gateway: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Path) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let manager = ServiceManager::from_environment().context("cannot use NOTIFY_SOCKET")?;
    let mut gateway = Gateway::start(GatewayConfig::read(config)?).await?;
    let pulse = gateway.pulse();
    manager.ready();
    tokio::select! {
        failure = gateway.stopped() => return Ok(failure?),
        () = keep_alive(&manager, pulse) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    manager.stopping();
    Ok(gateway.stop().await?)
}

/// Tells the watchdog of the agent's own signs of life; without them the gateway is killed and started again.
async fn keep_alive(manager: &ServiceManager, pulse: Pulse) {
    let Some(every) = manager.watchdog() else { return std::future::pending().await };
    loop {
        if pulse.beats().await {
            manager.alive();
        }
        tokio::time::sleep(every).await;
    }
}

async fn print_findings(config: &Path) -> ExitCode {
    let findings = check(config).await;
    for finding in &findings {
        println!("{finding}");
    }
    let is_right = findings.iter().all(|finding| finding.result.is_ok());
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn status(config: &Path, json: bool) -> anyhow::Result<()> {
    let config = GatewayConfig::read(config)?;
    let asked = StatusReport::ask(&config.state_dir).await;
    let report = asked
        .with_context(|| format!("no gateway is at work on {}; start it", config.state_dir.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}
