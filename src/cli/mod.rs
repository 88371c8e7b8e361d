//! The command line: one file per command. Only here and in `main` the process's arguments, environment, disk and
//! standard streams are touched.
//!
//! Exit codes: 0 done, 1 failed, 64 a wrong command line or a bad configuration (`EX_USAGE` of sysexits.h), 130 and 143
//! ended by a second signal.

mod arguments;
mod check_config;
mod dead_letters;
mod demo;
mod healthcheck;
mod publish;
mod revoke;
mod serve;
mod token;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::config::{self, Mistakes};

/// A wrong command line, or a bad configuration.
pub const EXIT_CONFIGURATION: u8 = 64;

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    Configuration(Mistakes),
    /// In words for a person.
    Other(String),
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Configuration(mistakes)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

/// Task-progress notifications: workers publish to Redis or RabbitMQ, browsers watch live, nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "taskcast", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
enum Command {
    /// Run the service.
    Serve(arguments::Common),
    /// Run the service with a log in memory and simulated workers, and print the address to open.
    Demo(demo::Arguments),
    /// Append events to the configured log.
    Publish(publish::Arguments),
    /// Look at what could not be read as an event, and append it again.
    DeadLetters(dead_letters::Arguments),
    /// Revoke tokens, by way of the configured log.
    Revoke(revoke::Arguments),
    /// Mint a token for development or to share a task, signed with the configured secret.
    Token(token::Arguments),
    /// Check the configuration, and show what holds and why.
    CheckConfig(arguments::Common),
    /// Print a configuration file with every key, its default and what it means.
    DefaultConfig,
    /// Ask a running service on this machine whether it is ready: exit code 0 or 1.
    Healthcheck(arguments::Common),
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version come this way too, for stdout. A reader that went away is no failure.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_CONFIGURATION) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::Other(format!("no runtime: {error}"))),
    };
    let outcome = runtime.block_on(run(arguments.command));
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome.map_or_else(|failure| failed(&failure), ExitCode::from)
}

async fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments).await,
        Command::Demo(arguments) => demo::run(&arguments).await,
        Command::Publish(arguments) => publish::run(&arguments).await,
        Command::DeadLetters(arguments) => dead_letters::run(&arguments).await,
        Command::Revoke(arguments) => revoke::run(&arguments).await,
        Command::Token(arguments) => token::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::DefaultConfig => {
            print(&config::default_config());
            Ok(0)
        }
        Command::Healthcheck(arguments) => Ok(healthcheck::run(&arguments).await),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Configuration(mistakes) => {
            complain(&mistakes.to_string());
            ExitCode::from(EXIT_CONFIGURATION)
        }
        Failure::Other(text) => {
            complain(&format!("taskcast: {text}\n"));
            ExitCode::FAILURE
        }
    }
}

/// To stdout. A reader that went away (`| head`) is no failure.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// To stderr.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_fit_together() {
        super::Arguments::command().debug_assert();
    }
}
