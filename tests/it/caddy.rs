//! `examples/caddy` as it is shipped, but for its addresses: Debian's Caddy before the demo's API, or before an API that tells
//! what reached it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::Demo;
use crate::proxied::{self, Proxy, Upstream, echo, rewritten};

fn caddy(demo: &Demo, upstream: &Upstream) -> Proxy {
    let (api, scheme) = upstream.address(demo);
    let trust = "tls_trusted_ca_certs docs-api.pem\n\t\t\t\ttls_server_name localhost";
    let render = |folder: &Path, [tls, plain]: [u16; 2]| {
        let text = rewritten(
            "caddy/Caddyfile",
            &[
                ("admin off", "admin off\n\tdefault_bind 127.0.0.1".to_owned()),
                ("forward_auth 127.0.0.1:8700", demo.get("DECISION_URL").replace("http://", "forward_auth ")),
                ("https://127.0.0.1:8743", format!("{scheme}://{api}")),
                (trust, if scheme == "https" { trust } else { "" }.to_owned()),
                ("http://:8080", format!("http://:{plain}")),
                ("https://localhost:8443", format!("https://localhost:{tls}")),
            ],
        );
        fs::write(folder.join("Caddyfile"), text).unwrap();
    };
    Proxy::start(demo, render, |folder| {
        let mut caddy = Command::new("caddy");
        caddy.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
        caddy.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        caddy
    })
}

#[tokio::test]
async fn the_customers_calls_are_answered_through_caddy() {
    let demo = Demo::start();
    let caddy = caddy(&demo, &Upstream::Demo);
    proxied::answers_the_customers_calls(&caddy, &demo).await;
    proxied::passes_denials_on(&caddy, &demo).await;
}

#[tokio::test]
async fn no_identity_header_of_the_client_reaches_the_api() {
    let demo = Demo::start();
    let (upstream, _) = echo().await;
    let caddy = caddy(&demo, &upstream);
    for http in ["--http1.1", "--http2"] {
        proxied::replaces_what_the_client_calls_itself(&caddy, &demo, &[http]).await;
    }
}

#[tokio::test]
async fn what_is_decided_on_is_what_the_api_reads_and_the_client_cannot_say_otherwise() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    proxied::has_decided_what_the_api_reads(&caddy(&demo, &upstream), &demo, &passed).await;
}

#[tokio::test]
async fn a_key_over_plain_http_is_dead() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    proxied::tells_of_keys_over_plain_http(&caddy(&demo, &upstream), &demo, &passed).await;
}

#[tokio::test]
async fn without_a_decision_nothing_is_served() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    let caddy = caddy(&demo, &upstream);
    assert_eq!(proxied::serves_nothing_without_a_decision(&caddy, demo, &passed).await.status, 502);
}
