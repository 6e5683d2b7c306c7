use std::net::{IpAddr, Ipv6Addr};

/// Whom an address counts for, in eight bytes: an IPv4 address, or the /64 of an IPv6 address, which is
/// what one customer has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(std::num::NonZeroU64);

/// What no IPv6 address of a client begins with (it is multicast): IPv4 addresses are put there.
const IPV4: u64 = 0xffff_ffff_0000_0000;

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let number = match address.to_canonical() {
            IpAddr::V4(v4) => IPV4 | u64::from(u32::from(v4)),
            // `::1` is of the network 0; nobody has 1.
            IpAddr::V6(v6) => u64::try_from(u128::from(v6) >> 64).unwrap_or(0),
        };
        Self(std::num::NonZeroU64::new(number).unwrap_or(std::num::NonZeroU64::MIN))
    }
}

/// The proxies whose word on where a request comes from is taken.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<(u128, u128)>);

impl Proxies {
    /// From addresses and networks like `10.0.0.0/8`; `None` if one of them is neither.
    pub fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        networks.into_iter().map(network).collect::<Option<_>>().map(Self)
    }

    /// Where a request of `peer` comes from. `forwarded` are the values of `X-Forwarded-For` in their
    /// order. Each proxy appends who asked it, so they are read from the end for as long as who has
    /// written them is trusted: what a client itself has put there is never reached.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
        let mut known = peer.to_canonical();
        // What is not text is not skipped: nothing before it is believed.
        let text = forwarded.map(|value| std::str::from_utf8(value).unwrap_or("?"));
        let hops = text.rev().flat_map(|value| value.rsplit(','));
        for hop in hops {
            if !self.trusts(known) {
                break;
            }
            match parse(hop.trim()) {
                Some(address) => known = address,
                None => break,
            }
        }
        known
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|(network, mask)| bits & mask == *network)
    }
}

/// An address as proxies write it: also `[v6]`, and with a port.
fn parse(hop: &str) -> Option<IpAddr> {
    let address = hop.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<std::net::SocketAddr>().ok().map(|it| it.ip());
    let bracketed = || {
        hop.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6)
    };
    address
        .or_else(with_port)
        .or_else(bracketed)
        .map(|it| it.to_canonical())
}

fn bits(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn network(text: &str) -> Option<(u128, u128)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (offset, most) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
    let length = length.unwrap_or(most);
    if length > most {
        return None;
    }
    let mask = u128::MAX.checked_shl(128 - offset - length).unwrap_or(0);
    Some((bits(address) & mask, mask))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_one_client_and_others_are_others() {
        let of = |text| Address::from(ip(text));
        assert_eq!(of("1.2.3.4"), of("::ffff:1.2.3.4"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("1.2.3.4"), of("1.2.3.5"));
        assert_ne!(of("0.0.0.0"), of("::1"));
        assert_eq!(size_of::<Option<Address>>(), 8);
    }

    #[test]
    fn a_proxy_is_believed_only_if_it_is_trusted() {
        let trusted = ["10.0.0.0/8", "192.168.1.1", "2001:db8::/32"];
        for (peer, forwarded, client) in [
            // A stranger says what it likes.
            ("9.9.9.9", &["1.1.1.1"][..], "9.9.9.9"),
            ("192.168.1.2", &["1.1.1.1"], "192.168.1.2"),
            ("10.1.2.3", &["1.1.1.1"], "1.1.1.1"),
            ("192.168.1.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.1.2.3", &["1.1.1.1"], "1.1.1.1"),
            ("2001:db8::1", &["2001:dead::1"], "2001:dead::1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            // The client has put one there itself: the last that is not a proxy counts.
            ("10.1.2.3", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("10.1.2.3", &["6.6.6.6, 1.1.1.1, 10.9.9.9"], "1.1.1.1"),
            ("10.1.2.3", &["6.6.6.6", "1.1.1.1,10.9.9.9"], "1.1.1.1"),
            // All are proxies.
            ("10.1.2.3", &["10.5.5.5, 10.9.9.9"], "10.5.5.5"),
            // Nothing is guessed behind what is no address.
            ("10.1.2.3", &["6.6.6.6, unknown, 10.9.9.9"], "10.9.9.9"),
            ("10.1.2.3", &["6.6.6.6, "], "10.1.2.3"),
            ("10.1.2.3", &["1.1.1.1:4711"], "1.1.1.1"),
            ("10.1.2.3", &["[2001:dead::1]:4711"], "2001:dead::1"),
            ("10.1.2.3", &["[2001:dead::1]"], "2001:dead::1"),
        ] {
            let proxies = Proxies::new(trusted).unwrap();
            let found = proxies.client(ip(peer), forwarded.iter().map(|value| value.as_bytes()));
            assert_eq!(found, ip(client), "{peer} {forwarded:?}");
        }
        let nobody = Proxies::default();
        assert_eq!(
            nobody.client(ip("10.1.2.3"), [&b"1.1.1.1"[..]].into_iter()),
            ip("10.1.2.3")
        );
        let all = Proxies::new(["0.0.0.0/0", "::/0"]).unwrap();
        assert_eq!(
            all.client(ip("9.9.9.9"), [&b"1.1.1.1"[..]].into_iter()),
            ip("1.1.1.1")
        );
        // What is not text ends the chain.
        let broken = [&b"1.1.1.1"[..], b"\xff"];
        assert_eq!(all.client(ip("9.9.9.9"), broken.into_iter()), ip("9.9.9.9"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.1:80",
            "10.0.0.0/",
        ] {
            assert!(Proxies::new([bad]).is_none(), "{bad}");
        }
    }

    proptest! {
        /// Whatever a client writes before what the proxy appends, it counts as what the proxy saw.
        #[test]
        fn nothing_a_client_writes_changes_who_it_is(written in ".{0,60}", client in any::<u32>()) {
            let client = IpAddr::from(client.to_be_bytes());
            prop_assume!(!matches!(client, IpAddr::V4(v4) if v4.octets()[0] == 10));
            let proxies = Proxies::new(["10.0.0.0/8"]).unwrap();
            let header = format!("{written}, {client}");
            prop_assert_eq!(proxies.client(ip("10.0.0.1"), [header.as_bytes()].into_iter()), client);
        }
    }
}
