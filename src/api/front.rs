//! The node's HTTP service: the doors that publish, and the router behind them.
//!
//! A backend publishes again and again over a few connections, and what axum's router, its layers
//! and its boxed services cost is a good part of what a publication costs this process. The two
//! paths that take publications are recognised by their text, and their handlers called as the
//! router would call them, extractors and all; whatever is not plainly one of them goes to the
//! router, which has them, too.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Instant};

use axum::{
    BoxError, Router,
    body::{Body, HttpBody},
    extract::Request,
    handler::Handler,
    http::Method,
    response::Response,
};
use bytes::Bytes;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::{ApiState, extract::plain_channel, rates::Asked, server, v1};
use crate::telemetry::Metrics;

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    router: TowerToHyperService<Router>,
    /// `None` on a node that does not serve the API.
    doors: Option<ApiState>,
    metrics: Arc<Metrics>,
}

/// A path that takes publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Rest,
    Server,
}

impl Front {
    /// Puts the doors of `doors` in front of a router that has them, too.
    pub fn new(router: Router, doors: Option<ApiState>, metrics: Arc<Metrics>) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            doors,
            metrics,
        }
    }

    /// Answers, counts the request and measures how long it took.
    async fn answer(self, mut request: Request) -> Result<Response, Infallible> {
        let began = Instant::now();
        let asked = self
            .doors
            .as_ref()
            .and_then(|state| Asked::with(&mut request, &state.apps));
        let response = match self.doors.zip(Door::of(&request)) {
            Some((state, Door::Rest)) => Handler::call(v1::publish, request, state).await,
            Some((state, Door::Server)) => Handler::call(server::publish, request, state).await,
            None => self.router.call(request).await?,
        };
        let response = match asked {
            Some(asked) => asked.tell(response),
            None => response,
        };
        let status = response.status().as_u16().into();
        self.metrics.http_requests.of(status).inc();
        self.metrics.http_seconds.observe(began.elapsed().as_secs_f64());
        Ok(response)
    }
}

impl<B> Service<Request<B>> for Front
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().answer(request.map(Body::new)))
    }
}

impl Door {
    fn of(request: &Request) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        match request.uri().path() {
            "/api/publish" => Some(Self::Server),
            path => plain_channel(path).map(|_| Self::Rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_plainly_publishes_is_a_door() {
        for (method, uri, door) in [
            ("POST", "/api/publish", Some(Door::Server)),
            ("POST", "/api/publish?api_key=k", Some(Door::Server)),
            ("GET", "/api/publish", None),
            ("POST", "/api/publish/", None),
            ("POST", "/v1/channels/chat:x/publications", Some(Door::Rest)),
            ("POST", "/v1/channels/chat:x/publications?app=a", Some(Door::Rest)),
            ("GET", "/v1/channels/chat:x/publications", None),
            ("POST", "/v1/channels/a%2Fb/publications", None),
            ("POST", "/v1/channels//publications", None),
            ("POST", "/v1/channels/a/b/publications", None),
            ("POST", "/v1/channels/publications", None),
            ("POST", "/", None),
        ] {
            let request = Request::builder().method(method).uri(uri);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(Door::of(&request), door, "{method} {uri}");
        }
    }
}
