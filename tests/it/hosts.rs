//! The admin listener under names that are not its own, as a page sends them whose name was made to lead here.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Demo, PATIENCE, Serve, client};

/// Status and body of an answer to a request under these names, at the admin listener.
async fn ask(admin: &str, version: &str, path: &str, hosts: &[&str]) -> (u16, String) {
    let mut stream = TcpStream::connect(admin.trim_start_matches("http://")).await.unwrap();
    let hosts: String = hosts.iter().flat_map(|host| ["host: ", host, "\r\n"]).collect();
    let request = format!("GET {path} {version}\r\n{hosts}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn nothing_is_answered_under_a_name_that_nobody_has_said_is_ours() {
    let demo = Demo::start();
    let admin = demo.get("ADMIN_URL");
    for path in ["/metrics", "/v1/policies", "/healthz", "/openapi.json", "/v1/accounts", "/", "/sign-in", "/nothing"] {
        let (status, body) = ask(admin, "HTTP/1.1", path, &["evil.test:8702"]).await;
        let document: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, document["code"].as_str()), (421, Some("host_unknown")), "{path}: {body}");
        let detail = document["detail"].as_str().unwrap();
        assert!(detail.contains("`evil.test:8702`") && detail.contains("`admin.hosts`"), "{detail}");
    }
    for (version, path, hosts) in [
        ("HTTP/1.0", "/metrics", &[][..]),
        ("HTTP/1.1", "/metrics", &["127.0.0.1", "evil.test"]),
        ("HTTP/1.1", "http://evil.test/metrics", &["127.0.0.1"]),
        ("HTTP/1.1", "/metrics", &["evil.test@127.0.0.1"]),
    ] {
        assert_eq!(ask(admin, version, path, hosts).await.0, 421, "{version} {path} {hosts:?}");
    }
    for host in ["127.0.0.1", "localhost:1", "keyward.localhost", "[::1]:8702", "192.0.2.7"] {
        assert_eq!(ask(admin, "HTTP/1.1", "/metrics", &[host]).await.0, 200, "{host}");
        assert_eq!(ask(admin, "HTTP/1.1", "/sign-in", &[host]).await.0, 200, "{host}");
    }
    // A key in the wrong place is not repeated.
    let (status, body) = ask(admin, "HTTP/1.1", "/metrics", &[demo.get("SK_LIVE")]).await;
    assert!(status == 421 && !body.contains(demo.get("SK_LIVE")), "{status} {body}");
}

#[tokio::test]
async fn a_listed_name_and_whatever_a_trusted_proxy_passes_on_are_known() {
    let serve = Serve::with(&["admin.hosts = [\"keyward.example.com\"]"]);
    assert_eq!(ask(&serve.admin, "HTTP/1.1", "/metrics", &["Keyward.Example.com:443"]).await.0, 200);
    assert_eq!(ask(&serve.admin, "HTTP/1.1", "/metrics", &["example.com"]).await.0, 421);
    let proxied = Serve::with(&["admin.trusted_proxies = [\"127.0.0.1\"]"]);
    assert_eq!(ask(&proxied.admin, "HTTP/1.1", "/metrics", &["keyward.example.com"]).await.0, 200);
    let another = Serve::with(&["admin.trusted_proxies = [\"192.0.2.1\"]"]);
    let stated = client().get(format!("{}/metrics", another.admin)).header("host", "keyward.example.com");
    assert_eq!(stated.header("x-forwarded-for", "192.0.2.1").send().await.unwrap().status(), 421);
}
