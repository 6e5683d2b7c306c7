//! `slipstream plan`.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{
    args::Door,
    caller::Caller,
    client::Call,
    error::Error,
    table::{Column, cell, fields, plain},
};

/// Plans: what apps may have at most.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PlanArgs {
    #[command(flatten)]
    door: Door,
    #[command(subcommand)]
    command: PlanCommand,
}

#[derive(Debug, Subcommand)]
enum PlanCommand {
    /// List the plans that you may choose; for the operator all.
    List,
    /// Tell about a plan.
    Show {
        /// Its name.
        plan: String,
    },
    /// Make a plan, or change what is named of it; with the operator's key.
    Set {
        /// Its name.
        plan: String,
        /// A quota, like peak_connections=1000; none is no limit.
        #[arg(long, value_name = "NAME=NUMBER")]
        quota: Vec<String>,
        /// Whether owners of teams may choose it.
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        selectable: Option<bool>,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        about: Option<String>,
    },
    /// Remove a plan that no app is on; with the operator's key.
    Delete {
        /// Its name.
        plan: String,
    },
}

const PLAN: &[Column] = &[
    ("name", "name"),
    ("selectable", "selectable"),
    ("made", "created_ms"),
    ("about", "about"),
];

pub(super) async fn run(args: PlanArgs) -> Result<(), Error> {
    let caller = Caller::new(&args.door)?;
    match args.command {
        PlanCommand::List => caller.show_list(&caller.list(&Call::get(&["plans"])).await?, PLAN),
        PlanCommand::Show { plan } => show(&caller, &Call::get(&["plans", &plan])).await,
        PlanCommand::Set {
            plan,
            quota,
            selectable,
            about,
        } => {
            let path = ["plans", plan.as_str()];
            let (mut draft, seen) = match caller.send(&Call::get(&path)).await {
                Ok(there) => (drafted(&there.body), there.etag),
                Err(error) if error.code() == Some("not_found") => (drafted(&Value::Null), None),
                Err(error) => return Err(error),
            };
            change(&mut draft, &quota, selectable, about).map_err(Error::Usage)?;
            show(&caller, &Call::put(&path, draft).seen(seen)).await
        }
        PlanCommand::Delete { plan } => {
            let call = Call::delete(&["plans", &plan]);
            caller.act(&call, "the plan is removed").await
        }
    }
}

/// What can be said of a plan, out of what there is.
fn drafted(plan: &Value) -> Value {
    let given = |field: &str, otherwise: Value| plan.get(field).cloned().unwrap_or(otherwise);
    json!({
        "about": given("about", "".into()),
        "selectable": given("selectable", false.into()),
        "quotas": given("quotas", Value::Object(Map::new())),
    })
}

fn change(
    draft: &mut Value,
    quotas: &[String],
    selectable: Option<bool>,
    about: Option<String>,
) -> Result<(), String> {
    if let Some(about) = about {
        draft["about"] = about.into();
    }
    if let Some(selectable) = selectable {
        draft["selectable"] = selectable.into();
    }
    for quota in quotas {
        let wrong = || format!("--quota {quota}: NAME=NUMBER, or NAME=none");
        let (name, number) = quota.split_once('=').ok_or_else(wrong)?;
        match number {
            "none" => {
                if let Some(quotas) = draft["quotas"].as_object_mut() {
                    quotas.remove(name);
                }
            }
            number => draft["quotas"][name] = number.parse::<u64>().map_err(|_| wrong())?.into(),
        }
    }
    Ok(())
}

async fn show(caller: &Caller, call: &Call) -> Result<(), Error> {
    let plan = caller.send(call).await?;
    caller.show(&plan.body, |plan| {
        format!("{}{}", fields(plan, PLAN), quotas(plan))
    })
}

/// The quotas of an answer, and the name of the plan where it has one.
pub(super) fn quotas(answer: &Value) -> String {
    let mut out = fields(answer, &[("plan", "plan")]);
    let quotas = answer["quotas"].as_object();
    let Some(quotas) = quotas.filter(|quotas| !quotas.is_empty()) else {
        out.push_str("no limits\n");
        return out;
    };
    let width = quotas.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, quota) in quotas {
        out.push_str(&format!("{:<width$}  {}\n", plain(name), cell("", Some(quota))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let there = json!({"name": "big", "about": "Big.", "selectable": true, "revision": 3,
                           "quotas": {"channels": 5, "webhooks": 1}});
        let mut draft = drafted(&there);
        let quotas = [
            "channels=7".to_owned(),
            "webhooks=none".to_owned(),
            "devices=0".to_owned(),
        ];
        change(&mut draft, &quotas, None, None).unwrap();
        assert_eq!(
            draft,
            json!({"about": "Big.", "selectable": true, "quotas": {"channels": 7, "devices": 0}})
        );
        change(&mut draft, &[], Some(false), Some(String::new())).unwrap();
        assert_eq!(
            (&draft["about"], &draft["selectable"]),
            (&json!(""), &json!(false))
        );
        for quota in ["channels", "channels=", "channels=-1", "channels=many"] {
            assert!(change(&mut drafted(&Value::Null), &[quota.to_owned()], None, None).is_err());
        }
    }

    #[test]
    fn quotas_are_listed() {
        let answer = json!({"plan": null, "quotas": {}});
        assert_eq!(quotas(&answer), "plan  -\nno limits\n");
        let answer = json!({"plan": "big", "quotas": {"channels": 5, "peak_connections": 1000}});
        assert_eq!(
            quotas(&answer),
            "plan  big\nchannels          5\npeak_connections  1000\n"
        );
    }
}
