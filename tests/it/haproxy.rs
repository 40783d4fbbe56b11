//! `examples/haproxy` as it is shipped, but for its addresses: Debian's HAProxy before the demo's API, or before an API that tells
//! what reached it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::Demo;
use crate::proxied::{self, Proxy, Upstream, echo, rewritten};

fn haproxy(demo: &Demo, upstream: &Upstream) -> Proxy {
    let (api, scheme) = upstream.address(demo);
    let trust = " ssl verify required ca-file docs-api.pem verifyhost localhost";
    let render = |folder: &Path, [tls, plain]: [u16; 2]| {
        let text = rewritten(
            "haproxy/haproxy.cfg",
            &[
                ("bind :8080", format!("bind 127.0.0.1:{plain}")),
                ("bind :8443", format!("bind 127.0.0.1:{tls}")),
                ("127.0.0.1:8743", api.clone()),
                (trust, if scheme == "https" { trust } else { "" }.to_owned()),
            ],
        );
        fs::write(folder.join("haproxy.cfg"), text).unwrap();
        let lua = rewritten("haproxy/keyward.lua", &[("http://127.0.0.1:8700", demo.get("DECISION_URL").to_owned())]);
        fs::write(folder.join("keyward.lua"), lua).unwrap();
    };
    Proxy::start(demo, render, |_| {
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-db", "-f", "haproxy.cfg"]);
        haproxy
    })
}

#[tokio::test]
async fn the_customers_calls_are_answered_through_haproxy() {
    let demo = Demo::start();
    let haproxy = haproxy(&demo, &Upstream::Demo);
    proxied::answers_the_customers_calls(&haproxy, &demo).await;
    proxied::passes_denials_on(&haproxy, &demo).await;
}

#[tokio::test]
async fn no_identity_header_of_the_client_reaches_the_api() {
    let demo = Demo::start();
    let (upstream, _) = echo().await;
    proxied::replaces_what_the_client_calls_itself(&haproxy(&demo, &upstream), &demo, &[]).await;
}

#[tokio::test]
async fn what_is_decided_on_is_what_the_api_reads_and_the_client_cannot_say_otherwise() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    proxied::has_decided_what_the_api_reads(&haproxy(&demo, &upstream), &demo, &passed).await;
}

#[tokio::test]
async fn a_key_over_plain_http_is_dead() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    proxied::tells_of_keys_over_plain_http(&haproxy(&demo, &upstream), &demo, &passed).await;
}

#[tokio::test]
async fn without_a_decision_nothing_is_served() {
    let demo = Demo::start();
    let (upstream, passed) = echo().await;
    let haproxy = haproxy(&demo, &upstream);
    let answer = proxied::serves_nothing_without_a_decision(&haproxy, demo, &passed).await;
    assert_eq!((answer.status, answer.all("retry-after")), (503, vec!["1"]));
    assert_eq!(answer.json()["code"], "authorization_unavailable");
}
