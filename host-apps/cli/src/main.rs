//! The command line of Concertina.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks on its standard streams")]

mod cli;
mod commands;
mod data;
mod models;
mod pull;
mod session;
mod store;
mod table;
mod tuning;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    quiet_mesa();
    let cli = cli::Cli::parse();
    cli::start_logging(cli.global.verbose);
    match cli::run(cli) {
        Ok(code) => code,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("concertina: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Mesa's layer that asks the desktop which GPU it shows itself on complains on standard error where there is no desktop
/// session. Its answer is of no use there, and the best adapter is chosen here: it is told to stay away.
fn quiet_mesa() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: nothing else runs yet: this is the first thing that `main` does.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// The reader of our output went away, as `concertina list | head -1` does: no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(kind))
}
