//! `slipstream store`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Seek},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    CliError,
    args::{ExportArgs, ImportArgs, StoreArgs, StoreCommand},
    runtime, sources,
};
use crate::{
    config::Config,
    store::{self, Counts, Engine},
    task::Tasks,
    telemetry,
};

pub(super) fn run(command: &StoreCommand) -> Result<(), CliError> {
    let (StoreCommand::Migrate(StoreArgs { config: file })
    | StoreCommand::Check(StoreArgs { config: file })
    | StoreCommand::Export(ExportArgs {
        store: StoreArgs { config: file },
        ..
    })
    | StoreCommand::Import(ImportArgs {
        store: StoreArgs { config: file },
        ..
    })) = command;
    let config = Config::load(&sources(Some(file))?)?;
    telemetry::init(&config.telemetry)?;
    let tasks = Tasks::default();
    runtime()?.block_on(async {
        let engine = store::connect(&config.store, &tasks).await?;
        match command {
            StoreCommand::Migrate(_) => migrate(&*engine).await,
            StoreCommand::Check(_) => check(&*engine).await,
            StoreCommand::Export(args) => export(&*engine, args.file.as_deref()).await,
            StoreCommand::Import(args) => import(&*engine, args.file.as_deref(), args.merge).await,
        }
    })
}

async fn migrate(engine: &dyn Engine) -> Result<(), CliError> {
    let before = store::migrate(engine).await?;
    let now = store::VERSION;
    match before {
        _ if before == now => println!("the store has schema version {now} already"),
        _ => println!("the store has schema version {now}, before {before}"),
    }
    Ok(())
}

async fn check(engine: &dyn Engine) -> Result<(), CliError> {
    let report = store::check(engine, |problem| println!("{problem}")).await?;
    println!("schema version {} of {}", report.version, store::VERSION);
    for (collection, count) in report.counts {
        println!("{} {count}", collection.as_str());
    }
    match report.problems {
        0 => Ok(()),
        problems => Err(CliError::Problems(problems)),
    }
}

async fn export(engine: &dyn Engine, file: Option<&Path>) -> Result<(), CliError> {
    let counts = match file {
        None => store::export(engine, &mut BufWriter::new(io::stdout())).await?,
        Some(path) => {
            // It holds what the store holds; and an older export is not written over.
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            let made = made.map_err(|source| file_error(path, source))?;
            let written = match store::export(engine, &mut BufWriter::new(&made)).await {
                Ok(counts) => made
                    .sync_all()
                    .map(|()| counts)
                    .map_err(|source| file_error(path, source)),
                Err(error) => Err(error.into()),
            };
            if written.is_err() {
                // What is there is not all, and of no use to anybody.
                let _ = fs::remove_file(path);
            }
            written?
        }
    };
    // Standard output may be the export.
    eprintln!("exported {}", total(&counts));
    Ok(())
}

async fn import(engine: &dyn Engine, file: Option<&Path>, merge: bool) -> Result<(), CliError> {
    let counts = match file {
        None => store::import(engine, &mut BufReader::new(io::stdin()), merge).await?,
        Some(path) => {
            let mut input = File::open(path).map_err(|source| file_error(path, source))?;
            store::verify(&mut BufReader::new(&input))?;
            input.rewind().map_err(|source| file_error(path, source))?;
            store::import(engine, &mut BufReader::new(&input), merge).await?
        }
    };
    eprintln!("imported {}", total(&counts));
    Ok(())
}

fn total(counts: &Counts) -> String {
    format!("{} documents", counts.values().sum::<u64>())
}

fn file_error(path: &Path, source: io::Error) -> CliError {
    CliError::Open {
        path: path.to_owned(),
        source,
    }
}
