//! Who is signed in, in which browser.
//!
//! A browser holds a random cookie; the session that it names is in memory, under the cookie's digest. A session ends
//! when it was not used for an hour, after twelve hours, when its person signs out, when the token behind it dies
//! (which a changed password and a shut-out person bring about), and with the process.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How long a session may rest.
const IDLE: Duration = Duration::from_hours(1);
/// How long a session lasts; the token behind it lasts as long.
const LONGEST: Duration = Duration::from_hours(12);
/// Sessions of one person; the one that rested longest gives way.
const MOST_OF_ONE: usize = 20;
/// Messages that wait for a page to tell them.
const MOST_NOTICES: usize = 8;
/// Tokens that wait for a page to show them; more, and the oldest is not shown any more.
const MOST_FRESH: usize = 64;

/// A session's name, as its cookie has it. Whoever holds it is the person.
pub type Cookie = Zeroizing<String>;

/// What a page tells once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether something went wrong.
    pub is_error: bool,
    /// The sentence.
    pub text: String,
}

/// A token that the next page shows, and no page after it.
#[derive(Clone)]
pub struct Fresh {
    /// What it belongs to: a key's or a token's id.
    pub of: String,
    /// The token.
    pub token: Zeroizing<String>,
}

/// What is held of a session.
#[derive(Clone)]
pub struct Session {
    /// The token of the management API that stands behind it.
    pub token: Zeroizing<String>,
    /// Its identity: `tok_…`.
    pub token_id: String,
    /// Whose it is: `usr_…`.
    pub user: String,
    /// What each form carries, so that no other site can send one.
    csrf: Zeroizing<String>,
    began: Instant,
    used: Instant,
    notices: Vec<Notice>,
    fresh: Vec<Fresh>,
}

impl Session {
    /// What each form has to carry.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whether a form came from one of this session's pages.
    pub fn is_ours(&self, csrf: &str) -> bool {
        bool::from(self.csrf.as_bytes().ct_eq(csrf.as_bytes()))
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= IDLE || now.duration_since(self.began) >= LONGEST
    }
}

type Name = [u8; 32];

/// All sessions.
#[derive(Default)]
pub struct Sessions {
    /// Held for a look or a change, never across a wait. By the cookie's digest: how long a look-up takes says nothing
    /// about cookies.
    held: Mutex<HashMap<Name, Session>>,
}

/// A text that nobody can guess: 256 bits from the system, in hexadecimal digits, so that it looks like no token of ours.
///
/// # Errors
/// When the system gives no randomness.
pub fn random() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes)?;
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in *bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn name(cookie: &str) -> Name {
    Sha256::digest(cookie.as_bytes()).into()
}

impl Sessions {
    /// Begins a session; its cookie.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn begin(
        &self,
        user: &str,
        token: Zeroizing<String>,
        token_id: String,
        now: Instant,
    ) -> Result<Cookie, getrandom::Error> {
        let (cookie, csrf) = (random()?, random()?);
        let mut held = self.held();
        held.retain(|_, session| !session.is_over(now));
        let mut of_user: Vec<(Instant, Name)> =
            held.iter().filter(|(_, held)| held.user == user).map(|(name, held)| (held.used, *name)).collect();
        of_user.sort_unstable();
        for (_, oldest) in of_user.iter().take((of_user.len() + 1).saturating_sub(MOST_OF_ONE)) {
            held.remove(oldest);
        }
        let (notices, fresh) = (Vec::new(), Vec::new());
        let session = Session { token, token_id, user: user.to_owned(), csrf, began: now, used: now, notices, fresh };
        held.insert(name(&cookie), session);
        Ok(cookie)
    }

    /// The session of this cookie, which is used by looking.
    pub fn find(&self, cookie: &str, now: Instant) -> Option<Session> {
        let name = name(cookie);
        let mut held = self.held();
        let session = held.get_mut(&name)?;
        if session.is_over(now) {
            held.remove(&name);
            return None;
        }
        session.used = now;
        Some(session.clone())
    }

    /// Has the next page tell this.
    pub fn tell(&self, cookie: &str, notice: Notice) {
        self.with(cookie, |session| {
            if session.notices.len() < MOST_NOTICES {
                session.notices.push(notice);
            }
        });
    }

    /// What is to be told, which is forgotten here.
    pub fn told(&self, cookie: &str) -> Vec<Notice> {
        self.with(cookie, |session| std::mem::take(&mut session.notices)).unwrap_or_default()
    }

    /// Keeps tokens for the page that shows them, beside those that wait for another.
    pub fn keep(&self, cookie: &str, fresh: Vec<Fresh>) {
        self.with(cookie, |session| {
            session.fresh.retain(|waiting| fresh.iter().all(|newer| newer.of != waiting.of));
            session.fresh.extend(fresh);
            let over = session.fresh.len().saturating_sub(MOST_FRESH);
            session.fresh.drain(..over);
        });
    }

    /// What tokens wait for: keys' and tokens' ids, the oldest first.
    pub fn waiting(&self, cookie: &str) -> Vec<String> {
        let ids = |session: &mut Session| session.fresh.iter().map(|fresh| fresh.of.clone()).collect();
        self.with(cookie, ids).unwrap_or_default()
    }

    /// The tokens that were kept for what this answers true to, which are forgotten here.
    pub fn take(&self, cookie: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Fresh> {
        let take = |session: &mut Session| session.fresh.extract_if(.., |fresh| is_wanted(&fresh.of)).collect();
        self.with(cookie, take).unwrap_or_default()
    }

    /// Ends one session.
    pub fn end(&self, cookie: &str) {
        self.held().remove(&name(cookie));
    }

    /// Ends all sessions of a person; how many there were.
    pub fn end_all(&self, user: &str) -> usize {
        let mut held = self.held();
        let before = held.len();
        held.retain(|_, session| session.user != user);
        before - held.len()
    }

    fn with<T>(&self, cookie: &str, change: impl FnOnce(&mut Session) -> T) -> Option<T> {
        self.held().get_mut(&name(cookie)).map(change)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Name, Session>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(sessions: &Sessions, user: &str, now: Instant) -> Cookie {
        sessions.begin(user, Zeroizing::new("kw_token".into()), "tok_1".into(), now).unwrap()
    }

    #[test]
    fn a_session_ends_when_it_rests_and_lasts_when_it_is_used() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let cookie = begin(&sessions, "usr_1", start);
        let mut now = start;
        for _ in 0..11 {
            now += Duration::from_mins(59);
            assert!(sessions.find(&cookie, now).is_some());
        }
        assert!(sessions.find(&cookie, now + IDLE).is_none(), "it rested");
        assert!(sessions.find(&cookie, now).is_none(), "it is over for good");
    }

    #[test]
    fn a_session_ends_after_its_time_however_much_it_is_used() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let cookie = begin(&sessions, "usr_1", start);
        let mut now = start;
        while now < start + LONGEST {
            assert!(sessions.find(&cookie, now).is_some());
            now += IDLE / 2;
        }
        assert!(sessions.find(&cookie, now).is_none());
    }

    #[test]
    fn no_cookie_but_its_own_names_a_session_and_no_form_but_its_own_is_taken() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, other) = (begin(&sessions, "usr_1", now), begin(&sessions, "usr_1", now));
        assert_ne!(one, other);
        assert!(sessions.find("", now).is_none());
        let (one, other) = (sessions.find(&one, now).unwrap(), sessions.find(&other, now).unwrap());
        assert!(one.is_ours(one.csrf()));
        assert!(!one.is_ours(other.csrf()) && !one.is_ours(""));
    }

    #[test]
    fn what_is_shown_once_is_shown_once_and_to_its_own_session() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, other) = (begin(&sessions, "usr_1", now), begin(&sessions, "usr_1", now));
        sessions.keep(&one, vec![Fresh { of: "key_1".into(), token: Zeroizing::new("secret".into()) }]);
        assert!(sessions.take(&other, |_| true).is_empty());
        assert!(sessions.take(&one, |of| of == "key_2").is_empty());
        assert_eq!(sessions.take(&one, |of| of == "key_1").len(), 1);
        assert!(sessions.take(&one, |of| of == "key_1").is_empty());
    }

    #[test]
    fn a_token_that_waits_is_not_lost_for_another_and_of_one_thing_only_the_newest_waits() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let cookie = begin(&sessions, "usr_1", now);
        let fresh = |of: &str, token: &str| Fresh { of: of.into(), token: Zeroizing::new(token.into()) };
        sessions.keep(&cookie, vec![fresh("key_1", "a"), fresh("key_2", "b")]);
        sessions.keep(&cookie, vec![fresh("key_3", "c")]);
        sessions.keep(&cookie, vec![fresh("key_1", "d")]);
        assert_eq!(sessions.waiting(&cookie), ["key_2", "key_3", "key_1"]);
        let newest = sessions.take(&cookie, |of| of == "key_1");
        assert_eq!(newest.iter().map(|fresh| fresh.token.as_str()).collect::<Vec<_>>(), ["d"]);
        (0..2 * MOST_FRESH).for_each(|at| sessions.keep(&cookie, vec![fresh(&format!("key_{at}"), "e")]));
        assert_eq!(sessions.waiting(&cookie).len(), MOST_FRESH);
    }

    #[test]
    fn signing_out_everywhere_ends_all_sessions_of_the_person_alone() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, two, other) =
            (begin(&sessions, "usr_1", now), begin(&sessions, "usr_1", now), begin(&sessions, "usr_2", now));
        assert_eq!(sessions.end_all("usr_1"), 2);
        assert!(sessions.find(&one, now).is_none() && sessions.find(&two, now).is_none());
        assert!(sessions.find(&other, now).is_some());
    }

    #[test]
    fn a_person_has_so_many_sessions_and_the_one_that_rested_longest_gives_way() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let cookies: Vec<_> =
            (0..=MOST_OF_ONE).map(|n| begin(&sessions, "usr_1", start + Duration::from_secs(n as u64))).collect();
        let now = start + Duration::from_mins(1);
        let alive = cookies.iter().filter(|cookie| sessions.find(cookie, now).is_some()).count();
        assert_eq!(alive, MOST_OF_ONE);
        assert!(sessions.find(&cookies[0], now).is_none());
    }
}
