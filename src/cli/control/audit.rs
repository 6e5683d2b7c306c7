//! Who did what, as it is asked for and shown.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    args::AuditArgs,
    caller::Caller,
    client::Call,
    error::Error,
    table::{Column, table},
    time::now_ms,
};

/// Entries in a page at most: what a server gives that is not told.
const PAGE: u32 = 100;

const COLUMNS: &[Column] = &[
    ("time", "at_ms"),
    ("who", "actor"),
    ("as", "actor_kind"),
    ("did", "action"),
    ("to", "target"),
    ("from", "ip"),
    ("changed", "changed"),
];

/// Adds what is asked for.
pub(super) fn parameters(call: Call, args: &AuditArgs) -> Call {
    let now = now_ms();
    call.query("from", args.from.map(|from| from.before(now)))
        .query("to", args.to.map(|to| to.before(now)))
        .query("order", args.oldest.then_some("oldest"))
        .query("limit", Some(args.limit.min(PAGE)))
}

/// Prints entries.
pub(super) async fn show(caller: &Caller, call: &Call, args: &AuditArgs) -> Result<(), Error> {
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (entries, more) = caller.list_at_most(call, most).await?;
    if more {
        eprintln!("slipstream: there are more; --limit, --from and --to say which");
    }
    caller.show_items(&entries, |entries| {
        let mut entries = entries.to_vec();
        for entry in &mut entries {
            let changes = entry["changes"].as_array().into_iter().flatten();
            let paths: Vec<_> = changes.map(|change| change["path"].clone()).collect();
            entry["changed"] = paths.into();
        }
        table(&entries, COLUMNS)
    })
}

/// Writes all entries as lines of JSON into a file that is made; `-` is standard output.
pub(super) async fn export(caller: &Caller, call: &Call, path: &Path) -> Result<(), Error> {
    let bearer = caller.bearer(None).await?;
    let bearer = Some(bearer.expose());
    if path == Path::new("-") {
        return caller
            .client
            .stream(call, bearer, |bytes| {
                let mut out = io::stdout().lock();
                Ok(out.write_all(bytes).and_then(|()| out.flush())?)
            })
            .await;
    }
    let error = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    // An older export is not written over.
    let mut open = OpenOptions::new();
    let made = open.write(true).create_new(true).mode(0o600).open(path);
    let mut made = made.map_err(error)?;
    let written = caller
        .client
        .stream(call, bearer, |bytes| made.write_all(bytes).map_err(error))
        .await;
    let written = written.and_then(|()| made.sync_all().map_err(error));
    if written.is_err() {
        // What is there is not all, and would be taken for it.
        let _ = fs::remove_file(path);
    }
    written
}
