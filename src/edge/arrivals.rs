//! How many may come, how fast, and from where: what the node asks of a handshake before it becomes a
//! connection.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

use crate::{
    apps::App,
    config::EdgeConfig,
    limits::{Address, DelayGate, Gcra, Places, Proxies, Quota},
    model::AppId,
    telemetry::{Limit, Metrics},
};

/// See the module's documentation. Its locks are held for a look at a map, and never two at once.
pub(super) struct Arrivals {
    per_address: u32,
    proxies: Proxies,
    addresses: Mutex<Places<Address>>,
    app_addresses: Mutex<Places<(AppId, Address)>>,
    rate: Option<Mutex<Gcra>>,
    delay: Option<Mutex<DelayGate>>,
}

/// Where a connection came from, and which places it has taken for that: to be given back with
/// [`Arrivals::gone`].
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// Known of all that come by a socket.
    address: Option<Address>,
    /// It has one of the places that its address has on this node.
    on_node: bool,
    /// It has one of those that its address has in its app.
    in_app: bool,
}

/// How long to wait for a place of one's own address. Nobody can know.
const PLACE: Duration = Duration::from_secs(5);

impl Arrivals {
    pub(super) fn new(config: &EdgeConfig) -> Self {
        let rate = Quota::a_second_at_once(config.connect_rate.into());
        let gate = DelayGate::new(config.connect_delay_target, config.connect_delay_interval);
        Self {
            per_address: config.max_connections_per_ip,
            // The configuration was refused if one of them is none.
            proxies: Proxies::new(config.trusted_proxies.iter().map(String::as_str)).unwrap_or_default(),
            addresses: Mutex::default(),
            app_addresses: Mutex::default(),
            rate: (!rate.is_unlimited()).then(|| Mutex::new(Gcra::new(rate))),
            delay: (!config.connect_delay_target.is_zero()).then(|| Mutex::new(gate)),
        }
    }

    /// Whether one more may come, to `app`. What it has taken is given back when it has gone.
    ///
    /// # Errors
    ///
    /// Which limit is met, and when to come again.
    pub(super) fn admit(
        &self,
        app: &App,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Origin, (Limit, Duration)> {
        if let Some(gate) = &self.delay {
            gate.lock()
                .admit(now)
                .map_err(|wait| (Limit::ConnectDelay, wait))?;
        }
        let mut origin = Origin {
            address: peer.map(|peer| Address::from(self.client(peer, headers))),
            ..Origin::default()
        };
        let admitted = self.take(app, &mut origin).and_then(|()| match &self.rate {
            Some(rate) => rate
                .lock()
                .check(now, 1)
                .map_err(|wait| (Limit::ConnectRate, wait)),
            None => Ok(()),
        });
        match admitted {
            Ok(()) => Ok(origin),
            Err(refused) => {
                self.gone(&app.id, &origin);
                Err(refused)
            }
        }
    }

    fn take(&self, app: &App, origin: &mut Origin) -> Result<(), (Limit, Duration)> {
        let Some(address) = origin.address else {
            return Ok(());
        };
        if self.per_address > 0 {
            if !self.addresses.lock().take(address, self.per_address) {
                return Err((Limit::IpConnections, PLACE));
            }
            origin.on_node = true;
        }
        origin.in_app = self.take_in(app, address)?;
        Ok(())
    }

    /// Takes a place of the address in `app`, if the app counts them.
    fn take_in(&self, app: &App, address: Address) -> Result<bool, (Limit, Duration)> {
        let most = app.limits.max_connections_per_ip;
        if most == 0 {
            return Ok(false);
        }
        if self.app_addresses.lock().take((app.id.clone(), address), most) {
            Ok(true)
        } else {
            Err((Limit::AppIpConnections, PLACE))
        }
    }

    /// A connection of `app` turns out to be one of `other`. If that has no place for its address it
    /// stays where it is.
    pub(super) fn change(&self, app: &App, other: &App, origin: &mut Origin) -> Result<(), Limit> {
        let Some(address) = origin.address else {
            return Ok(());
        };
        let in_other = self.take_in(other, address).map_err(|(limit, _)| limit)?;
        self.leave(&app.id, origin);
        origin.in_app = in_other;
        Ok(())
    }

    /// One that arrived at `arrived` has its turn.
    pub(super) fn served(&self, arrived: Instant, metrics: &Metrics) {
        let now = Instant::now();
        let wait = now.saturating_duration_since(arrived);
        metrics.connect_delay_seconds.observe(wait.as_secs_f64());
        if let Some(gate) = &self.delay {
            gate.lock().waited(now, wait);
        }
    }

    /// A connection of `app` has gone.
    pub(super) fn gone(&self, app: &AppId, origin: &Origin) {
        if let Some(address) = origin.address.filter(|_| origin.on_node) {
            self.addresses.lock().give_back(&address);
        }
        self.leave(app, origin);
    }

    fn leave(&self, app: &AppId, origin: &Origin) {
        if let Some(address) = origin.address.filter(|_| origin.in_app) {
            self.app_addresses.lock().give_back(&(app.clone(), address));
        }
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all("x-forwarded-for").iter();
        self.proxies.client(peer, forwarded.map(HeaderValue::as_bytes))
    }
}
