//! `slipstream key`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    args::Door,
    caller::Caller,
    client::Call,
    error::Error,
    table::{Column, fields},
    time::{Span, When, now_ms},
};

/// Keys of apps.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct KeyArgs {
    #[command(flatten)]
    door: Door,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// List the keys of an app, without their texts.
    List {
        /// The app's id.
        app: String,
    },
    /// Make a key. It is shown this once.
    Create {
        /// The app's id.
        app: String,
        /// What people call it.
        name: String,
        /// Tokens are signed with it too.
        #[arg(long)]
        signs: bool,
    },
    /// Make a key in the place of another. It is shown this once.
    Rotate {
        /// The app's id.
        app: String,
        /// The old key's id.
        key: String,
        /// How long the old one is good besides; 0s revokes it at once.
        #[arg(long, value_name = "SPAN")]
        overlap: Span,
    },
    /// Revoke a key at once, on all nodes.
    Revoke {
        /// The app's id.
        app: String,
        /// The key's id.
        key: String,
    },
    /// Have a key end at a time.
    End {
        /// The app's id.
        app: String,
        /// The key's id.
        key: String,
        /// When: in how long, or a time.
        #[arg(long, value_name = "TIME")]
        at: When,
    },
}

const KEYS: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("signs", "signs"),
    ("good until", "until"),
    ("made", "created_ms"),
];

pub(super) async fn run(args: KeyArgs) -> Result<(), Error> {
    let caller = Caller::new(&args.door)?;
    match args.command {
        KeyCommand::List { app } => {
            let keys = caller.list(&Call::get(&["apps", &app, "keys"])).await?;
            caller.show_list(&keys, KEYS)
        }
        KeyCommand::Create { app, name, signs } => {
            let body = json!({"name": name, "signs": signs});
            made(&caller, &Call::make(&["apps", &app, "keys"], body)).await
        }
        KeyCommand::Rotate { app, key, overlap } => {
            let body = json!({"overlap_seconds": overlap.seconds});
            let call = Call::make(&["apps", &app, "keys", &key, "rotate"], body);
            made(&caller, &call).await
        }
        KeyCommand::Revoke { app, key } => {
            let call = Call::delete(&["apps", &app, "keys", &key]);
            caller.act(&call, "the key is revoked").await
        }
        KeyCommand::End { app, key, at } => {
            let until = at.after(now_ms()).div_euclid(1000);
            let call = Call::post(&["apps", &app, "keys", &key, "end"], json!({ "until": until }));
            caller.act(&call, "the key will end").await
        }
    }
}

async fn made(caller: &Caller, call: &Call) -> Result<(), Error> {
    let key = caller.send(call).await?;
    caller.show(&key.body, |key: &Value| {
        let about = fields(
            key,
            &[("id", "id"), ("name", "name"), ("signs", "signs"), ("key", "key")],
        );
        format!("{about}the key is not shown again\n")
    })
}
