//! The commands that go on running: `serve` and `demo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::configuration::Configuration;
use super::{CONFIGURATION, Failure};
use crate::authorize::STACK;
use crate::config::{Config, Log, ProxyStyle, Widening};
use crate::daemon::{Daemon, StartError};
use crate::{demo, telemetry};

#[derive(Args)]
pub(super) struct Demo {
    /// Where the demo keeps everything
    #[arg(long, value_name = "DIR", default_value = "keyward-demo")]
    data: PathBuf,
    /// Write the tokens and addresses to a file that a shell can read
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Where decisions are asked for
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8700")]
    decision_addr: SocketAddr,
    /// Where keys are managed, and where the metrics and the state of the policies are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8702")]
    admin_addr: SocketAddr,
    /// Where the Docs API listens with TLS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8743")]
    api_addr: SocketAddr,
    /// Where the Docs API listens without
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8703")]
    api_http_addr: SocketAddr,
    /// The headers in which a proxy in front states the call: x-forwarded, x-original or envoy
    #[arg(long, value_name = "STYLE", default_value = "x-forwarded", value_parser = proxy_style)]
    proxy_style: ProxyStyle,
    /// Have edits of the policies wait for an approval, where somebody could do more
    #[arg(long)]
    confirm_widening: bool,
}

fn proxy_style(text: &str) -> Result<ProxyStyle, String> {
    match text {
        "x-forwarded" => Ok(ProxyStyle::XForwarded),
        "x-original" => Ok(ProxyStyle::XOriginal),
        "envoy" => Ok(ProxyStyle::Envoy),
        _ => Err("give x-forwarded, x-original or envoy".into()),
    }
}

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    configuration: Configuration,
    /// Where decisions are asked for
    #[arg(long, value_name = "ADDR")]
    decision_addr: Option<SocketAddr>,
    /// Where keys are managed, and where the metrics and the state of the policies are
    #[arg(long, value_name = "ADDR")]
    admin_addr: Option<SocketAddr>,
}

impl Serve {
    fn load(&self) -> Result<Config, Failure> {
        let addresses = [("decision.addr", self.decision_addr), ("admin.addr", self.admin_addr)];
        let flags = addresses.into_iter().filter_map(|(key, address)| Some((key, address?.to_string())));
        self.configuration.load(flags.collect())
    }
}

pub(super) fn serve(serve: &Serve) -> Result<(), Failure> {
    let config = serve.load()?;
    let misconfigured = |error: &dyn std::fmt::Display| Failure::of(CONFIGURATION, error.to_string());
    if [&config.data_dir, &config.schemas_dir, &config.policies_dir].iter().all(|folder| !folder.exists()) {
        let what = format!(
            "there is nothing in {}: make an installation with `keyward init DIR`, and name it with `--config DIR/keyward.toml`",
            config.schemas_dir.parent().unwrap_or(&config.schemas_dir).display()
        );
        return Err(misconfigured(&what));
    }
    let _log = telemetry::init(&config.log).map_err(|error| misconfigured(&error))?;
    run(async {
        let stop = on_signal()?;
        let daemon = Daemon::start(&config, stop).await.map_err(|error| match error {
            StartError::Webhook(error) => misconfigured(&error),
            others => others.into(),
        });
        daemon?.ended().await?;
        Ok(())
    })
}

pub(super) fn demo(given: Demo) -> Result<(), Failure> {
    let _log = telemetry::init(&Log { level: "warn".into(), ..Log::default() })?;
    let options = demo::Options {
        data: given.data,
        env_file: given.env_file,
        decision_addr: given.decision_addr,
        admin_addr: given.admin_addr,
        api_addr: given.api_addr,
        api_http_addr: given.api_http_addr,
        proxy_style: given.proxy_style,
        widening: if given.confirm_widening { Widening::Confirm } else { Widening::Allow },
    };
    run(async {
        let stop = on_signal()?;
        demo::run(&options, stop).await?;
        Ok(())
    })
}

/// Runs it on threads that have the stack that policy evaluation is bounded for.
fn run(daemon: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    let ended = runtime.block_on(daemon);
    // Everything has ended in order. What still waits, for a disk that does not answer, is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Turns true on SIGTERM or SIGINT.
fn on_signal() -> Result<watch::Receiver<bool>, Failure> {
    let (sender, receiver) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: requests in flight are answered first");
        sender.send_replace(true);
    });
    Ok(receiver)
}
