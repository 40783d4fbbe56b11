//! Creates keys over the management API, as many clients at once: `cargo run --release --example create -- 10000 4`. Where,
//! and as whom, is said by `KEYWARD_URL` and `KEYWARD_TOKEN`, as for the command line.
#![allow(clippy::print_stdout, reason = "it says what it did")]

use std::time::Instant;

use serde_json::{Value, json};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (Some(Ok(keys)), Some(Ok(clients))) = (numbers.next(), numbers.next()) else {
        return Err("give a number of keys and a number of clients".into());
    };
    let (url, token) = (std::env::var("KEYWARD_URL")?, std::env::var("KEYWARD_TOKEN")?);
    let http = keyward::outbound::plain().build()?;
    let account = http.post(format!("{url}/v1/accounts")).bearer_auth(&token).json(&json!({ "name": "Filled" }));
    let account: Value = account.send().await?.error_for_status()?.json().await?;
    let account = account.get("id").and_then(Value::as_str).ok_or("no account was made")?;
    let path = format!("{url}/v1/accounts/{account}/keys");
    let started = Instant::now();
    let creating = (0..clients).map(|client| {
        let (http, path, token) = (http.clone(), path.clone(), token.clone());
        tokio::spawn(async move {
            for number in (client..keys).step_by(clients) {
                let body = json!({ "kind": "secret", "mode": "live", "name": format!("Worker {number}") });
                let made = http.post(&path).bearer_auth(&token).json(&body).send().await?.error_for_status()?;
                made.bytes().await?;
            }
            Ok::<(), Failed>(())
        })
    });
    for one in creating.collect::<Vec<_>>() {
        one.await??;
    }
    println!("{keys} keys by {clients} clients: {:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}
