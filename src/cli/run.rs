//! The commands that go on running: `serve` and `demo`.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Demo, Failure, Serve};
use crate::authorize::STACK;
use crate::config::Log;
use crate::daemon::Daemon;
use crate::{demo, telemetry};

pub(super) fn serve(serve: &Serve) -> Result<(), Failure> {
    let config = serve.load()?;
    let _log = telemetry::init(&config.log)?;
    run(async {
        let stop = on_signal()?;
        Daemon::start(&config, stop).await?.ended().await;
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
