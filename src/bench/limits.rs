//! What the limits cost a publication, in this process and without a network: nanoseconds with all of
//! them off, with each one, and with all.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{BenchError, args::LimitsArgs, report};
use crate::{
    apps::{App, Apps},
    config::{Config, Sources},
    limits::{Conduct, Verdict},
    model::ChannelName,
    quota::Size,
    task::Tasks,
};

/// So high that nothing is refused: what is refused ends early and costs less.
const RATE: u32 = 1_000_000_000;
const MONTH: u64 = 1_000_000_000_000_000;

/// A name, keys of the app, keys of its one namespace.
fn variants() -> Vec<(&'static str, String, String)> {
    let publish_rate = format!("limits.publish_rate = {RATE}\n");
    let publish_bytes = "limits.publish_bytes = \"8GiB\"\n".to_owned();
    let users = format!("limits.user_publish_rate = {RATE}\nlimits.rate_users = 1000000\n");
    let conduct = format!("limits.command_rate = {RATE}\nlimits.command_bytes = \"1TiB\"\n");
    let channel = format!("rate = {RATE}\n");
    let quotas = format!("quotas.messages_per_second = {RATE}\nquotas.messages_per_month = {MONTH}\n");
    let history = format!("quotas.history_bytes = {MONTH}\n");
    let told_apart = "limits.rate_channels = 1000000\n".to_owned();
    let none = String::new;
    vec![
        ("off", none(), none()),
        ("publish_rate", publish_rate.clone(), none()),
        ("publish_bytes", publish_bytes.clone(), none()),
        ("channel_rate", told_apart.clone(), channel.clone()),
        ("user_publish_rate", users.clone(), none()),
        ("command_rate and command_bytes", conduct.clone(), none()),
        ("quotas (a second and a month)", quotas.clone(), none()),
        ("quota history_bytes", history.clone(), none()),
        (
            "all",
            [
                publish_rate,
                publish_bytes,
                told_apart,
                users,
                conduct,
                quotas,
                history,
            ]
            .concat(),
            channel,
        ),
    ]
}

/// `bench limits`.
pub(crate) fn run(args: &LimitsArgs) -> Result<(), BenchError> {
    let mut rows = Vec::new();
    for (name, keys, rule) in variants() {
        // The budget of bytes must fit the class.
        let file = format!(
            "log.classes = [{{ name = \"std\", max_age = \"1m\", duplicate_window = \"30s\", max_bytes = \"1TiB\" }}]\n\
             [[apps]]\nid = \"a\"\nanonymous = true\n{keys}\
             [[apps.namespaces]]\nname = \"\"\nsubscribe = \"anyone\"\n{rule}"
        );
        let config = Config::load(&Sources {
            file: Some(("limits.toml".into(), file)),
            ..Sources::default()
        });
        let config = config.map_err(|error| BenchError::Usage(error.to_string()))?;
        let apps = Apps::new(config.apps, &config.tenants, Tasks::default());
        let apps = apps.map_err(|error| BenchError::Usage(error.to_string()))?;
        let app = apps
            .get("a")
            .ok_or_else(|| BenchError::Usage("no app".to_owned()))?;
        let one = median(args, || measure(&app, 1, args.publications))?;
        let many = median(args, || measure(&app, args.keys, args.publications))?;
        eprintln!(
            "{name}: {one:.0} ns, {many:.0} ns over {} channels and users",
            args.keys
        );
        rows.push(json!({ "limits": name, "ns": one, "ns_many": many }));
    }
    let result: Value = json!({ "keys": args.keys, "publications": args.publications, "rows": rows });
    report::write_json(&result, args.json.as_deref())
}

fn median(args: &LimitsArgs, mut run: impl FnMut() -> Result<f64, BenchError>) -> Result<f64, BenchError> {
    let mut all = (0..args.runs).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// Nanoseconds of all that the limits do for one publication of a client. Each of `keys` channels,
/// users and connections in turn, in an order that no cache foresees.
fn measure(app: &App, keys: u32, publications: u32) -> Result<f64, BenchError> {
    let channels = (0..keys).map(|n| ChannelName::new(&format!("channel-{n}")));
    let channels = channels.collect::<Result<Vec<_>, _>>();
    let channels = channels.map_err(|error| BenchError::Usage(error.to_string()))?;
    let users: Vec<_> = (0..keys).map(|n| format!("user-{n}")).collect();
    let mut conducts = vec![Conduct::default(); channels.len()];
    let began = Instant::now();
    let mut at = 0_usize;
    for n in 0..publications {
        at = (at + 7_919) % channels.len();
        // The session has the time already, in milliseconds; the publisher asks for it, limits or not.
        let command = Duration::from_millis(u64::from(n >> 10));
        let verdict = conducts[at].judge(&app.conduct, command, 256);
        let size = Size {
            bytes: 400,
            kept: Some(Duration::from_mins(1)),
        };
        let admitted = app.admit(
            black_box(&channels[at]),
            Some(&users[at]),
            1,
            size,
            Instant::now(),
        );
        match (verdict, admitted) {
            (Verdict::Good, Ok(mut room)) => room.set_stored(true),
            _ => return Err(BenchError::Wrong("a publication was refused".to_owned())),
        }
    }
    let took = began.elapsed();
    Ok(took.as_secs_f64() * 1e9 / f64::from(publications))
}
