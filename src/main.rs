//! The `slipstream` program (temporary: only `bench`, until the command line is merged).

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slipstream::bench::{self, BenchArgs};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a server that speaks the Centrifuge protocol.
    Bench(BenchArgs),
}

fn main() -> ExitCode {
    let Cli {
        command: Command::Bench(args),
    } = Cli::parse();
    match bench::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipstream bench: {error}");
            ExitCode::FAILURE
        }
    }
}
