//! What an answer tells of the rates that its caller is held to: `RateLimit-Limit`, `RateLimit-Remaining` and
//! `RateLimit-Reset`.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    response::Response,
};

use super::error::retry_seconds;
use crate::{
    apps::{App, Apps},
    quota::tighter,
};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Goes with a request, and learns which app asks.
#[derive(Clone)]
pub(super) struct Asked {
    app: Arc<OnceLock<Arc<App>>>,
    publishes: bool,
}

impl Asked {
    /// Puts it into a request, if any app has a rate.
    pub(super) fn with(request: &mut Request, apps: &Apps) -> Option<Self> {
        if !apps.have_rates() {
            return None;
        }
        let asked = Self {
            app: Arc::default(),
            publishes: publishes(request.uri().path()),
        };
        request.extensions_mut().insert(asked.clone());
        Some(asked)
    }

    /// The app that asks.
    pub(super) fn by(&self, app: &Arc<App>) {
        // A request has one caller: what is there is the same.
        let _ = self.app.set(app.clone());
    }

    /// Tells the rate of which less is left, if the app has one.
    pub(super) fn tell(&self, mut response: Response) -> Response {
        let Some(app) = self.app.get() else {
            return response;
        };
        let now = Instant::now();
        let publishing = self.publishes.then(|| app.may_publish(now)).flatten();
        let Some(allowance) = tighter(publishing, app.meter.calls_allowed(now)) else {
            return response;
        };
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(allowance.limit));
        headers.insert(REMAINING, HeaderValue::from(allowance.remaining));
        headers.insert(RESET, HeaderValue::from(retry_seconds(allowance.reset)));
        response
    }
}

/// Whether what is sent there may be publications.
fn publishes(path: &str) -> bool {
    match path.strip_prefix("/api") {
        Some(method) => matches!(method, "" | "/publish" | "/broadcast" | "/batch"),
        None => path.ends_with("/publications"),
    }
}
