//! How many may come, how fast, and from where: what the node asks of a handshake before it becomes a
//! connection.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::http::HeaderMap;
use parking_lot::Mutex;

use crate::{
    config::EdgeConfig,
    limits::{Address, DelayGate, Gcra, Places, Proxies, Quota},
    telemetry::{Limit, Metrics},
};

/// See the module's documentation. Its locks are held for a look at a map, and never two at once.
pub(super) struct Arrivals {
    per_address: u32,
    proxies: Proxies,
    addresses: Mutex<Places<Address>>,
    rate: Option<Mutex<Gcra>>,
    delay: Option<Mutex<DelayGate>>,
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
            rate: (!rate.is_unlimited()).then(|| Mutex::new(Gcra::new(rate))),
            delay: (!config.connect_delay_target.is_zero()).then(|| Mutex::new(gate)),
        }
    }

    /// Whether one more may come. What is given back when it has gone, see [`Arrivals::gone`].
    ///
    /// # Errors
    ///
    /// Which limit is met, and when to come again.
    pub(super) fn admit(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Option<Address>, (Limit, Duration)> {
        if let Some(gate) = &self.delay {
            gate.lock()
                .admit(now)
                .map_err(|wait| (Limit::ConnectDelay, wait))?;
        }
        let address = match peer.filter(|_| self.per_address > 0) {
            Some(peer) => {
                let address = Address::from(self.client(peer, headers));
                if !self.addresses.lock().take(address, self.per_address) {
                    return Err((Limit::IpConnections, PLACE));
                }
                Some(address)
            }
            None => None,
        };
        let admitted = self
            .rate
            .as_ref()
            .map_or(Ok(()), |rate| rate.lock().check(now, 1));
        if let Err(wait) = admitted {
            if let Some(address) = &address {
                self.gone(address);
            }
            return Err((Limit::ConnectRate, wait));
        }
        Ok(address)
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

    /// A connection from there has gone.
    pub(super) fn gone(&self, address: &Address) {
        self.addresses.lock().give_back(address);
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all("x-forwarded-for");
        // What is not text is not skipped: nothing before it is believed.
        let values: Vec<_> = forwarded
            .iter()
            .map(|value| value.to_str().unwrap_or("?"))
            .collect();
        self.proxies.client(peer, values.into_iter())
    }
}
