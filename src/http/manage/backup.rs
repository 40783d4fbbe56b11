//! A backup of a running daemon, and how files and long lists are sent.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Read, Seek};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use serde::Serialize;
use tokio::sync::mpsc;

use super::refusal::{Refusal, Refusals};
use super::{Caller, Shared};
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
    let ledger = manage.ledger().clone();
    let spool = move |file: &mut File| {
        back_up(ledger.store().as_ref(), by.now, &mut BufWriter::new(file))?;
        Ok(ledger.commit_told(Batch::new(), &[Event::new(Happened::BackedUp, &by)])?)
    };
    spooled(spool, "attachment; filename=\"keyward-backup.jsonl\"").await
}

/// An answer of what `write` puts into a file without a name: changes wait while rows are read, and must not wait for
/// whoever downloads them.
pub(super) async fn spooled(
    write: impl FnOnce(&mut File) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    disposition: &'static str,
) -> Result<Response<Body>, Refusal> {
    let spooled = tokio::task::spawn_blocking(move || {
        let mut file = tempfile::tempfile()?;
        write(&mut file)?;
        file.rewind()?;
        Ok::<_, Box<dyn Error + Send + Sync>>(file)
    });
    match spooled.await {
        Ok(Ok(file)) => Ok(download(file, disposition)),
        Ok(Err(error)) => Err(Refusal::internal(&error)),
        Err(error) => Err(Refusal::internal(&error)),
    }
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

/// An answer that is the rest of this file.
fn download(mut file: File, disposition: &'static str) -> Response<Body> {
    let (sender, mut chunks) = mpsc::channel::<Result<Bytes, std::io::Error>>(2);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = file.read(&mut chunk);
            if matches!(read, Ok(0)) {
                return;
            }
            let chunk = read.map(|length| {
                chunk.truncate(length);
                Bytes::from(chunk)
            });
            let is_over = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || is_over {
                return;
            }
        }
    });
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| chunks.poll_recv(context)));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    response
}
