//! Which addresses a webhook may connect to.
//!
//! The name is resolved once, every address it gives is checked, and the
//! connection goes to a checked address: a second answer of the name server
//! can't move it inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;

use crate::config::Cidr;

/// Why there is no connection to a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No URL of a webhook.
    #[error("{0:?} is no http or https URL of a host")]
    Url(String),
    /// The name has no address.
    #[error("{0} has no address")]
    Unresolved(String),
    /// An address that a webhook may not connect to.
    #[error("{0} is {1}; name its network in forecaster.webhook.allow if that is meant")]
    Refused(IpAddr, &'static str),
}

/// Reads a webhook's URL: http or https, a host, no user or password.
///
/// # Errors
/// Anything else.
pub fn check_url(text: &str) -> Result<Url, AddressError> {
    let bad = || AddressError::Url(text.to_owned());
    let url = Url::parse(text).map_err(|_| bad())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none();
    if plain && url.has_host() {
        Ok(url)
    } else {
        Err(bad())
    }
}

/// Resolves the URL's host and returns an address that may be connected to.
/// One bad address refuses the name: a name that answers with both is a trick.
pub(super) async fn resolve(url: &Url, allow: &[Cidr]) -> Result<SocketAddr, AddressError> {
    let name = url.host_str().unwrap_or_default();
    let unresolved = || AddressError::Unresolved(name.to_owned());
    let port = url.port_or_known_default().ok_or_else(unresolved)?;
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((bare, port))
            .await
            .map_err(|_| unresolved())?
            .collect(),
    };
    for address in &addresses {
        if let Some(why) = refuse(address.ip(), allow) {
            return Err(AddressError::Refused(address.ip(), why));
        }
    }
    addresses.first().copied().ok_or_else(unresolved)
}

/// Why an address may not be connected to; `None` if it may.
#[must_use]
pub fn refuse(address: IpAddr, allow: &[Cidr]) -> Option<&'static str> {
    let address = embedded(address);
    if allow.iter().any(|network| network.contains(address)) {
        return None;
    }
    match address {
        IpAddr::V4(a) => refuse_v4(a),
        IpAddr::V6(a) => refuse_v6(a),
    }
}

fn refuse_v4(a: Ipv4Addr) -> Option<&'static str> {
    let [x, y, z, _] = a.octets();
    match (x, y, z) {
        _ if a.is_loopback() => Some("loopback"),
        (169, 254, _) | (100, 100, 100) => Some("link-local or cloud metadata"),
        _ if a.is_private() => Some("private"),
        (100, 64..=127, _) => Some("shared (carrier NAT)"),
        (0, ..) => Some("this network"),
        (192, 0, 0) | (198, 18 | 19, _) | (192, 88, 99) | (240..=255, ..) => Some("reserved"),
        _ if a.is_documentation() => Some("for documentation"),
        _ if a.is_multicast() => Some("multicast"),
        _ => None,
    }
}

fn refuse_v6(a: Ipv6Addr) -> Option<&'static str> {
    let s = a.segments();
    match s[0] {
        _ if a.is_loopback() => Some("loopback"),
        _ if a.is_unspecified() => Some("unspecified"),
        _ if a.is_multicast() => Some("multicast"),
        0xfc00..=0xfdff => Some("private (unique local) or cloud metadata"),
        0xfe80..=0xfebf => Some("link-local"),
        0xfec0..=0xfeff => Some("site-local"),
        0x2001 if s[1] == 0 => Some("a tunnel (Teredo)"),
        0x2001 if s[1] == 0xdb8 => Some("for documentation"),
        0x2000..=0x3fff => None,
        _ => Some("not a global unicast address"),
    }
}

/// The IPv4 address inside a v6 one (mapped, compatible, NAT64, 6to4): the
/// connection ends there.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn inward_urls_are_refused() {
        let hosts = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "0.0.0.0",
            "localhost",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "169.254.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:169.254.169.254]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "[2002:a9fe:a9fe::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[fec0::1]",
            "[2001:db8::1]",
            "[2001::1]",
            "[100::1]",
            "[64:ff9b:1::1]",
        ];
        assert_eq!(hosts.len(), 40);
        for host in hosts {
            let url = check_url(&format!("http://{host}/hook")).unwrap();
            let got = resolve(&url, &[]).await;
            assert!(
                matches!(got, Err(AddressError::Refused(..))),
                "{host}: {got:?}"
            );
        }
    }

    #[tokio::test]
    async fn outward_and_allowed_addresses_pass() {
        let allow = [Cidr::parse("127.0.0.0/8").unwrap()];
        for (host, allow) in [
            ("127.0.0.1", &allow[..]),
            ("[::ffff:127.0.0.1]", &allow),
            ("93.184.216.34", &[]),
            ("[2606:4700::1111]", &[]),
        ] {
            let url = check_url(&format!("https://{host}/hook")).unwrap();
            assert!(resolve(&url, allow).await.is_ok(), "{host}");
        }
        let url = check_url("http://10.0.0.1/").unwrap();
        assert!(resolve(&url, &allow).await.is_err());
    }

    #[test]
    fn urls_are_checked() {
        for bad in [
            "",
            "hook",
            "ftp://a/",
            "file:///etc/passwd",
            "http://user:pass@a/",
            "http:///",
            "unix:/x",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
