//! A backup of a running daemon, and how files and long lists are sent.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use futures_util::stream::try_unfold;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::refusal::{Refusal, Refusals};
use super::{Caller, Manage, Shared, blocking};
use crate::authorize::manage::Subject;
use crate::store::Batch;
use crate::store::backup::back_up;
use crate::trail::{Event, Happened};

/// Bytes that are sent at a time.
const CHUNK: usize = 64 * 1024;

/// Everything that the store holds, as it is at one moment, for `keyward restore`. It holds hashes, and no secret.
#[utoipa::path(
    get, path = "/v1/backup", tag = "installation", operation_id = "backUp",
    responses((status = 200, body = String, content_type = "application/jsonl"), Refusals)
)]
pub(super) async fn back_up_all(State(manage): State<Shared>, caller: Caller) -> Result<Response<Body>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let now = by.now;
    told(&manage, Event::new(Happened::BackedUp, &by)).await?;
    let store = Arc::clone(manage.ledger().store());
    let spool = move |out: &mut dyn Write| back_up(store.as_ref(), now, out);
    download(spool, "attachment; filename=\"keyward-backup.jsonl\"").await
}

/// Writes down that somebody takes everything away, before any of it is sent.
pub(super) async fn told(manage: &Manage, event: Event) -> Result<(), Refusal> {
    let ledger = manage.ledger().clone();
    blocking(move || ledger.commit_told(Batch::new(), &[event])).await
}

/// An answer of a line of JSON for each item. `chunk` reads some items, and none once all are read.
pub(super) fn lines<T: Serialize, E: Error + Send + Sync + 'static>(
    mut chunk: impl FnMut() -> Result<Vec<T>, E> + Send + 'static,
) -> Response<Body> {
    // A small number of chunks in flight: whoever reads slowly makes the reading slow, and nothing pile up.
    let (sender, mut chunks) = mpsc::channel::<Result<String, E>>(2);
    tokio::task::spawn_blocking(move || {
        loop {
            let items = match chunk() {
                Ok(items) if items.is_empty() => return,
                Ok(items) => items,
                // The body ends in the middle, which no client takes for its end.
                Err(error) => {
                    tracing::error!(%error, "what is downloaded could not be read to its end");
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            };
            let lines = items.iter().filter_map(|item| serde_json::to_string(item).ok());
            let text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
            if sender.blocking_send(Ok(text)).is_err() {
                return;
            }
        }
    });
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| chunks.poll_recv(context)));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response
}

/// How much of a download is in its file.
#[derive(Clone, Copy)]
struct Spooled {
    bytes: u64,
    /// Whether that is all; `None` while more is written.
    is_whole: Option<bool>,
}

/// The writing end of a download's file.
struct Spool {
    file: Arc<File>,
    spooled: watch::Sender<Spooled>,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.spooled.is_closed() {
            return Err(io::Error::other("whoever downloads it has gone"));
        }
        let written = (&*self.file).write(bytes)?;
        self.spooled.send_modify(|spooled| spooled.bytes += written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer of all that `spool` writes. Changes wait while rows are read, and must not wait for whoever downloads them: they
/// go to a file without a name. It is sent while it is written, so that a long one begins at once.
pub(super) async fn download<E: Error + Send + 'static>(
    spool: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send + 'static,
    disposition: &'static str,
) -> Result<Response<Body>, Refusal> {
    let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(|error| Refusal::internal(&error))?;
    let file = Arc::new(file.map_err(|error| Refusal::internal(&error))?);
    let (sender, spooled) = watch::channel(Spooled { bytes: 0, is_whole: None });
    let to = Spool { file: Arc::clone(&file), spooled: sender };
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(CHUNK, to);
        let done = spool(&mut out).map_err(|error| error.to_string());
        let done = done.and_then(|()| out.flush().map_err(|error| error.to_string()));
        // The body ends in the middle then, which no client takes for its end.
        let Spool { spooled, .. } = out.get_ref();
        if let Err(error) = &done
            && !spooled.is_closed()
        {
            tracing::error!(error, "what is downloaded could not be read to its end");
        }
        spooled.send_modify(|spooled| spooled.is_whole = Some(done.is_ok()));
    });
    let body = Body::from_stream(try_unfold((file, spooled, 0), next_chunk));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    Ok(response)
}

/// What is being read of a download's file: the file, how much is there, and how much of it was read.
type Reading = (Arc<File>, watch::Receiver<Spooled>, u64);

async fn next_chunk((file, mut spooled, at): Reading) -> io::Result<Option<(Bytes, Reading)>> {
    let broken = || io::Error::other("what is downloaded could not be read to its end");
    loop {
        let Spooled { bytes, is_whole } = *spooled.borrow_and_update();
        let ready = usize::try_from(bytes.saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
        if ready > 0 {
            let from = Arc::clone(&file);
            let read = move || {
                let mut chunk = vec![0; ready];
                from.read_exact_at(&mut chunk, at).map(|()| chunk)
            };
            let chunk = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
            return Ok(Some((Bytes::from(chunk), (file, spooled, at + ready as u64))));
        }
        match is_whole {
            Some(true) => return Ok(None),
            Some(false) => return Err(broken()),
            None => spooled.changed().await.map_err(|_| broken())?,
        }
    }
}
