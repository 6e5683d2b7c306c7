//! What a connection costs that does nothing.

use std::{thread, time::Instant};

use serde_json::json;

use super::{
    BenchError,
    args::{Channels, Common, IdleArgs},
    bulk::Bulk,
    engine::Setup,
    process,
    report::{Outcome, Report, measure},
    worker::{PER_PROCESS, Workers},
};

pub(crate) fn run(args: &IdleArgs) -> Result<Report, BenchError> {
    let common = &args.common;
    let parameters = json!({
        "connections": args.connections,
        "channels": format!("{:?}", args.channels).to_lowercase(),
        "publications_each": args.publications_each,
        "rest_s": args.rest.as_secs_f64(),
        "processes": processes(args),
        "connecting": common.connecting,
        "payload": common.payload,
        "authenticated": common.token_secret.is_some(),
        "targets": common.target.len(),
    });
    measure("idle", parameters, common, 0, |common| once(args, common))
}

fn processes(args: &IdleArgs) -> u32 {
    let needed = args.connections.div_ceil(PER_PROCESS);
    args.processes.unwrap_or(needed).clamp(needed, args.connections)
}

fn once(args: &IdleArgs, common: &Common) -> Result<Outcome, BenchError> {
    let own = args.channels == Channels::Own;
    let channel = format!("{}{}-", common.prefix, super::run_tag());
    let before = process::usage(&common.server_pid)?;
    let begin = Instant::now();
    let mut workers = Workers::start(common, args.connections, processes(args), &channel, own)?;
    workers.wait("connected", common.patience, |status| status.live)?;
    let connected = begin.elapsed();
    let mut outcome = Outcome::default();
    let connections = f64::from(args.connections);
    outcome.figure("connect_per_s", connections / connected.as_secs_f64());
    outcome.figure(
        "connect_cpu_us",
        process::cpu_of(&common.server_pid)?
            .saturating_sub(before.cpu)
            .as_secs_f64()
            * 1e6
            / connections,
    );

    if args.publications_each > 0 {
        workers.expect(args.publications_each)?;
        let names = if own {
            (0..args.connections).map(|i| format!("{channel}{i}")).collect()
        } else {
            vec![channel]
        };
        let publishers = args.publishers.min(names.len() as u32);
        let mut bulk = Bulk::connect(Setup::new(common)?, names, publishers, args.over)?;
        let begin = Instant::now();
        bulk.publish(1..args.publications_each + 1)?;
        let status = workers.wait("complete", common.patience, |status| status.complete)?;
        outcome.figure("all_received_s", begin.elapsed().as_secs_f64());
        outcome.figure("p99_ms", status.latency.quantile_ms(0.99));
    }

    eprintln!("idle: at rest for {:?}", args.rest);
    let rested = process::cpu_of(&common.server_pid)?;
    thread::sleep(args.rest);
    let after = process::usage(&common.server_pid)?;
    let status = workers.status()?;
    if !common.server_pid.is_empty() {
        let grown = after.rss_kib as f64 - before.rss_kib as f64;
        outcome.figure("kib_per_connection", grown / connections);
        outcome.figure("rss_before_kib", before.rss_kib as f64);
        outcome.figure("rss_after_kib", after.rss_kib as f64);
        outcome.figure(
            "rest_cores",
            after.cpu.saturating_sub(rested).as_secs_f64() / args.rest.as_secs_f64().max(0.001),
        );
    }
    outcome.faults = status.faults;
    let expected = u64::from(args.publications_each) * u64::from(args.connections);
    outcome.faults.lost += expected.saturating_sub(status.received);
    outcome.first_error = status.first_error;
    if status.live < args.connections as usize {
        let gone = args.connections as usize - status.live;
        let error = outcome.first_error.unwrap_or_default();
        return Err(BenchError::Connection(format!(
            "{gone} connections did not stay: {error}"
        )));
    }
    Ok(outcome)
}
