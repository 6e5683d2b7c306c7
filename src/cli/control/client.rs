//! Requests of the control API, and what becomes of those whose answer is lost.

use std::time::Duration;

use reqwest::{Method, Url, header, redirect::Policy};
use serde_json::Value;

use super::error::{Error, Refusal, cause};
use crate::random;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest answer that is kept in memory, bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Characters of an Idempotency-Key.
const KEY_LENGTH: usize = 32;
/// How often it is asked what became of a request that is still being done.
const MAX_WAITS: u32 = 30;
const WAIT: Duration = Duration::from_secs(1);

/// A server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// A request that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    seen: Option<String>,
    /// Makes something, so that it must not be done twice.
    once: bool,
    /// May be sent twice.
    again: bool,
}

impl Call {
    fn new(method: Method, path: &[&str]) -> Self {
        Self {
            again: method == Method::GET,
            method,
            path: path.iter().map(|&part| part.to_owned()).collect(),
            query: Vec::new(),
            body: None,
            seen: None,
            once: false,
        }
    }

    /// Reads; the path is below `/v1`.
    pub(super) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// Does something that may not be sent twice.
    pub(super) fn post(path: &[&str], body: Value) -> Self {
        Self::new(Method::POST, path).body(body)
    }

    /// Makes something. With a key, by which the server does it once however often it is sent.
    pub(super) fn make(path: &[&str], body: Value) -> Self {
        Self {
            once: true,
            ..Self::post(path, body)
        }
    }

    /// Changes something.
    pub(super) fn patch(path: &[&str], body: Value) -> Self {
        Self::new(Method::PATCH, path).body(body)
    }

    /// Makes something, or puts it in the place of what is there.
    pub(super) fn put(path: &[&str], body: Value) -> Self {
        Self::new(Method::PUT, path).body(body)
    }

    /// Removes something.
    pub(super) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// A body that is null is none.
    fn body(mut self, body: Value) -> Self {
        self.body = (!body.is_null()).then_some(body);
        self
    }

    /// It may be sent again if the answer is lost, although it changes something.
    pub(super) fn repeatable(mut self) -> Self {
        self.again = true;
        self
    }

    /// A parameter, if there is a value.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Only if it is still what the caller has seen, by its ETag.
    pub(super) fn seen(mut self, tag: Option<String>) -> Self {
        self.seen = tag;
        self
    }
}

/// A success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    /// Null if there was nothing to tell.
    pub(super) body: Value,
    /// The body if it is not JSON.
    pub(super) text: String,
}

impl Client {
    /// Of the server at `url`.
    ///
    /// # Errors
    ///
    /// It is no URL of a server.
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Usage(format!("--url {url:?}: {why}"));
        let mut base = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("not an http:// or https:// URL"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("credentials do not belong into it"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("only a server and a path"));
        }
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        let http = reqwest::Client::builder()
            // Credentials go where the caller has said, nowhere else.
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("slipstream/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(&cause(&error)))?;
        Ok(Self { http, base })
    }

    /// How the server is named: in messages and in the session file.
    pub(super) fn name(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Does a request. One that was sent and not answered is sent again once, if it may be.
    ///
    /// # Errors
    ///
    /// The refusal; or why there is no answer.
    pub(super) async fn send(&self, call: &Call, bearer: Option<&str>) -> Result<Answer, Error> {
        let mut key = call.once.then(|| random::name(KEY_LENGTH));
        let (mut lost, mut waits) = (false, 0);
        loop {
            let tried = self.attempt(call, bearer, key.as_deref()).await;
            match tried {
                Err(Error::Lost { .. }) if !lost && (call.again || key.is_some()) => lost = true,
                // It may have been done the first time.
                Err(Error::Unreachable { url, why }) if lost && !call.again => {
                    return Err(Error::Lost { url, why });
                }
                Err(error) if key.is_some() => match error.code() {
                    Some("request_in_progress") if lost && waits < MAX_WAITS => {
                        waits += 1;
                        tokio::time::sleep(WAIT).await;
                    }
                    // A deployment that keeps no answers refuses keys, and has done nothing.
                    Some("not_configured") if !lost => key = None,
                    _ => return Err(error),
                },
                done => return done,
            }
        }
    }

    async fn attempt(&self, call: &Call, bearer: Option<&str>, key: Option<&str>) -> Result<Answer, Error> {
        let mut response = self.response(call, bearer, key).await?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = header(header::ETAG).map(str::to_owned);
        let is_json = header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        let is_csv = header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/csv"));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::NotOurs(self.name().to_owned()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = match is_json {
            true => serde_json::from_slice(&bytes).ok(),
            false => None,
        };
        if !status.is_success() {
            let body = body.unwrap_or(Value::Null);
            return Err(Error::Refused(Refusal::new(status.as_u16(), &body)));
        }
        if body.is_none() && !is_csv && !bytes.is_empty() {
            return Err(Error::NotOurs(self.name().to_owned()));
        }
        Ok(Answer {
            etag,
            body: body.unwrap_or(Value::Null),
            text: match is_csv {
                true => String::from_utf8_lossy(&bytes).into_owned(),
                false => String::new(),
            },
        })
    }

    /// A success that is read piece by piece, each of which goes to `take`.
    ///
    /// # Errors
    ///
    /// As [`Client::send`], and if the answer ends before its end.
    pub(super) async fn stream(
        &self,
        call: &Call,
        bearer: Option<&str>,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut response = self.response(call, bearer, None).await?;
        if !response.status().is_success() {
            // It is small, and says why.
            let answer = self.attempt(call, bearer, None).await;
            return Err(answer
                .err()
                .unwrap_or_else(|| Error::NotOurs(self.name().to_owned())));
        }
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            take(&chunk)?;
        }
        Ok(())
    }

    /// All things of a list, page by page; at most `most`, and whether there are more.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub(super) async fn list(
        &self,
        call: &Call,
        bearer: Option<&str>,
        most: usize,
    ) -> Result<(Vec<Value>, bool), Error> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = call.clone().query("cursor", cursor.as_deref());
            let answer = self.send(&page, bearer).await?;
            let Value::Array(more) = &answer.body["items"] else {
                return Err(Error::NotOurs(self.name().to_owned()));
            };
            items.extend(more.iter().cloned());
            let next = answer.body["next"].as_str().map(str::to_owned);
            // A cursor that does not move would go on without end.
            let ended = next.is_none() || next == cursor;
            if ended || items.len() >= most {
                let cut = items.len() > most || !ended;
                items.truncate(most);
                return Ok((items, cut));
            }
            cursor = next;
        }
    }

    async fn response(
        &self,
        call: &Call,
        bearer: Option<&str>,
        key: Option<&str>,
    ) -> Result<reqwest::Response, Error> {
        let mut request = self.http.request(call.method.clone(), self.url(call)?);
        if let Some(bearer) = bearer {
            let mut value = header::HeaderValue::try_from(format!("Bearer {bearer}"))
                .map_err(|_| Error::Usage("the token has characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(seen) = &call.seen {
            request = request.header(header::IF_MATCH, seen);
        }
        if let Some(body) = &call.body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        request.send().await.map_err(|error| self.lost(&error))
    }

    fn url(&self, call: &Call) -> Result<Url, Error> {
        let mut url = self.base.clone();
        // These are no names of anything, and would lead elsewhere.
        let strange = call
            .path
            .iter()
            .find(|part| matches!(part.as_str(), "" | "." | ".."));
        if let Some(part) = strange {
            return Err(Error::Usage(format!("{part:?} is no name of anything")));
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    fn lost(&self, error: &reqwest::Error) -> Error {
        let (url, why) = (self.name().to_owned(), cause(error));
        match error.is_connect() || error.is_builder() {
            true => Error::Unreachable { url, why },
            false => Error::Lost { url, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn client(url: &str) -> Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Client::new(url).unwrap()
    }

    #[test]
    fn where_requests_go() {
        for (base, name) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("https://X.example/", "https://x.example"),
            ("https://x.example/console//", "https://x.example/console"),
        ] {
            let client = client(base);
            assert_eq!(client.name(), name);
            let call = Call::get(&["teams", "a/b ?#%"])
                .query("from", Some(5))
                .query("to", None::<i64>);
            assert_eq!(
                client.url(&call).unwrap().as_str(),
                format!("{name}/v1/teams/a%2Fb%20%3F%23%25?from=5")
            );
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        let client = client("http://x.example");
        for name in ["", ".", ".."] {
            let call = Call::delete(&["teams", name]);
            assert!(matches!(client.url(&call), Err(Error::Usage(_))), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_server() {
        for url in [
            "",
            "127.0.0.1:8000",
            "ftp://x.example",
            "http://",
            "http://ann:secret@x.example",
            "http://x.example/?a=b",
            "http://x.example/#a",
        ] {
            assert!(matches!(Client::new(url), Err(Error::Usage(_))), "{url}");
        }
    }

    #[test]
    fn what_may_be_sent_again() {
        let body = || json!({});
        for (call, again, once) in [
            (Call::get(&["x"]), true, false),
            (Call::post(&["x"], body()), false, false),
            (Call::make(&["x"], body()), false, true),
            (Call::patch(&["x"], body()), false, false),
            (Call::delete(&["x"]), false, false),
            (Call::post(&["x"], body()).repeatable(), true, false),
        ] {
            assert_eq!((call.again, call.once), (again, once), "{call:?}");
        }
    }
}
