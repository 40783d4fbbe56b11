//! The least that an HTTP handler can be, to hold the daemon against: axum, answering 204. `benches/load/run` uses it.
#![allow(clippy::print_stdout, reason = "it says where it listens")]

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8799".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let app = axum::Router::new().fallback(|| async { axum::http::StatusCode::NO_CONTENT });
    axum::serve(listener, app).await
}
