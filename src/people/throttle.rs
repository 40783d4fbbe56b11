//! How often a password may be tried: per user, per source of the attempts, and for a user at home.
//!
//! An attempt is counted as a failure when it *begins*, so that many at once cannot slip through between asking and
//! telling, and one that is never told of stays a failure. Who has failed too often waits, from a second up to a
//! quarter of an hour, twice as long each time; failures are forgotten one by one.
//!
//! - The *user* is whoever the e-mail address names, whether there is such a user or not: nothing is learned.
//!   A sign-in that succeeds forgets all failures of the user.
//! - The *source* is an IPv4 address or an IPv6 /64, which is what one customer of a network has. A sign-in that
//!   succeeds takes back its own attempt only, or a good account would make guessing at the others free.
//! - A user is *at home* at a source from which they have signed in. There, tries at their name are counted by
//!   themselves: tries elsewhere, and tries at other names from there, neither hinder them nor are forgotten when
//!   they succeed. Without this anybody could lock a user out by failing in their name. (It is what OWASP calls
//!   device cookies, with the address for the cookie.) What remains: while somebody attacks their name, a user comes
//!   in by luck alone from a new place, from an address that they share with the attacker, or after a restart,
//!   which forgets all homes.
//!
//! The source must be the client's own address. Behind a proxy that hides it, all people are one source.
//!
//! Memory is bounded, and a flood of names and addresses flushes nothing: see `tally.rs`. Names and addresses are kept
//! as keyed hashes only.
//!
//! Written here because the well-kept crate, `governor`, knows rates but no backoff and no taking back, and holds
//! an entry for each key that it ever saw until it is told to sweep.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Email;
use super::tally::{Limit, Mark, Tally};

/// Too many attempts: none may be made for this long. It says nothing about the password or the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts to sign in; try again in {} s", self.seconds())]
pub struct RetryAfter(pub Duration);

impl RetryAfter {
    /// The wait in whole seconds, rounded up: for the header of the same name (RFC 9110, section 10.2.3).
    pub fn seconds(&self) -> u64 {
        self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0)
    }
}

/// An attempt that may be made now, and is counted as a failure unless the [`Throttle`] is told otherwise.
#[must_use = "tell the throttle when it succeeded; dropped, it stays a failure"]
#[derive(Debug)]
pub struct Attempt {
    home: u64,
    counted: Counted,
}

/// Where an attempt was counted.
#[derive(Debug)]
enum Counted {
    AtHome(Mark),
    Away { user: Mark, source: Mark },
}

/// Counts attempts to sign in. Shared by all who take them; the time is an argument.
pub struct Throttle {
    /// Keyed at random, so that nobody can choose with whom they share a set.
    hasher: RandomState,
    /// Guards all counts together: an attempt is let through and counted in one step. Held for some dozens of
    /// comparisons, which is nothing beside Argon2.
    tables: Mutex<Tables>,
}

struct Tables {
    users: Tally,
    sources: Tally,
    /// Who is at home where; a user without an entry here is away.
    homes: Tally,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Throttle {
    /// One that has seen nothing.
    pub fn new() -> Self {
        let person = Limit { free: 5, forgets_every: Duration::from_mins(15) };
        // Many people may sit behind one address.
        let place = Limit { free: 20, forgets_every: Duration::from_mins(5) };
        let tables = Tables { users: Tally::new(person), sources: Tally::new(place), homes: Tally::new(person) };
        Self { hasher: RandomState::new(), tables: Mutex::new(tables) }
    }

    /// Asks whether a password may be tried now, and counts that as a failure if so.
    ///
    /// # Errors
    /// [`RetryAfter`] when it may not; to have asked is not counted.
    pub fn begin(&self, source: IpAddr, email: &Email, now: Instant) -> Result<Attempt, RetryAfter> {
        let network = network(source);
        let user = self.hasher.hash_one(email);
        let source = self.hasher.hash_one(network);
        let home = self.hasher.hash_one((network, email));
        let mut guard = self.lock();
        let Tables { users, sources, homes } = &mut *guard;
        let counted = if homes.holds(home) {
            open(homes.wait(home, now))?;
            Counted::AtHome(homes.fail(home, now))
        } else {
            open(users.wait(user, now).max(sources.wait(source, now)))?;
            Counted::Away { user: users.fail(user, now), source: sources.fail(source, now) }
        };
        Ok(Attempt { home, counted })
    }

    /// The password was right: the user has not failed, and is at home where the attempt came from.
    pub fn succeeded(&self, attempt: Attempt, now: Instant) {
        let mut tables = self.lock();
        if let Counted::Away { user, source } = attempt.counted {
            tables.users.clear(user.subject, now);
            tables.sources.take_back(&source);
        }
        tables.homes.clear(attempt.home, now);
    }

    /// Nobody looked at the password, for want of memory or time: the attempt is as if it had not been.
    pub fn abandoned(&self, attempt: Attempt) {
        let mut tables = self.lock();
        match attempt.counted {
            Counted::AtHome(home) => tables.homes.take_back(&home),
            Counted::Away { user, source } => {
                tables.users.take_back(&user);
                tables.sources.take_back(&source);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Each change of a count is whole, so that a panic elsewhere leaves nothing half done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

fn open(wait: Duration) -> Result<(), RetryAfter> {
    if wait.is_zero() { Ok(()) } else { Err(RetryAfter(wait)) }
}

/// What one customer of a network has: an IPv4 address, or the first 64 bits of an IPv6 one.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const DAY: Duration = Duration::from_hours(24);

    fn email(name: &str) -> Email {
        format!("{name}@example.com").parse().unwrap()
    }

    /// An address of its own /64 for each number.
    fn place(number: u64) -> IpAddr {
        Ipv6Addr::from((u128::from(number) << 64) | 1 << 127).into()
    }

    fn wait(throttle: &Throttle, source: IpAddr, name: &str, now: Instant) -> Duration {
        throttle.begin(source, &email(name), now).err().map_or(Duration::ZERO, |RetryAfter(wait)| wait)
    }

    /// Fails until a wait is asked for, and says after how many failures that was.
    fn failures_until_a_wait(throttle: &Throttle, source: impl Fn(u64) -> IpAddr, name: &str, now: Instant) -> u64 {
        (0..100).find(|at| wait(throttle, source(*at), name, now) > Duration::ZERO).unwrap()
    }

    fn sign_in(throttle: &Throttle, source: IpAddr, name: &str, now: Instant) {
        let attempt = throttle.begin(source, &email(name), now).unwrap();
        throttle.succeeded(attempt, now);
    }

    #[test]
    fn five_failures_are_free_and_then_the_wait_doubles_to_a_quarter_of_an_hour() {
        let (throttle, mut now) = (Throttle::new(), Instant::now());
        let (mut free, mut waits) = (0, vec![]);
        for number in 0..30 {
            match throttle.begin(place(number), &email("ada"), now) {
                Ok(_) => free += u32::from(waits.is_empty()),
                Err(RetryAfter(wait)) => {
                    waits.push(wait.as_secs());
                    let early = now + wait.saturating_sub(Duration::from_nanos(1));
                    assert!(throttle.begin(place(number), &email("ada"), early).is_err());
                    now += wait;
                }
            }
        }
        assert_eq!(free, 5);
        assert!(waits.starts_with(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512]), "{waits:?}");
        assert_eq!(waits.iter().max(), Some(&900));
        assert_eq!(waits.last(), Some(&900));
    }

    #[test]
    fn failures_are_forgotten_one_by_one() {
        let (throttle, now) = (Throttle::new(), Instant::now());
        assert_eq!(failures_until_a_wait(&throttle, place, "ada", now), 5);
        assert_eq!(failures_until_a_wait(&throttle, place, "ada", now + 15 * MINUTE), 1);
        assert_eq!(failures_until_a_wait(&throttle, place, "ada", now + 200 * MINUTE), 5);
    }

    #[test]
    fn a_success_forgets_the_failures_of_the_user_but_not_those_of_the_source() {
        let (throttle, now, office) = (Throttle::new(), Instant::now(), place(1));
        for _ in 0..4 {
            let _failed = throttle.begin(office, &email("ada"), now).unwrap();
        }
        sign_in(&throttle, office, "ada", now);
        assert_eq!(failures_until_a_wait(&throttle, |at| place(at + 9), "ada", now), 5);
        // 4 of the 20 that are free to a source are gone, and the success was none.
        let others = (0..100).find(|at| wait(&throttle, office, &format!("user{at}"), now) > Duration::ZERO);
        assert_eq!(others, Some(16));
    }

    #[test]
    fn good_accounts_do_not_make_guessing_at_others_free() {
        let (throttle, mut now) = (Throttle::new(), Instant::now());
        let mut guesses = 0;
        for second in 0..DAY.as_secs() / 4 {
            now += Duration::from_secs(1);
            guesses += u32::from(throttle.begin(place(1), &email(&format!("user{second}")), now).is_ok());
            if let Ok(attempt) = throttle.begin(place(1), &email(&format!("mallory{second}")), now) {
                throttle.succeeded(attempt, now);
            }
        }
        assert!(guesses <= 20 + 10 + 72, "{guesses}");
    }

    #[test]
    fn a_day_of_guessing_at_one_user_from_many_places_is_some_hundred_tries() {
        let (throttle, start) = (Throttle::new(), Instant::now());
        let tries = (0..DAY.as_secs())
            .filter(|second| wait(&throttle, place(*second), "ada", start + Duration::from_secs(*second)).is_zero())
            .count();
        assert!((96..=115).contains(&tries), "{tries}");
    }

    #[test]
    fn a_user_at_home_is_not_locked_out_by_what_others_do() {
        let (throttle, mut now, home) = (Throttle::new(), Instant::now(), place(1));
        sign_in(&throttle, home, "ada", now);
        for number in 0..1_000 {
            now += Duration::from_secs(1);
            let _ = throttle.begin(place(2 + number), &email("ada"), now);
            let _ = throttle.begin(home, &email(&format!("user{number}")), now);
        }
        assert!(wait(&throttle, place(5_000), "ada", now) > Duration::ZERO);
        assert!(wait(&throttle, home, "nobody", now) > Duration::ZERO);
        sign_in(&throttle, home, "ada", now);
        // That they came in says nothing of those who failed.
        assert!(wait(&throttle, place(5_000), "ada", now) > Duration::ZERO);
    }

    #[test]
    fn guesses_at_a_users_home_are_throttled_too_and_by_themselves() {
        let (throttle, now, home) = (Throttle::new(), Instant::now(), place(1));
        sign_in(&throttle, home, "ada", now);
        assert_eq!(failures_until_a_wait(&throttle, |_| home, "ada", now), 5);
        assert_eq!(wait(&throttle, place(2), "ada", now), Duration::ZERO);
    }

    #[test]
    fn a_source_is_an_address_of_version_4_or_64_bits_of_version_6() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("0.0.0.1", "::1", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(network(one) == network(other), is_same, "{one} {other}");
        }
        let (throttle, now) = (Throttle::new(), Instant::now());
        let host = |number: u32| Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number)).into();
        let tries = (0..100).filter(|at| wait(&throttle, host(*at), &format!("user{at}"), now).is_zero()).count();
        assert_eq!(tries, 20);
    }

    #[test]
    fn attempts_at_once_do_not_slip_through() {
        let (throttle, now, barrier) = (Throttle::new(), Instant::now(), Barrier::new(32));
        let begun: usize = std::thread::scope(|scope| {
            let attempt = |number| {
                let (throttle, barrier) = (&throttle, &barrier);
                move || {
                    barrier.wait();
                    usize::from(throttle.begin(place(number), &email("ada"), now).is_ok())
                }
            };
            let threads: Vec<_> = (0..32).map(|number| scope.spawn(attempt(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(begun, 5);
    }

    #[test]
    fn an_abandoned_attempt_is_as_if_it_had_not_been() {
        let (throttle, now, home) = (Throttle::new(), Instant::now(), place(1));
        for _ in 0..100 {
            throttle.abandoned(throttle.begin(home, &email("ada"), now).unwrap());
        }
        assert_eq!(failures_until_a_wait(&throttle, place, "ada", now), 5);
        let later = now + MINUTE;
        let attempt = throttle.begin(place(9), &email("ada"), later).unwrap();
        assert!(wait(&throttle, place(9), "ada", later) > Duration::ZERO);
        throttle.abandoned(attempt);
        assert_eq!(wait(&throttle, place(9), "ada", later), Duration::ZERO);
        sign_in(&throttle, home, "eve", now);
        for _ in 0..100 {
            throttle.abandoned(throttle.begin(home, &email("eve"), now).unwrap());
        }
    }

    #[test]
    fn a_refusal_says_how_long_and_nothing_else() {
        for (wait, seconds) in [(1, 1), (1_000, 1), (1_001, 2), (900_000, 900)] {
            assert_eq!(RetryAfter(Duration::from_millis(wait)).seconds(), seconds);
        }
        let shown = RetryAfter(Duration::from_millis(1_500)).to_string();
        assert_eq!(shown, "too many attempts to sign in; try again in 2 s");
    }
}
