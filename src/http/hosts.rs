//! Under which names the admin listener may be asked for.
//!
//! A page of another site can have its own name lead to this machine, after it was loaded (DNS rebinding); to the browser
//! it is then of one origin with the Dashboard, and reads whatever needs no token. What it cannot change is the name in its
//! requests. So a name that nobody has said is ours is refused, before anything else is looked at. Addresses and `localhost`
//! are not found by asking anybody, and cannot be turned around.
//!
//! The Dashboard's own calls of the management API stay within the process and do not come through here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use ipnet::IpNet;

use super::answer::Problem;
use crate::config;
use crate::key::masked;

/// Characters of a name that is repeated: no real one has more (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// Who is known.
pub struct Hosts {
    /// Names besides addresses and `localhost`.
    names: Vec<String>,
    /// Peers that ask under whatever name they were asked under themselves.
    proxies: Vec<IpNet>,
}

impl Hosts {
    /// As configured.
    pub fn new(config: &config::Admin) -> Self {
        Self { names: config.hosts.clone(), proxies: config.trusted_proxies.clone() }
    }

    /// `router`, for requests under known names alone.
    pub fn guard(self, router: Router) -> Router {
        router.layer(from_fn_with_state(Arc::new(self), look))
    }

    /// Whether a request is for us: it names one host, and that is known, as is the one of its target. Otherwise the name that
    /// is not, if there is one.
    fn check<'a>(&self, uri: &'a Uri, headers: &'a HeaderMap) -> Result<(), Option<&'a str>> {
        let mut stated = headers.get_all(HOST).iter();
        let host = stated.next().filter(|_| stated.next().is_none()).and_then(|host| host.to_str().ok()).ok_or(None)?;
        if !host.parse().is_ok_and(|host| self.knows_name(&host)) {
            return Err(Some(host));
        }
        match uri.authority().filter(|host| !self.knows_name(host)) {
            Some(host) => Err(Some(host.as_str())),
            None => Ok(()),
        }
    }

    fn knows_name(&self, host: &Authority) -> bool {
        if host.as_str().contains('@') {
            return false;
        }
        let host = host.host();
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bracketed.unwrap_or(&name).parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(&name))
    }
}

async fn look(
    State(hosts): State<Arc<Hosts>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let peer = peer.ip().to_canonical();
    let is_proxy = hosts.proxies.iter().any(|net| net.contains(&peer));
    let unknown = match hosts.check(request.uri(), request.headers()) {
        Err(unknown) if !is_proxy => unknown.filter(|host| host.len() <= LONGEST).map(masked),
        Ok(()) | Err(_) => return next.run(request).await,
    };
    let detail = match unknown {
        Some(host) => format!(
            "this listener is not known as `{host}`: use its address or localhost; or add the name to `admin.hosts`, or \
             the proxy that passes it on to `admin.trusted_proxies`"
        ),
        None => "say in one Host header under which name you ask".to_owned(),
    };
    tracing::warn!(%peer, "refused a request to the admin listener: {detail}");
    Problem::at_once(StatusCode::MISDIRECTED_REQUEST, "host_unknown", detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_localhost_and_listed_names_are_known_and_nothing_else_is() {
        let hosts = Hosts { names: vec!["Keyward.example.com".into()], proxies: Vec::new() };
        for (given, expected) in [
            (&["127.0.0.1:8702"][..], true),
            (&["192.0.2.7"], true),
            (&["[::1]:8702"], true),
            (&["[2001:db8::1]"], true),
            (&["localhost:8702"], true),
            (&["LOCALHOST."], true),
            (&["keyward.localhost"], true),
            (&["keyward.example.com:443"], true),
            (&["KEYWARD.EXAMPLE.COM."], true),
            (&[], false),
            (&[""], false),
            (&[":8702"], false),
            (&["evil.test"], false),
            (&["evil.test:8702"], false),
            (&["127.0.0.1.evil.test"], false),
            (&["evillocalhost"], false),
            (&["localhost.evil.test"], false),
            (&["x.keyward.example.com"], false),
            (&["127.0.0.1@evil.test"], false),
            (&["evil.test@127.0.0.1"], false),
            (&["evil.test, 127.0.0.1"], false),
            (&["127.0.0.1", "evil.test"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(HOST, HeaderValue::from_static(value));
            }
            assert_eq!(hosts.check(&Uri::from_static("/metrics"), &headers).is_ok(), expected, "{given:?}");
            let absolute = Uri::from_static("http://evil.test/metrics");
            assert!(hosts.check(&absolute, &headers).is_err(), "{given:?}");
        }
    }
}
