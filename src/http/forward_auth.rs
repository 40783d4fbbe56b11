//! `ANY /v1/forward-auth`: a proxy asks about a call that it holds (nginx' `auth_request`, Traefik's
//! `ForwardAuth`, Caddy's `forward_auth`, Envoy's `ext_authz` over HTTP, HAProxy, APISIX).
//!
//! What the proxy states is believed when the proxy is trusted, when it is stated exactly once, and in
//! the header family of the configured style alone: there is no falling back from one family to another,
//! because a client could fill the one that the proxy does not set.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, Uri};
use ipnet::IpNet;

use super::request_id::RequestId;
use super::source::stated_address;
use super::{Decision, answer, names};
use crate::authorize::credentials::Credentials;
use crate::authorize::{Call, RequestLine, Stated, Transport};
use crate::config::ProxyStyle;

/// Where the endpoint is; Envoy puts the original path behind it.
pub const PREFIX: &str = "/v1/forward-auth";

/// Answers a proxy.
pub async fn forward_auth(
    State(decision): State<Arc<Decision>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let trusted = decision.trusts(peer.ip());
    let headers = request.headers();
    let request_id = if trusted { RequestId::of_trusted(headers) } else { RequestId::fresh() };
    let call = if trusted {
        statement(decision.config.proxy_style, &request, &decision.config.trusted_proxies)
    } else {
        Call::distrusted()
    };
    let answer = |verdict: &_| decision.dated(answer::verdict(verdict, &decision.config.realm, &request_id));
    let decided = decision.decide(&call, authorization(headers), &request_id, answer).await;
    decided.unwrap_or_else(|error| answer::unavailable(error, &request_id))
}

/// What a trusted proxy of this style states.
fn statement<'a>(style: ProxyStyle, request: &'a Request, trusted: &[IpNet]) -> Call<'a> {
    let headers = request.headers();
    let on_the_endpoint = request.uri().path() == PREFIX;
    let proto = || transport(headers);
    let (line, transport) = match style {
        ProxyStyle::XForwarded if on_the_endpoint => {
            (line(once(headers, &names::FORWARDED_METHOD), once(headers, &names::FORWARDED_URI)), proto())
        }
        ProxyStyle::XOriginal if on_the_endpoint => {
            let (target, transport) = original(headers);
            (line(once(headers, &names::ORIGINAL_METHOD), target), transport)
        }
        ProxyStyle::Envoy => (line(Some(request.method().as_str()), behind_prefix(request.uri())), proto()),
        ProxyStyle::XForwarded | ProxyStyle::XOriginal => (None, proto()),
    };
    Call {
        credentials: Credentials::of_headers(authorization(headers)),
        transport,
        address: stated_address(headers, trusted),
        line,
        stated: Stated::default(),
    }
}

fn authorization(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes)
}

fn line<'a>(method: Option<&'a str>, target: Option<&'a str>) -> Option<RequestLine<'a>> {
    Some(RequestLine { method: method?, target: target? })
}

/// The value of a header that is there exactly once and is visible ASCII.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// What `X-Forwarded-Proto` states; WebSocket's schemes are Traefik's.
fn transport(headers: &HeaderMap) -> Transport {
    match once(headers, &names::FORWARDED_PROTO) {
        Some("https" | "wss") => Transport::Secure,
        Some("http" | "ws") => Transport::Insecure,
        _ => Transport::Unknown,
    }
}

/// nginx states path and scheme in two headers, ingress-nginx in one whole URL; both at once is unclear,
/// and so is a URL whose scheme another header contradicts.
fn original(headers: &HeaderMap) -> (Option<&str>, Transport) {
    let (has_uri, has_url) = (headers.contains_key(names::ORIGINAL_URI), headers.contains_key(names::ORIGINAL_URL));
    if !has_url {
        return (once(headers, &names::ORIGINAL_URI), transport(headers));
    }
    let url = once(headers, &names::ORIGINAL_URL).filter(|_| !has_uri);
    let of_url = match url.and_then(|url| url.split_once("://")) {
        Some(("https", _)) => Transport::Secure,
        Some(("http", _)) => Transport::Insecure,
        _ => Transport::Unknown,
    };
    let contradicted = headers.contains_key(names::FORWARDED_PROTO) && transport(headers) != of_url;
    (url, if contradicted { Transport::Unknown } else { of_url })
}

/// Path and query behind the endpoint's own path.
fn behind_prefix(uri: &Uri) -> Option<&str> {
    uri.path_and_query()?.as_str().strip_prefix(PREFIX).filter(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method("GET").uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    const FORWARDED: [(&str, &str); 3] =
        [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/v1/resources"), ("x-forwarded-proto", "https")];

    fn read(style: ProxyStyle, path: &str, headers: &[(&str, &str)]) -> (Option<(String, String)>, Transport) {
        let request = request(path, headers);
        let call = statement(style, &request, &[]);
        (call.line.map(|line| (line.method.to_owned(), line.target.to_owned())), call.transport)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with what may not be stated")]
    fn stated(method: &str, target: &str) -> Option<(String, String)> {
        Some((method.to_owned(), target.to_owned()))
    }

    #[test]
    fn each_style_reads_its_own_family_of_headers_alone() {
        let original = [("x-original-method", "POST"), ("x-original-uri", "/admin"), ("x-forwarded-proto", "https")];
        let both: Vec<_> = FORWARDED.into_iter().chain(original.into_iter().take(2)).collect();
        for (style, headers, expected) in [
            (ProxyStyle::XForwarded, &FORWARDED[..], stated("GET", "/v1/resources")),
            (ProxyStyle::XForwarded, &original[..], None),
            (ProxyStyle::XForwarded, &both[..], stated("GET", "/v1/resources")),
            (ProxyStyle::XOriginal, &original[..], stated("POST", "/admin")),
            (ProxyStyle::XOriginal, &FORWARDED[..], None),
            (ProxyStyle::XOriginal, &both[..], stated("POST", "/admin")),
            (ProxyStyle::Envoy, &both[..], None),
        ] {
            assert_eq!(read(style, PREFIX, headers), (expected, Transport::Secure), "{style:?}");
        }
    }

    #[test]
    fn envoy_states_the_call_in_the_start_line() {
        let proto = [("x-forwarded-proto", "https"), ("x-forwarded-uri", "/v1/resources")];
        let target = read(ProxyStyle::Envoy, "/v1/forward-auth/admin?x=1", &proto);
        assert_eq!(target, (stated("GET", "/admin?x=1"), Transport::Secure));
        assert_eq!(read(ProxyStyle::Envoy, "/v1/forward-auth?x=1", &proto).0, None);
        assert_eq!(read(ProxyStyle::XForwarded, "/v1/forward-auth/admin", &FORWARDED).0, None);
    }

    #[test]
    fn what_is_missing_doubled_or_joined_is_not_stated() {
        for (left_out, header) in FORWARDED.into_iter().enumerate() {
            let headers: Vec<_> =
                FORWARDED.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, h)| *h).collect();
            let (line, transport) = read(ProxyStyle::XForwarded, PREFIX, &headers);
            assert!(line.is_none() || transport == Transport::Unknown, "{left_out}");
            let doubled: Vec<_> = FORWARDED.into_iter().chain([header]).collect();
            let (line, transport) = read(ProxyStyle::XForwarded, PREFIX, &doubled);
            assert!(line.is_none() || transport == Transport::Unknown, "{left_out}");
        }
        for proto in ["https,http", "https, https", "HTTPS", "", "h2"] {
            assert_eq!(
                read(ProxyStyle::XForwarded, PREFIX, &[("x-forwarded-proto", proto)]).1,
                Transport::Unknown,
                "{proto}"
            );
        }
        for look_alike in ["x_forwarded_uri", "x.forwarded.uri"] {
            let headers: Vec<_> = FORWARDED.into_iter().chain([(look_alike, "/admin")]).collect();
            assert_eq!(read(ProxyStyle::XForwarded, PREFIX, &headers).0, stated("GET", "/v1/resources"));
        }
    }

    #[test]
    fn a_whole_url_states_its_scheme_and_nothing_may_contradict_it() {
        let url = |url| [("x-original-method", "GET"), ("x-original-url", url)];
        let read = |headers: &[(&str, &str)]| read(ProxyStyle::XOriginal, PREFIX, headers);
        assert_eq!(read(&url("https://a.example/x")), (stated("GET", "https://a.example/x"), Transport::Secure));
        assert_eq!(read(&url("http://a.example/x")).1, Transport::Insecure);
        assert_eq!(read(&url("/x")).1, Transport::Unknown);
        let with = |extra| url("https://a.example/x").into_iter().chain([extra]).collect::<Vec<_>>();
        assert_eq!(read(&with(("x-forwarded-proto", "http"))).1, Transport::Unknown);
        assert_eq!(read(&with(("x-original-uri", "/admin"))).0, None);
    }
}
