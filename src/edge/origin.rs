//! Which web origins may connect.
//!
//! Browsers send credentials of their own accord and say on whose behalf in `Origin`; other
//! clients need not send it, and what they send proves nothing. So the list holds browsers to the
//! sites it names, and is no protection against anything else.

/// Whether `origin`, as a browser sends it, is on the list `allowed`.
///
/// An entry is `*` (every origin), or a host with, if wanted, a scheme before it and a port after
/// it: `https://app.example.com`, `http://localhost:3000`, `app.example.com`. A host that begins
/// with `*.` stands for all names below it, not for the name itself. Without a scheme any scheme
/// and, unless one is given, any port will do; with a scheme the port must be the same, a missing
/// one being the scheme's default. An empty list allows every origin. Hosts and schemes are
/// compared without regard to case. The opaque origin `null` is allowed by an entry `null` only
/// (or `*`).
pub fn is_allowed(origin: &str, allowed: &[String]) -> bool {
    allowed.is_empty() || allowed.iter().any(|entry| entry_allows(entry, origin))
}

fn entry_allows(entry: &str, origin: &str) -> bool {
    if entry == "*" || entry.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = split_port(authority);
    let (entry_scheme, entry_authority) = match entry.split_once("://") {
        Some((scheme, authority)) => (Some(scheme), authority),
        None => (None, entry),
    };
    let (entry_host, entry_port) = split_port(entry_authority);
    let scheme_fits = entry_scheme.is_none_or(|entry| entry.eq_ignore_ascii_case(scheme));
    let port_fits = match entry_scheme {
        Some(_) => entry_port.or(default_port(scheme)) == port.or(default_port(scheme)),
        None => entry_port.is_none() || entry_port == port.or(default_port(scheme)),
    };
    scheme_fits && port_fits && host_fits(entry_host, host)
}

fn host_fits(entry: &str, host: &str) -> bool {
    let Some(parent) = entry.strip_prefix("*.") else {
        return entry.eq_ignore_ascii_case(host);
    };
    // The dot must be there, so that `evilexample.com` is not below `example.com`, and something
    // before it. All of this is ASCII: browsers send international names in Punycode.
    let (host, parent) = (host.as_bytes(), parent.as_bytes());
    let Some(below) = host.len().checked_sub(parent.len() + 1) else {
        return false;
    };
    below > 0 && host[below] == b'.' && host[below + 1..].eq_ignore_ascii_case(parent)
}

/// Host and port; the colons inside an IPv6 address's brackets are not a port's.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn default_port(scheme: &str) -> Option<&'static str> {
    if scheme.eq_ignore_ascii_case("https") {
        Some("443")
    } else if scheme.eq_ignore_ascii_case("http") {
        Some("80")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn entries_allow_what_they_name_and_nothing_else() {
        let cases: [(&str, &str, bool); 34] = [
            ("*", "https://anything.example", true),
            ("*", "null", true),
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com", "https://APP.example.com", true),
            ("https://app.example.com", "https://app.example.com:443", true),
            ("https://app.example.com:443", "https://app.example.com", true),
            ("https://app.example.com", "http://app.example.com", false),
            ("https://app.example.com", "https://app.example.com:8443", false),
            ("https://app.example.com:8443", "https://app.example.com", false),
            (
                "https://app.example.com",
                "https://app.example.com.evil.example",
                false,
            ),
            ("https://app.example.com", "https://evil.example", false),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://localhost:3000", "http://localhost:3001", false),
            ("http://localhost:3000", "http://localhost", false),
            ("app.example.com", "https://app.example.com", true),
            ("app.example.com", "http://app.example.com:8080", true),
            ("app.example.com", "https://other.example.com", false),
            ("app.example.com:443", "https://app.example.com", true),
            ("app.example.com:443", "http://app.example.com", false),
            ("*.example.com", "https://a.example.com", true),
            ("*.example.com", "https://a.b.Example.com:8443", true),
            ("*.example.com", "https://example.com", false),
            ("*.example.com", "https://evilexample.com", false),
            ("*.example.com", "https://.example.com", false),
            ("*.example.com", "https://example.com.evil.example", false),
            ("*.example.com", "https://a.example.com.evil.example", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "http://a.example.com", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("[::1]", "http://[::1]:3000", true),
            ("null", "null", true),
            ("app.example.com", "null", false),
            ("app.example.com", "", false),
            ("app.example.com", "app.example.com.evil", false),
        ];
        for (entry, origin, allowed) in cases {
            assert_eq!(
                is_allowed(origin, &[entry.to_owned()]),
                allowed,
                "{entry} for {origin}"
            );
        }
    }

    #[test]
    fn one_entry_is_enough_and_an_empty_list_allows_all() {
        let list = ["https://a.example".to_owned(), "*.b.example".to_owned()];
        assert!(is_allowed("https://x.b.example", &list));
        assert!(!is_allowed("https://c.example", &list));
        assert!(is_allowed("https://c.example", &[]));
    }
}
