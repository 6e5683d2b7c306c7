//! Where a server listens, from a `ws://` or `http://` address.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

/// A server's address, resolved once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Where to connect.
    pub(crate) addr: SocketAddr,
    /// As it was written: the `Host` header.
    pub(crate) host: String,
    /// Path and query, beginning with `/`.
    pub(crate) path: String,
}

impl Endpoint {
    /// The same server, another path.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self {
            path: path.into(),
            ..self.clone()
        }
    }

    /// The address with `name=value` in its query.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(&format!("{name}={value}"));
        self
    }

    /// The address as `scheme://host/path`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}{}", self.host, self.path)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// Accepts `ws://HOST:PORT/path` and `http://HOST:PORT/path`: no TLS, it would measure TLS.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("an address begins with ws:// or http://")?;
        if !matches!(scheme, "ws" | "http") {
            return Err(format!("{scheme}:// is not supported: use ws:// or http://"));
        }
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let addr = with_port
            .to_socket_addrs()
            .map_err(|e| format!("{with_port}: {e}"))?
            .next()
            .ok_or_else(|| format!("{with_port} has no address"))?;
        Ok(Self {
            addr,
            host: host.into(),
            path: path.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let endpoint: Endpoint = "ws://127.0.0.1:8000/connection/websocket?x=1".parse().unwrap();
        assert_eq!(endpoint.addr, SocketAddr::from(([127, 0, 0, 1], 8000)));
        assert_eq!(endpoint.host, "127.0.0.1:8000");
        assert_eq!(endpoint.path, "/connection/websocket?x=1");
        assert_eq!(
            endpoint.clone().with_query("app", "a").path,
            "/connection/websocket?x=1&app=a"
        );
        assert_eq!(
            endpoint.with_path("/api").url("http"),
            "http://127.0.0.1:8000/api"
        );
        assert_eq!("http://127.0.0.1".parse::<Endpoint>().unwrap().addr.port(), 80);
        for wrong in ["127.0.0.1:8000", "wss://127.0.0.1:8000/", "ws://:::/"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
