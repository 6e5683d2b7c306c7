//! Who asks, and how he is answered.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    args::Door,
    client::{Answer, Call, Client},
    error::Error,
    session_file::{Session, SessionFile},
    table::{self, Column},
    time::now_ms,
};
use crate::config::Secret;

/// An access token that ends so soon is not used any more, ms: requests take time, and clocks differ.
const MARGIN_MS: i64 = 30_000;
/// The most things of a list; a server has fewer of most things anyway.
const MOST: usize = 100_000;
/// Refusals of new tokens after which there is no session.
const OVER: [&str; 4] = [
    "session_ended",
    "refresh_invalid",
    "refresh_reused",
    "refresh_rotated",
];

/// Somebody with a server.
pub(super) struct Caller {
    pub(super) client: Client,
    /// A token, instead of a session.
    token: Option<Secret>,
    json: bool,
}

impl Caller {
    /// As the arguments and the environment say.
    ///
    /// # Errors
    ///
    /// They cannot be used.
    pub(super) fn new(door: &Door) -> Result<Self, Error> {
        let client = Client::new(&door.url)?;
        let token = match &door.token_file {
            Some(path) => Some(read_file(path)?),
            None => env::var("SLIPSTREAM_TOKEN")
                .ok()
                .filter(|token| !token.is_empty()),
        };
        let token = token.map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(String::is_empty) {
            return Err(Error::Usage("the file of the token is empty".to_owned()));
        }
        Ok(Self {
            client,
            token: token.map(Secret::new),
            json: door.json,
        })
    }

    /// Does a request as who asks.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]; or there is no session.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Error> {
        let bearer = self.bearer(None).await?;
        match self.client.send(call, Some(bearer.expose())).await {
            // By the clock of the server, which counts. Nothing was done.
            Err(error) if self.token.is_none() && error.code() == Some("token_expired") => {
                let bearer = self.bearer(Some(&bearer)).await?;
                self.client.send(call, Some(bearer.expose())).await
            }
            done => done,
        }
    }

    /// All things of a list.
    ///
    /// # Errors
    ///
    /// As [`Caller::send`].
    pub(super) async fn list(&self, call: &Call) -> Result<Vec<Value>, Error> {
        let (items, more) = self.list_at_most(call, MOST).await?;
        if more {
            eprintln!("slipstream: only the first {MOST}");
        }
        Ok(items)
    }

    /// The first things of a list, and whether there are more.
    ///
    /// # Errors
    ///
    /// As [`Caller::send`].
    pub(super) async fn list_at_most(&self, call: &Call, most: usize) -> Result<(Vec<Value>, bool), Error> {
        let bearer = self.bearer(None).await?;
        match self.client.list(call, Some(bearer.expose()), most).await {
            Err(error) if self.token.is_none() && error.code() == Some("token_expired") => {
                let bearer = self.bearer(Some(&bearer)).await?;
                self.client.list(call, Some(bearer.expose()), most).await
            }
            done => done,
        }
    }

    /// What shows who asks. `stale`: an access token that the server does not take any more.
    ///
    /// # Errors
    ///
    /// There is no session, or new tokens cannot be taken.
    pub(super) async fn bearer(&self, stale: Option<&Secret>) -> Result<Secret, Error> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let stale = stale.map(Secret::expose);
        let file = session_file()?;
        let none = || Error::NotSignedIn(self.client.name().to_owned());
        let there = file
            .read()?
            .sessions
            .remove(self.client.name())
            .ok_or_else(none)?;
        if let Some(token) = good(&there, stale) {
            return Ok(token);
        }
        let locked = file.lock().await?;
        let mut sessions = locked.read()?;
        // Another may have taken new ones meanwhile.
        let there = sessions.sessions.get(self.client.name()).ok_or_else(none)?;
        if let Some(token) = good(there, stale) {
            return Ok(token);
        }
        let refresh = json!({"refresh_token": there.refresh_token});
        // Sent again it costs nothing: what was used a moment ago is told so.
        let refresh = Call::post(&["auth", "refresh"], refresh).repeatable();
        let new = match self.client.send(&refresh, None).await {
            Ok(answer) => self.session(answer)?,
            Err(Error::Refused(refusal)) if OVER.contains(&refusal.code.as_str()) => {
                sessions.sessions.remove(self.client.name());
                locked.write(&sessions)?;
                return Err(Error::SessionOver(refusal));
            }
            Err(error) => return Err(error),
        };
        let token = Secret::new(new.access_token.clone());
        sessions.sessions.insert(self.client.name().to_owned(), new);
        locked.write(&sessions)?;
        Ok(token)
    }

    /// Keeps a session that the server has begun.
    ///
    /// # Errors
    ///
    /// It cannot be kept.
    pub(super) async fn sign_in(&self, answer: Answer) -> Result<Session, Error> {
        let session = self.session(answer)?;
        let file = session_file()?;
        let locked = file.lock().await?;
        let mut sessions = locked.read()?;
        sessions
            .sessions
            .insert(self.client.name().to_owned(), session.clone());
        locked.write(&sessions)?;
        Ok(session)
    }

    /// Forgets the session.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) async fn forget(&self) -> Result<(), Error> {
        let file = session_file()?;
        let locked = file.lock().await?;
        let mut sessions = locked.read()?;
        sessions.sessions.remove(self.client.name());
        locked.write(&sessions)
    }

    /// The same with the session, whatever token there is besides.
    pub(super) fn with_session(self) -> Self {
        Self { token: None, ..self }
    }

    fn session(&self, answer: Answer) -> Result<Session, Error> {
        let session = serde_json::from_value(answer.body);
        session.map_err(|_| Error::NotOurs(self.client.name().to_owned()))
    }

    /// Does a request, and prints what it is answered with.
    ///
    /// # Errors
    ///
    /// As [`Caller::send`] and [`Caller::show`].
    pub(super) async fn fetch(&self, call: &Call, columns: &[Column]) -> Result<(), Error> {
        let answer = self.send(call).await?;
        self.show(&answer.body, |item| table::fields(item, columns))
    }

    /// Does a request that has nothing to answer, and says `done`.
    ///
    /// # Errors
    ///
    /// As [`Caller::send`] and [`Caller::show`].
    pub(super) async fn act(&self, call: &Call, done: &str) -> Result<(), Error> {
        self.send(call).await?;
        self.done(done)
    }

    /// Prints an answer: as it is, or as people read it.
    ///
    /// # Errors
    ///
    /// It cannot be printed.
    pub(super) fn show(&self, answer: &Value, human: impl FnOnce(&Value) -> String) -> Result<(), Error> {
        match self.json {
            true => print(&format!("{}\n", pretty(answer))),
            false => print(&human(answer)),
        }
    }

    /// Prints a list.
    ///
    /// # Errors
    ///
    /// It cannot be printed.
    pub(super) fn show_list(&self, items: &[Value], columns: &[Column]) -> Result<(), Error> {
        self.show_items(items, |items| table::table(items, columns))
    }

    /// Prints a list in a form of its own.
    ///
    /// # Errors
    ///
    /// It cannot be printed.
    pub(super) fn show_items(
        &self,
        items: &[Value],
        human: impl FnOnce(&[Value]) -> String,
    ) -> Result<(), Error> {
        let list = json!({ "items": items });
        self.show(&list, |_| human(items))
    }

    /// Says what was done, where there is nothing else to tell.
    ///
    /// # Errors
    ///
    /// It cannot be printed.
    pub(super) fn done(&self, what: &str) -> Result<(), Error> {
        match self.json {
            true => Ok(()),
            false => print(&format!("{}\n", table::plain(what))),
        }
    }
}

/// The access token of a session, if it is good for a while.
fn good(session: &Session, stale: Option<&str>) -> Option<Secret> {
    let lasts = session.access_expires_ms - MARGIN_MS > now_ms();
    let good = lasts && Some(session.access_token.as_str()) != stale;
    good.then(|| Secret::new(session.access_token.clone()))
}

fn session_file() -> Result<SessionFile, Error> {
    SessionFile::of(|name| env::var_os(name).map(PathBuf::from))
}

/// The text of a file; `-` is standard input.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn read_file(path: &Path) -> Result<String, Error> {
    let read = match path == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(path),
    };
    read.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// JSON for people too.
pub(super) fn pretty(value: &Value) -> String {
    // A value can be written.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Writes to standard output. Nobody who has read enough of it makes that an error.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
