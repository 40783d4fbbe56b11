//! How this program calls others over HTTP: the beginning of every client.
//!
//! TLS is rustls with ring. A client goes where it is told and nowhere else: it follows no redirect, since what it
//! sends are secrets, and heeds no proxy of the environment.

use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
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
