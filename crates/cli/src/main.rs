//! The `farrier` command: server, operator's commands, simulator and demo in one binary.
//! Reads arguments and prints answers; what they do lives in the crates below.

mod audit;
mod backup;
mod bench;
mod broker_rules;
mod campaign;
mod check_message;
mod completion;
mod delta;
mod demo;
mod evidence;
mod exit_code;
mod folder;
mod group;
mod light;
mod messages;
mod operator;
mod output;
mod pki;
mod release;
mod release_key;
mod security_events;
mod server;
mod server_process;
mod simulate;
#[cfg(feature = "otel")]
mod spans;
mod stop_signal;
mod time_span;
mod token;
mod upload;
mod user;
mod vehicle;
mod webhook;

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Updates the software of vehicles over the air: all ECUs of a vehicle, or none.
#[derive(Parser)]
#[command(name = "farrier", version, subcommand_required = true, arg_required_else_help = true,
          after_help = exit_code::TABLE)]
struct Cli {
    /// What goes to the log on stderr: error, warn, info, debug, trace, or a filter such as farrier_server=debug.
    #[arg(long, global = true, help_heading = "Log", env = "FARRIER_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// How the log looks.
    #[arg(long, global = true, help_heading = "Log", env = "FARRIER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Send spans of messages, commands, requests and due work to this OpenTelemetry collector, by OTLP over HTTP.
    #[arg(
        long,
        global = true,
        help_heading = "Log",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    otel: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole system at work on this machine: server, vehicles, one update, one roll-back.
    Demo(demo::Demo),
    /// Run the server that vehicles and operators connect to.
    Server(server::Server),
    /// Make certificates for a server and its vehicles.
    Pki(pki::Pki),
    /// Bring images to the server and name them as one release.
    Release(release::Release),
    /// Plan, start and follow campaigns.
    Campaign(campaign::Campaign),
    /// Look at vehicles, and enrol them.
    Vehicle(vehicle::Vehicle),
    /// Save queries that select vehicles as fleet groups.
    Group(group::Group),
    /// Make and revoke operators' tokens.
    Token(token::Token),
    /// Say who may sign in to the web console.
    User(user::User),
    /// Send what changes to other programs.
    Webhook(webhook::Webhook),
    /// Show who changed what, and prove that nobody changed the record.
    Audit(audit::Audit),
    /// Keep the register of RXSWINs; export signed records of updates for UN R156, and check them.
    Evidence(evidence::Evidence),
    /// Show what tells whether vehicles can be trusted: replays, foreign identities, boot loops.
    SecurityEvents(security_events::SecurityEvents),
    /// Run a simulated vehicle, or a fleet of light ones.
    #[command(subcommand)]
    Simulate(simulate::Simulate),
    /// Write the access rules of an outside broker for every enrolled vehicle.
    BrokerRules(broker_rules::BrokerRules),
    /// Back up a server, also while it runs.
    Backup(backup::Backup),
    /// Make a server's data folder from a backup.
    Restore(backup::Restore),
    /// Look into a server's store.
    #[command(subcommand)]
    Store(backup::Store),
    /// Check one message against the protocol, for those who write their own gateway.
    CheckMessage(check_message::CheckMessage),
    /// Make, apply and look into deltas between images.
    #[command(subcommand)]
    Delta(delta::Delta),
    /// Measure what this machine's server takes in.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Write what makes a shell complete these commands.
    Completion(completion::Completion),
    /// Write man pages.
    Man(completion::Man),
}

impl Command {
    /// What is logged unless something else is asked for: a server tells what it does, a command only trouble.
    fn default_log(&self) -> &'static str {
        match self {
            Self::Server(_) | Self::Simulate(simulate::Simulate::Vehicle { .. }) => "info",
            Self::Demo(_) => "error",
            Self::Pki(_)
            | Self::Release(_)
            | Self::Campaign(_)
            | Self::Vehicle(_)
            | Self::Group(_)
            | Self::Token(_)
            | Self::User(_)
            | Self::Webhook(_)
            | Self::Audit(_)
            | Self::Evidence(_)
            | Self::SecurityEvents(_)
            | Self::BrokerRules(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Store(_)
            | Self::CheckMessage(_)
            | Self::Delta(_)
            | Self::Completion(_)
            | Self::Man(_)
            | Self::Simulate(simulate::Simulate::Fleet(_))
            // What is wrong with a certificate, the error says.
            | Self::Bench(_) => "warn,rustls_platform_verifier=off",
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start_log(&cli).and_then(|_sending| run(cli.command)) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            exit_code::of(&error)
        }
    }
}

#[cfg(feature = "otel")]
type Sending = Option<spans::Sending>;
#[cfg(not(feature = "otel"))]
type Sending = ();

/// Logs, and spans where they are asked for; these are sent for as long as what is given back lives.
fn start_log(cli: &Cli) -> anyhow::Result<Sending> {
    let filter = cli.log.as_deref().unwrap_or_else(|| cli.command.default_log());
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("expected a log filter such as info or farrier_server=debug, found {filter:?}; correct --log")
    })?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match cli.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(log.with_filter(filter));
    #[cfg(feature = "otel")]
    {
        let (layer, sending) = cli.otel.as_deref().map(spans::sent_to).transpose()?.unzip();
        registry.with(layer).init();
        Ok(sending)
    }
    #[cfg(not(feature = "otel"))]
    {
        // The variable is the standard's, and may be there for other programs: only the option is refused.
        let is_asked_for =
            std::env::args().any(|argument| argument == "--otel" || argument.starts_with("--otel="));
        anyhow::ensure!(
            !is_asked_for,
            "--otel: this program was built without OpenTelemetry; build it with `cargo build --release --features otel`"
        );
        registry.init();
        Ok(())
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let command = match command {
        Command::CheckMessage(check) => return check.run(),
        Command::Pki(pki) => return pki.run().map(|()| ExitCode::SUCCESS),
        Command::Delta(delta) => return delta.run().map(|()| ExitCode::SUCCESS),
        Command::Backup(backup) => return backup.run().map(|()| ExitCode::SUCCESS),
        Command::Restore(restore) => return restore.run().map(|()| ExitCode::SUCCESS),
        Command::Store(store) => return store.run(),
        Command::Completion(completion) => return completion.run().map(|()| ExitCode::SUCCESS),
        Command::Man(man) => return man.run().map(|()| ExitCode::SUCCESS),
        command @ (Command::Demo(_)
        | Command::Server(_)
        | Command::Release(_)
        | Command::Campaign(_)
        | Command::Vehicle(_)
        | Command::Group(_)
        | Command::Token(_)
        | Command::User(_)
        | Command::Webhook(_)
        | Command::Audit(_)
        | Command::Evidence(_)
        | Command::SecurityEvents(_)
        | Command::BrokerRules(_)
        | Command::Simulate(_)
        | Command::Bench(_)) => command,
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Command::Simulate(simulate::Simulate::Fleet(_)) = &command {
        // A fleet leaves the other processors to its server.
        runtime.worker_threads(2);
    }
    let runtime = runtime.enable_all().build().context("the system gave no threads to run on")?;
    runtime.block_on(async {
        match command {
            Command::Demo(demo) => return demo.run().await,
            Command::Server(server) => server.run().await?,
            Command::Release(release) => release.run().await?,
            Command::Campaign(campaign) => return campaign.run().await,
            Command::Vehicle(vehicle) => vehicle.run().await?,
            Command::Group(group) => group.run().await?,
            Command::Token(token) => token.run().await?,
            Command::User(user) => user.run().await?,
            Command::Webhook(webhook) => webhook.run().await?,
            Command::Audit(audit) => audit.run().await?,
            Command::Evidence(evidence) => evidence.run().await?,
            Command::SecurityEvents(events) => events.run().await?,
            Command::BrokerRules(rules) => rules.run().await?,
            Command::Simulate(simulate) => return simulate.run().await,
            Command::Bench(bench) => bench.run().await?,
            Command::CheckMessage(_)
            | Command::Pki(_)
            | Command::Delta(_)
            | Command::Backup(_)
            | Command::Restore(_)
            | Command::Store(_)
            | Command::Completion(_)
            | Command::Man(_) => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The reader of our output went away, as `head` does: nothing went wrong.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// One line for what happened, and one for each cause below it.
fn report(error: &anyhow::Error) {
    let mut text = format!("farrier: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    // Where stderr is closed, nobody can be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_of_every_command_fit_together() {
        Cli::command().debug_assert();
    }

    /// Every command and option says what it is for; otherwise its path is in the list.
    fn unexplained(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        if command.get_about().is_none() {
            found.push(path.clone());
        }
        let silent = command.get_arguments().filter(|argument| argument.get_help().is_none());
        found.extend(silent.map(|argument| format!("{path}: {}", argument.get_id())));
        command.get_subcommands().for_each(|command| unexplained(command, &path, found));
    }

    #[test]
    fn every_command_and_every_option_says_what_it_is_for() {
        let mut found = Vec::new();
        unexplained(&Cli::command(), "", &mut found);
        unexplained(&farrier_gateway::arguments::Arguments::command(), "", &mut found);
        assert!(found.is_empty(), "no help: {found:#?}");
    }
}
