//! A property of the whole: whatever the log does to copies, replicas, answers and streams, a client
//! either gets every publication after a place it knows, once and in order, or is told (DESIGN.md
//! section 3). Random scripts run over real hubs; `reality` is what was stored, `client` behaves
//! like an SDK and is checked against it at every frame.
//!
//! `RECOVERY_CASES` sets the number of cases (a long run: `RECOVERY_CASES=100000`), `RECOVERY_SEED`
//! the seed of all scripts, which a failure prints together with the shortest script found.

mod client;
mod reality;
mod script;
mod world;

use std::{sync::mpsc, time::Duration};

use proptest::test_runner::{
    Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner,
};

use script::Script;

/// Wall time after which a case counts as hung: nothing in it waits for real time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a script on a thread of its own, so that one that hangs is found.
fn run(script: Script) -> Result<world::Summary, String> {
    let (done, outcome) = mpsc::channel();
    let text = format!("{script:?}");
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let result = runtime.block_on(world::play(&script));
        let _ = done.send(result);
    });
    match outcome.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err();
            let panic = panic.and_then(|panic| panic.downcast::<String>().ok());
            Err(panic.map_or_else(|| "the script panicked".into(), |text| format!("panic: {text}")))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            // Its thread cannot be ended, so a shorter script is not looked for.
            eprintln!("it hangs, a task never waits: {text}");
            std::process::abort();
        }
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_client_gets_everything_once_and_in_order_or_is_told() {
    let seed: u64 = setting("RECOVERY_SEED").unwrap_or_else(rand_seed);
    let config = Config {
        cases: setting("RECOVERY_CASES").unwrap_or(200),
        max_shrink_iters: 3_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let cases = config.cases;
    let mut runner = TestRunner::new_with_rng(config, rng);
    let totals = std::cell::RefCell::new(world::Summary::default());
    let outcome = runner.run(&script::scripts(), |script| {
        let summary = run(script).map_err(TestCaseError::fail)?;
        totals.borrow_mut().add(&summary);
        Ok(())
    });
    eprintln!("{cases} cases: {:?}", totals.borrow());
    if let Err(error) = outcome {
        panic!("RECOVERY_SEED={seed}: {error}");
    }
}

/// Another one each time, so that many runs try many scripts.
fn rand_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() ^ u64::from(since.subsec_nanos()) << 32)
}
