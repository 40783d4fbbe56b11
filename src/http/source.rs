//! Where a call came from, when proxies stand between the client and us.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::names;

/// Who calls: the peer, unless it is a trusted proxy that states for whom it calls.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = trusted.iter().any(|net| net.contains(&peer));
    is_trusted.then(|| stated_address(headers, trusted)).flatten().unwrap_or(peer)
}

/// Where the call came from: the last address of `X-Forwarded-For` that is no trusted proxy, since each
/// proxy appends the peer that it saw. An entry that is no address ends the search without one.
pub(super) fn stated_address(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut client = None;
    for value in headers.get_all(names::FORWARDED_FOR).iter().rev() {
        for entry in value.to_str().ok()?.rsplit(',') {
            let address = address(entry.trim())?;
            client = Some(address);
            if !trusted.iter().any(|net| net.contains(&address)) {
                return client;
            }
        }
    }
    client
}

/// An address, with or without a port; an IPv6 address may stand in brackets without one, too (RFC 7239, section 6).
fn address(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let address = entry.parse::<IpAddr>().or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_states() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, stated, expected) in [
            ("10.0.0.2", Some("192.0.2.7"), "192.0.2.7"),
            ("10.0.0.2", Some("192.0.2.7, unknown"), "10.0.0.2"),
            ("10.0.0.2", None, "10.0.0.2"),
            ("::ffff:10.0.0.2", Some("192.0.2.7"), "192.0.2.7"),
            ("198.51.100.1", Some("192.0.2.7"), "198.51.100.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(stated.map(|text| (names::FORWARDED_FOR, text.parse().unwrap())));
            let found = client_address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {stated:?}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (given, expected) in [
            (&["192.0.2.7"][..], Some("192.0.2.7")),
            (&["198.51.100.1, 192.0.2.7, 10.0.0.2"], Some("192.0.2.7")),
            (&["198.51.100.1", "192.0.2.7"], Some("192.0.2.7")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            (&["192.0.2.7:4711"], Some("192.0.2.7")),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["[::ffff:192.0.2.7]"], Some("192.0.2.7")),
            (&["[192.0.2.7]"], None),
            (&["[2001:db8::1"], None),
            (&["[[2001:db8::1]]"], None),
            (&["192.0.2.7, unknown"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(names::FORWARDED_FOR, value.parse().unwrap());
            }
            assert_eq!(stated_address(&headers, &trusted), expected.map(|text| text.parse().unwrap()), "{given:?}");
        }
    }
}
