//! `slipstream usage`.

use serde_json::{Map, Value};

use super::{
    args::Door,
    caller::{Caller, print},
    client::Call,
    error::Error,
    table::anything,
    time::{When, now_ms},
};

/// Tell how much an app has used.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UsageArgs {
    #[command(flatten)]
    door: Door,
    /// The app's id.
    app: String,
    /// From when: a time, or how long ago.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    from: When,
    /// Until when; without it, now.
    #[arg(long, value_name = "TIME")]
    to: Option<When>,
    /// How much time a line is about: minute, hour or day.
    #[arg(long)]
    step: Option<String>,
    /// What lines are told apart by besides: none or namespace.
    #[arg(long)]
    group: Option<String>,
    /// As CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub(super) async fn run(args: UsageArgs) -> Result<(), Error> {
    let caller = Caller::new(&args.door)?;
    let now = now_ms();
    let call = Call::get(&["apps", &args.app, "usage"])
        .query("from", Some(args.from.before(now)))
        .query("to", Some(args.to.map_or(now, |to| to.before(now))))
        .query("step", args.step)
        .query("group", args.group)
        .query("format", args.csv.then_some("csv"));
    let usage = caller.send(&call).await?;
    if args.csv {
        return print(&usage.text);
    }
    caller.show(&usage.body, |usage| match usage["items"].as_array() {
        Some(items) if !items.is_empty() => anything(&rows(items)),
        _ => "nothing was used\n".to_owned(),
    })
}

/// Lines in which every count has a column: what a row does not count is 0.
fn rows(items: &[Value]) -> Vec<Value> {
    let counts = items.iter().filter_map(|item| item["counts"].as_object());
    let names: Vec<&String> = counts.flat_map(Map::keys).collect();
    let row = |item: &Value| {
        let mut row = item.as_object().cloned().unwrap_or_default();
        let counts = row.remove("counts").unwrap_or_default();
        for name in &names {
            let count = counts.get(*name).cloned().unwrap_or_else(|| 0.into());
            row.entry(name.as_str()).or_insert(count);
        }
        Value::Object(row)
    };
    items.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_become_columns() {
        let items = [
            json!({"start_ms": 0, "counts": {"publications": 5}}),
            json!({"start_ms": 1, "peak_connections": 2, "counts": {"bytes": 7}}),
            json!({"start_ms": 2}),
        ];
        assert_eq!(
            rows(&items),
            [
                json!({"start_ms": 0, "publications": 5, "bytes": 0}),
                json!({"start_ms": 1, "peak_connections": 2, "publications": 0, "bytes": 7}),
                json!({"start_ms": 2, "publications": 0, "bytes": 0}),
            ]
        );
        assert_eq!(rows(&[]), [Value::Null; 0]);
    }
}
