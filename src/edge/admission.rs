//! Which app a connection belongs to, and its place among the connections that the app and the node
//! may have.

use std::sync::{Arc, atomic::Ordering};

use axum::http::HeaderValue;

use super::{arrivals::Origin, connection::Ended, gateway::Gateway, origin};
use crate::{
    apps::App,
    auth,
    model::AppId,
    protocol::DisconnectCode,
    quota::{Kind, Place},
    telemetry::Limit,
};

/// A connection's place. It is counted as open, and as its app's, as long as this lives.
pub(super) struct Admission {
    gateway: Arc<Gateway>,
    app: Arc<App>,
    /// One of those that the app may have on all nodes.
    place: Place,
    /// Where it comes from, and what it has taken for that.
    from: Origin,
    /// Only while the app is open.
    provisional: Option<Box<Provisional>>,
}

/// The app is served no more.
pub(super) struct Gone;

/// What must be known of a connection whose URL named no app, until its connect.
struct Provisional {
    /// What a browser said, for the list of the app that the token names. Of its own memory: the
    /// header's is all that was read.
    origin: Option<Box<str>>,
}

impl Admission {
    /// Whether there is room for one more: its place among those of the app on all nodes.
    pub(super) fn check(gateway: &Gateway, app: &App) -> Result<Place, Limit> {
        if gateway.open.load(Ordering::Relaxed) >= gateway.config.max_connections {
            return Err(Limit::NodeConnections);
        }
        room(gateway, app)
    }

    /// Counts it. `from` is where it comes from, as the arrivals have admitted it.
    pub(super) fn new(gateway: Arc<Gateway>, app: Arc<App>, place: Place, from: Origin) -> Self {
        gateway.open.fetch_add(1, Ordering::Relaxed);
        count(&gateway, &app);
        Self {
            gateway,
            app,
            place,
            from,
            provisional: None,
        }
    }

    /// The URL named no app: a token may. `origin` is the header of the handshake.
    pub(super) fn leave_open(&mut self, origin: Option<&HeaderValue>) {
        // What is not text is on no list.
        let origin = origin.map(|origin| origin.to_str().unwrap_or_default().into());
        self.provisional = Some(Box::new(Provisional { origin }));
    }

    /// The app.
    pub(super) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The app as it is now, if that is not what the connection has; [`Gone`] if there is no such app any
    /// more. Of a connection whose app is not named yet nothing is known.
    pub(super) fn renew(&mut self) -> Result<bool, Gone> {
        if self.app.id.as_str() == AppId::UNNAMED {
            return Ok(false);
        }
        let app = self.gateway.apps.get(self.app.id.as_str()).ok_or(Gone)?;
        let changed = !Arc::ptr_eq(&app, &self.app);
        self.app = app;
        Ok(changed)
    }

    /// The connect has been answered: the app stays as it is.
    pub(super) fn settle(&mut self) {
        self.provisional = None;
    }

    /// The connection came with `token`, not verified yet. True if it now belongs to the app that the
    /// token names, which it does only if the URL named none. A token that names no app, or one that
    /// does not exist, changes nothing: it is for the app that the connection has to verify it.
    pub(super) fn adopt(&mut self, token: &str) -> Result<bool, DisconnectCode> {
        let Some(provisional) = self.provisional.take() else {
            return Ok(false);
        };
        let named = auth::named_app(token).and_then(|named| self.gateway.apps.get(&named));
        let Some(app) = named.filter(|app| app.id != self.app.id) else {
            return Ok(false);
        };
        let origin = provisional.origin.as_deref();
        if !origin.is_none_or(|origin| origin::is_allowed(origin, &app.allowed_origins)) {
            return Err(DisconnectCode::PermissionDenied);
        }
        let arrivals = &self.gateway.arrivals;
        let taken = room(&self.gateway, &app).and_then(|place| {
            arrivals.change(&self.app, &app, &mut self.from)?;
            Ok(place)
        });
        self.place = match taken {
            Ok(place) => place,
            Err(limit) => {
                self.gateway.metrics.app(&app.id).limits_hit.of(limit).inc();
                return Err(DisconnectCode::ConnectionLimit);
            }
        };
        count(&self.gateway, &app);
        uncount(&self.gateway, &self.app);
        self.app = app;
        Ok(true)
    }

    /// The connection has ended.
    pub(super) fn ended(&self, ended: Ended) {
        let code = match ended {
            Ended::Gone => None,
            Ended::Closed(code, _) => Some(code),
        };
        // Backends choose codes: a label must not have as many values.
        let known = |code: u16| code < 3_000 || DisconnectCode::ALL.iter().any(|known| known.code() == code);
        let code = code.map(|code| {
            if known(code) {
                code
            } else {
                DisconnectCode::ForceDisconnect.code()
            }
        });
        self.gateway.metrics.connection_closed(&self.app.id, code);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gateway.open.fetch_sub(1, Ordering::Relaxed);
        self.gateway.arrivals.gone(&self.app.id, &self.from);
        uncount(&self.gateway, &self.app);
    }
}

fn room(gateway: &Gateway, app: &App) -> Result<Place, Limit> {
    let open = usize::try_from(gateway.metrics.app(&app.id).connections.get()).unwrap_or(0);
    match app.limits.max_connections {
        limit if limit > 0 && open >= limit => Err(Limit::AppConnections),
        _ => app.meter.take(Kind::Connections).ok_or(Limit::QuotaConnections),
    }
}

fn count(gateway: &Gateway, app: &App) {
    let metrics = gateway.metrics.app(&app.id);
    metrics.connections.inc();
    metrics.connections_opened.inc();
    metrics.usage.connection_opened();
}

fn uncount(gateway: &Gateway, app: &App) {
    let metrics = gateway.metrics.app(&app.id);
    metrics.connections.dec();
    metrics.usage.connection_closed();
}
