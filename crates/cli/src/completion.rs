//! `farrier completion` and `farrier man`: what shells and people read of the command line, written from itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::output::print;

/// Both are made from the same build, so that they fit each other.
#[derive(Clone, Copy, ValueEnum)]
enum Program {
    /// The server, the operators' commands, the simulators.
    Farrier,
    /// The agent on a vehicle's gateway.
    FarrierGateway,
}

impl Program {
    fn command(self) -> clap::Command {
        match self {
            Self::Farrier => crate::Cli::command(),
            Self::FarrierGateway => farrier_gateway::arguments::Arguments::command(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Farrier => "farrier",
            Self::FarrierGateway => "farrier-gateway",
        }
    }
}

#[derive(Args)]
#[command(after_help = "\
For this user, in bash:
  farrier completion bash > ~/.local/share/bash-completion/completions/farrier
in zsh, in a folder of $fpath:
  farrier completion zsh > ~/.zfunc/_farrier
in fish:
  farrier completion fish > ~/.config/fish/completions/farrier.fish")]
pub(crate) struct Completion {
    /// The shell that shall complete commands and options.
    #[arg(value_enum)]
    shell: Shell,
    /// The program whose commands they are.
    #[arg(long, value_enum, default_value_t = Program::Farrier)]
    program: Program,
}

impl Completion {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // Into memory first: the generator itself panics where its output is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut self.program.command(), self.program.name(), &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}

#[derive(Args)]
#[command(after_help = "\
For this user:
  farrier man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write a page for each command of both programs into this folder; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Without --dir: the program whose page goes to stdout.
    #[arg(long, value_enum, default_value_t = Program::Farrier, conflicts_with = "dir")]
    program: Program,
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let Some(dir) = &self.dir else {
            // As `generate_to` makes them.
            let mut command = self.program.command().disable_help_subcommand(true);
            command.build();
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            return Ok(std::io::stdout().write_all(&page)?);
        };
        write_pages(dir).with_context(|| {
            format!("cannot write man pages to {}; name a folder that this user may write", dir.display())
        })?;
        print(&format!("Wrote the man pages to {}. Read one: man -l {0}/farrier.1", dir.display()))
    }
}

fn write_pages(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for program in [Program::Farrier, Program::FarrierGateway] {
        clap_mangen::generate_to(program.command(), dir)?;
    }
    Ok(())
}
