//! `Idempotency-Key`: a repeated creation makes nothing new and is answered as the first one was.
//!
//! That something was made is noted in the store, in the commit that makes it, for a day. Its tokens are not: they are
//! kept in memory for ten minutes, which is when clients try again. After that, or after a restart, the answer has no
//! token, and rotating the key gives a new one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use super::{Caller, Manage};
use crate::key::Mint;
use crate::ledger::{Done, Ledger, LedgerError, Once};

/// How long tokens are kept for whoever asks again.
const KEPT: Duration = Duration::from_mins(10);
/// Creations whose tokens are kept, the newest: some megabytes, and minutes of making keys as fast as can be.
const MOST: usize = 20_000;

/// A token and the id of what it proves.
pub(super) type Shown = (String, Zeroizing<String>);

/// Requests under the same key that arrive together go one by one: the second is answered from what the first kept.
const LANES: usize = 64;

/// Tokens of what was made a moment ago.
pub(super) struct Recent {
    kept: Mutex<Kept>,
    /// Which of these a request holds is said by its digest.
    lanes: [Arc<tokio::sync::Mutex<()>>; LANES],
}

impl Default for Recent {
    fn default() -> Self {
        Self { kept: Mutex::default(), lanes: std::array::from_fn(|_| Arc::default()) }
    }
}

#[derive(Default)]
struct Kept {
    tokens: HashMap<[u8; 32], Vec<Shown>>,
    /// Which, and since when; the oldest first.
    order: VecDeque<([u8; 32], Instant)>,
}

impl Kept {
    /// Lets go of what is too old, and of the oldest beyond `most`.
    fn trim(&mut self, most: usize) {
        while self.order.front().is_some_and(|(_, at)| self.order.len() > most || at.elapsed() >= KEPT) {
            let oldest = self.order.pop_front();
            oldest.map(|(name, _)| self.tokens.remove(&name));
        }
    }
}

impl Recent {
    /// Keeps the tokens of a creation.
    fn keep(&self, once: &Once, tokens: Vec<Shown>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.order.push_back((once.name, Instant::now()));
        kept.tokens.insert(once.name, tokens);
        kept.trim(MOST);
    }

    /// Waits for whoever asks under the same key.
    async fn alone(&self, once: &Once) -> Option<OwnedMutexGuard<()>> {
        let [first, ..] = once.name;
        let lane = self.lanes.get(usize::from(first) % LANES)?;
        Some(Arc::clone(lane).lock_owned().await)
    }

    /// The token that a creation showed for this id.
    pub fn find(&self, once: Option<&Once>, id: &str) -> Option<Zeroizing<String>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.trim(MOST);
        let tokens = kept.tokens.get(&once?.name)?;
        tokens.iter().find(|(of, _)| of == id).map(|(_, token)| token.clone())
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

/// What is shown of a token that was just made.
pub(super) fn shown(id: &impl ToString, mint: &Mint) -> Shown {
    (id.to_string(), Zeroizing::new(mint.expose().to_owned()))
}

impl Manage {
    /// Makes something, unless it was made before under the same key. `make` returns it with the tokens to keep.
    ///
    /// What was begun is finished, and its tokens are kept, also when the client has gone: it will ask again.
    pub(super) async fn make_once<T: Send + 'static>(
        self: &Arc<Self>,
        once: Option<Once>,
        make: impl FnOnce(&Ledger, Option<&Once>) -> Result<(T, Vec<Shown>), LedgerError> + Send + 'static,
    ) -> Result<Made<T>, Refusal> {
        let ledger = self.ledger().clone();
        let Some(once) = once else {
            return super::blocking(move || make(&ledger, None)).await.map(|(made, _)| Made::Now(made));
        };
        let (alone, this) = (self.recent.alone(&once).await, Arc::clone(self));
        let work = move || {
            let _alone = alone;
            if let Some(done) = ledger.done_before(&once)? {
                return Ok(before(done, &once));
            }
            let (made, tokens) = make(&ledger, Some(&once))?;
            this.recent.keep(&once, tokens);
            Ok(Ok(Made::Now(made)))
        };
        super::blocking(work).await?
    }
}

fn before<T>(done: Done, once: &Once) -> Result<Made<T>, Refusal> {
    if done.is_of(once) {
        return Ok(Made::Before(done.made.into()));
    }
    let detail = "this Idempotency-Key was used for another request; take a new one";
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tokens_make_room_for_the_newest() {
        let recent = Recent::default();
        let once = |number: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&number.to_be_bytes());
            Once { name, asked: [0; 32] }
        };
        for number in 0..MOST + 10 {
            recent.keep(&once(number), vec![("key_1".to_owned(), Zeroizing::new(format!("token {number}")))]);
        }
        let shown = |number| recent.find(Some(&once(number)), "key_1").map(|token| token.to_string());
        assert_eq!((shown(9), shown(10)), (None, Some("token 10".into())));
        assert_eq!(shown(MOST + 9), Some(format!("token {}", MOST + 9)));
        assert_eq!(recent.find(Some(&once(10)), "key_2"), None, "another one's");
    }
}
