//! `slipstream app`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    args::{Door, SeenArgs},
    caller::{Caller, pretty, read_file},
    client::Call,
    edit,
    error::Error,
    prompt,
    table::{Column, fields, plain, table},
};

/// Apps: their settings, versions and quotas.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AppArgs {
    #[command(flatten)]
    door: Door,
    #[command(subcommand)]
    command: AppCommand,
}

#[derive(Debug, Subcommand)]
enum AppCommand {
    /// List the apps of a team.
    List {
        /// The team's id.
        #[arg(long)]
        team: String,
    },
    /// Make an app.
    Create(CreateArgs),
    /// Tell about an app.
    Show {
        /// Its id.
        app: String,
    },
    /// Change an app: in an editor, or as told by --file, --settings or --set.
    Edit(EditArgs),
    /// Delete an app: its connections are closed, and its id is never given again. Asks first.
    Delete {
        /// Its id.
        app: String,
        #[command(flatten)]
        seen: SeenArgs,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// List the schemas of payloads of an app, by namespace; --json has what they say.
    Schemas {
        /// The app's id.
        app: String,
    },
    /// List the versions of an app.
    Versions {
        /// Its id.
        app: String,
    },
    /// Tell what a version changed.
    Diff {
        /// The app's id.
        app: String,
        /// Which version; without it, the present one.
        version: Option<u64>,
    },
    /// Go back to the settings and features of a version. Keys stay as they are.
    RollBack {
        /// The app's id.
        app: String,
        /// Which version.
        version: u64,
        #[command(flatten)]
        seen: SeenArgs,
    },
    /// Tell what the plan of an app allows.
    Quotas {
        /// The app's id.
        app: String,
    },
}

/// An app that is to be made.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// What people call it.
    name: String,
    /// The team's id.
    #[arg(long)]
    team: String,
    /// Its id, for good; without it one is made up.
    #[arg(long)]
    id: Option<String>,
    /// Where it is meant to run.
    #[arg(long)]
    region: Option<String>,
    /// Its plan; without it, that of the deployment.
    #[arg(long)]
    plan: Option<String>,
    /// Features, once for each or separated by commas.
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    flag: Vec<String>,
    /// Its settings, a JSON object of keys of `[[apps]]`; - is standard input.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// What is to be changed.
#[derive(Debug, clap::Args)]
struct EditArgs {
    /// The app's id.
    app: String,
    /// What `app show --json` prints, changed; its `version` must still be the present one. - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["settings", "set"])]
    file: Option<PathBuf>,
    /// Other settings instead of all that it has, a JSON object; - is standard input.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// One thing: name=Shop, region=eu, plan=big (plan= is none), flags=a,b, settings.limits.publish_rate=5
    /// (JSON, or else text; nothing removes it).
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    seen: SeenArgs,
}

const APPS: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("region", "region"),
    ("plan", "plan"),
    ("flags", "flags"),
    ("version", "version"),
    ("changed", "changed_ms"),
];

const APP: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("team", "team"),
    ("region", "region"),
    ("plan", "plan"),
    ("flags", "flags"),
    ("version", "version"),
    ("by", "author"),
    ("changed", "changed_ms"),
    ("made", "created_ms"),
    ("nodes told", "published"),
];

const VERSIONS: &[Column] = &[
    ("version", "version"),
    ("by", "author"),
    ("made", "changed_ms"),
    ("changed", "changed"),
];

const CHANGES: &[Column] = &[("path", "path"), ("old", "old"), ("new", "new")];

pub(super) async fn run(args: AppArgs) -> Result<(), Error> {
    let caller = Caller::new(&args.door)?;
    match args.command {
        AppCommand::List { team } => {
            caller.show_list(&caller.list(&Call::get(&["teams", &team, "apps"])).await?, APPS)
        }
        AppCommand::Create(args) => create(&caller, args).await,
        AppCommand::Show { app } => show(&caller, &Call::get(&["apps", &app])).await,
        AppCommand::Edit(args) => edit(&caller, &args).await,
        AppCommand::Delete { app, seen, yes } => {
            prompt::confirm(&format!("Delete the app {app} for good"), yes)?;
            let call = Call::delete(&["apps", &app]).seen(seen.tag());
            caller.act(&call, "the app is deleted").await
        }
        AppCommand::Schemas { app } => {
            let schemas = caller.send(&Call::get(&["apps", &app, "schemas"])).await?;
            caller.show(&schemas.body, |schemas| {
                let mut namespaces = schemas["items"].as_array().cloned().unwrap_or_default();
                for namespace in &mut namespaces {
                    let versions = namespace["versions"].as_array().into_iter().flatten();
                    let numbers: Vec<_> = versions.map(|version| version["version"].clone()).collect();
                    namespace["versions"] = numbers.into();
                }
                table(
                    &namespaces,
                    &[("namespace", "namespace"), ("versions", "versions")],
                )
            })
        }
        AppCommand::Versions { app } => {
            let versions = caller.list(&Call::get(&["apps", &app, "versions"])).await?;
            caller.show_items(&versions, |versions| {
                let mut versions = versions.to_vec();
                for version in &mut versions {
                    let changes = version["changes"].as_array().into_iter().flatten();
                    let paths: Vec<_> = changes.map(|change| change["path"].clone()).collect();
                    version["changed"] = paths.into();
                }
                table(&versions, VERSIONS)
            })
        }
        AppCommand::Diff { app, version } => diff(&caller, &app, version).await,
        AppCommand::RollBack { app, version, seen } => {
            let version = version.to_string();
            let call = Call::make(&["apps", &app, "versions", &version, "roll-back"], Value::Null);
            show(&caller, &call.seen(seen.tag())).await
        }
        AppCommand::Quotas { app } => {
            let quotas = caller.send(&Call::get(&["apps", &app, "quotas"])).await?;
            caller.show(&quotas.body, super::plan::quotas)
        }
    }
}

async fn create(caller: &Caller, args: CreateArgs) -> Result<(), Error> {
    let mut body = json!({ "name": args.name });
    for (field, value) in [("id", args.id), ("region", args.region), ("plan", args.plan)] {
        if let Some(value) = value {
            body[field] = value.into();
        }
    }
    if !args.flag.is_empty() {
        body["flags"] = args.flag.into();
    }
    if let Some(path) = &args.settings {
        body["settings"] = edit::object(&read_file(path)?).map_err(Error::Usage)?;
    }
    show(caller, &Call::make(&["teams", &args.team, "apps"], body)).await
}

async fn edit(caller: &Caller, args: &EditArgs) -> Result<(), Error> {
    let given = args.file.is_some() || args.settings.is_some() || !args.set.is_empty();
    if !given && !prompt::is_terminal() {
        let why = "nothing says what is to be changed: --file, --settings or --set";
        return Err(Error::Usage(why.to_owned()));
    }
    // Read before anything is asked for, so that there is little time between what is seen and what is changed.
    let text = args.file.as_deref().or(args.settings.as_deref()).map(read_file);
    let text = text.transpose()?;
    let path = ["apps", args.app.as_str()];
    let seen = caller.send(&Call::get(&path)).await?;
    let before = edit::document(&seen.body);
    let mut tag = args.seen.tag().or(seen.etag);
    let mut after = before.clone();
    if let (Some(_), Some(text)) = (&args.file, &text) {
        let file = edit::object(text).map_err(Error::Usage)?;
        if let (None, Some(version)) = (args.seen.if_version, file["version"].as_u64()) {
            tag = Some(format!("\"{version}\""));
        }
        after = edit::document(&file);
    } else if let Some(text) = &text {
        after["settings"] = edit::object(text).map_err(Error::Usage)?;
    }
    for assignment in &args.set {
        edit::set(&mut after, assignment).map_err(Error::Usage)?;
    }
    let draft = match given {
        true => None,
        false => Some(edit::Draft::begin(&pretty(&before))?),
    };
    let changed = async {
        if let Some(draft) = &draft {
            after = edit::object(&draft.edited()?).map_err(Error::Usage)?;
        }
        let change = edit::change(&before, &after).map_err(Error::Usage)?;
        match change {
            None => caller.done("nothing was changed"),
            Some(change) => show(caller, &Call::patch(&path, change).seen(tag)).await,
        }
    };
    match (changed.await, draft) {
        // Whoever has written it wants to try again.
        (Err(error), Some(draft)) => Err(draft.keep(error)),
        (done, _) => done,
    }
}

async fn diff(caller: &Caller, app: &str, version: Option<u64>) -> Result<(), Error> {
    let version = match version {
        Some(version) => version.to_string(),
        None => {
            let app = caller.send(&Call::get(&["apps", app])).await?;
            app.body["version"].to_string()
        }
    };
    let version = caller
        .send(&Call::get(&["apps", app, "versions", &version]))
        .await?;
    caller.show(&version.body, |version| {
        let changes = version["changes"].as_array().map_or(&[][..], Vec::as_slice);
        match changes.is_empty() {
            true => "nothing has changed\n".to_owned(),
            false => table(changes, CHANGES),
        }
    })
}

async fn show(caller: &Caller, call: &Call) -> Result<(), Error> {
    let app = caller.send(call).await?;
    caller.show(&app.body, |app| {
        let mut out = fields(app, APP);
        out.push_str("settings\n");
        for line in pretty(&app["settings"]).lines() {
            out.push_str(&format!("  {}\n", plain(line)));
        }
        out
    })
}
