//! `Idempotency-Key`: a repeated creation makes nothing new and is answered as the first one was.
//!
//! That something was made is noted in the store, in the commit that makes it, for a day. Its tokens are not: they are
//! kept in memory for ten minutes, which is when clients try again. After that, or after a restart, the answer has no
//! token, and rotating the key gives a new one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::refusal::Refusal;
use super::{Caller, Manage};
use crate::ledger::{LedgerError, Once};

/// How long tokens are kept for whoever asks again.
const KEPT: Duration = Duration::from_secs(600);
/// Creations whose tokens are kept.
const MOST: usize = 1_024;

/// A token and the id of what it proves.
pub(super) type Shown = (String, Zeroizing<String>);

/// Tokens of what was made a moment ago.
#[derive(Default)]
pub(super) struct Recent(Mutex<HashMap<[u8; 32], (Instant, Vec<Shown>)>>);

impl Recent {
    /// Keeps the tokens of a creation.
    pub fn keep(&self, once: Option<&Once>, tokens: impl IntoIterator<Item = Shown>) {
        let Some(once) = once else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (at, _)| at.elapsed() < KEPT);
        if kept.len() < MOST {
            kept.insert(once.name, (Instant::now(), tokens.into_iter().collect()));
        }
    }

    /// The token that a creation showed for this id.
    pub fn find(&self, once: Option<&Once>, id: &str) -> Option<Zeroizing<String>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, tokens) = kept.get(&once?.name)?;
        let found = tokens.iter().find(|(of, _)| of == id).filter(|_| at.elapsed() < KEPT);
        found.map(|(_, token)| token.clone())
    }
}

/// What a creation came to.
pub(super) enum Made<T> {
    /// It was made now.
    Now(T),
    /// It was made before; its id.
    Before(String),
}

/// Who asks for what, under which key of theirs.
pub(super) fn once(caller: &Caller, key: Option<&str>, path: &str, body: &[u8]) -> Option<Once> {
    let user = caller.user.as_ref()?;
    let digest = |parts: &[&[u8]]| {
        // Lengths first, so that no two lists of parts spell the same bytes.
        let sized = parts
            .iter()
            .fold(Sha256::new(), |sha, part| sha.chain_update((part.len() as u64).to_be_bytes()).chain_update(part));
        sized.finalize().into()
    };
    let name = digest(&[user.id.as_bytes(), caller.operation.name.as_bytes(), key?.as_bytes()]);
    Some(Once { name, asked: digest(&[path.as_bytes(), body]) })
}

impl Manage {
    /// Makes something, unless it was made before under the same key.
    pub(super) async fn make_once<T: Send + 'static>(
        &self,
        once: Option<Once>,
        make: impl FnOnce(&crate::ledger::Ledger, Option<&Once>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<Made<T>, Refusal> {
        let ledger = self.ledger().clone();
        let work = move || {
            let Some(once) = once else { return make(&ledger, None).map(|made| Ok(Made::Now(made))) };
            let before = |done: crate::ledger::Done| {
                if done.is_of(&once) {
                    return Ok(Made::Before(done.made.into()));
                }
                let detail = "this Idempotency-Key was used for another request; take a new one";
                Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail))
            };
            if let Some(done) = ledger.done_before(&once)? {
                return Ok(before(done));
            }
            match make(&ledger, Some(&once)) {
                // Somebody sent the same at the same time, and was first.
                Err(LedgerError::DoneBefore) => match ledger.done_before(&once)? {
                    Some(done) => Ok(before(done)),
                    None => Err(LedgerError::Contended),
                },
                made => made.map(|made| Ok(Made::Now(made))),
            }
        };
        super::blocking(work).await?
    }
}
