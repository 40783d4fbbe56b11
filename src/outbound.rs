//! How this program calls others over HTTP: the beginning of every client.
//!
//! TLS is rustls with ring. A client goes where it is told and nowhere else: it follows no redirect, since what it
//! sends are secrets, and heeds no proxy of the environment.

use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Url};
use tokio_rustls::rustls::crypto::ring;

/// A client that trusts whom the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
pub fn trusting_the_system() -> ClientBuilder {
    // The library asks the process for it. That somebody else has chosen one already is as good.
    let _ = ring::default_provider().install_default();
    ClientBuilder::new().no_proxy().redirect(Policy::none())
}

/// A client for plain HTTP: it trusts no certificate, and needs none on the machine.
pub fn plain() -> ClientBuilder {
    trusting_the_system().tls_certs_only([])
}

/// Whether the address is on this machine, so that nobody in between can read what goes there.
pub fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

/// Why a request could not be made, without the address, which may be a secret.
pub fn why(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut last = None;
    while let Some(next) = cause {
        last = Some(next.to_string());
        cause = next.source();
    }
    // The last cause says it; those before it say that something went wrong.
    last.unwrap_or_else(|| if error.is_timeout() { "it took too long".into() } else { "it could not be sent".into() })
}
