//! Passwords: what may be one, how one is kept, and checking one without telling who exists.
//!
//! A password is hashed with Argon2id at the costs of the OWASP Password Storage Cheat Sheet: 19 MiB, two
//! passes, one lane. It may be anything of 12 to 128 characters; NIST SP 800-63B (section 3.1.1.2) forbids rules
//! on what they must be. A sign-in costs one run of Argon2 whoever asks: for an unknown, disabled or
//! password-less user a decoy of the same cost is checked, and the answer is no.
//!
//! Nothing here is remembered between two sign-ins, and no password is ever printed or stored.

use std::fmt;
use std::hint::black_box;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::{Email, PeopleError};
use crate::key::{Ceiling, Cost, HashError, Phc};

/// What a password's hash costs: OWASP's minimum for Argon2id.
const COST: Cost = Cost { memory_kib: 19_456, iterations: 2, parallelism: 1 };
/// The most that a stored hash may ask for, so that raising [`COST`] some day needs no second thought.
const CEILING: Ceiling = Ceiling(Cost { memory_kib: 64 * 1024, iterations: 10, parallelism: 4 });
/// Characters of the shortest and the longest password that may be chosen.
const LENGTHS: std::ops::RangeInclusive<usize> = 12..=128;

/// A password as somebody typed it. Zeroed when dropped, never printed.
///
/// It is brought to Unicode's form NFKC, so that two keyboards that write the same letter in two ways do not lock
/// anybody out.
pub struct Password(Zeroizing<String>);

impl Password {
    /// A password that a user wants to have.
    ///
    /// # Errors
    /// [`PeopleError::PasswordLength`] and [`PeopleError::PasswordIsEmail`].
    pub fn chosen(text: &str, email: &Email) -> Result<Self, PeopleError> {
        let password = Self::typed(text)?;
        if !LENGTHS.contains(&password.0.chars().count()) {
            return Err(PeopleError::PasswordLength);
        }
        if password.0.eq_ignore_ascii_case(email.as_str()) {
            return Err(PeopleError::PasswordIsEmail);
        }
        Ok(password)
    }

    /// A first password for somebody, of 100 bits from the system, in groups that can be read out: for them to change.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn made() -> Result<Zeroizing<String>, getrandom::Error> {
        // Without the letters and digits that are taken for one another; 32, so that each is as likely.
        const CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut bytes = Zeroizing::new([0; 20]);
        getrandom::fill(&mut *bytes)?;
        let mut text = Zeroizing::new(String::with_capacity(23));
        for (at, byte) in bytes.iter().enumerate() {
            if at > 0 && at.is_multiple_of(5) {
                text.push('-');
            }
            text.extend(CHARACTERS.get(usize::from(byte % 32)).copied().map(char::from));
        }
        Ok(text)
    }

    /// A password that somebody signs in with. A short one is looked at, too: it may have been chosen under
    /// other rules. A long one is not, since it would be work for nothing.
    ///
    /// # Errors
    /// [`PeopleError::PasswordLength`] for one that is longer than any may be: answer as for a wrong password.
    pub fn typed(text: &str) -> Result<Self, PeopleError> {
        if text.chars().count() > *LENGTHS.end() {
            return Err(PeopleError::PasswordLength);
        }
        // Measured first: a text that grew while it is written would leave copies behind.
        let length = text.nfkc().map(char::len_utf8).sum();
        let mut normal = Zeroizing::new(String::with_capacity(length));
        normal.extend(text.nfkc());
        if normal.chars().count() > *LENGTHS.end() {
            return Err(PeopleError::PasswordLength);
        }
        Ok(Self(normal))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What the store keeps of a password: an Argon2id hash in the PHC string format. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(Phc);

impl PasswordHash {
    /// Hashes a password at today's costs with a fresh salt. Slow by design: off the runtime.
    ///
    /// # Errors
    /// [`HashError`] when there are no random bytes for a salt.
    pub fn hash(password: &Password) -> Result<Self, HashError> {
        Phc::of(password.0.as_bytes(), COST).map(Self)
    }

    /// Whether a password could be held against it: nobody would get in with what is no hash of ours.
    pub fn can_be_checked(&self) -> bool {
        !self.0.is_foreign() && self.0.check(CEILING).is_ok()
    }

    /// Whether the hash is cheaper than one made today, or written in another way: after the next sign-in that
    /// succeeds, hash the password anew and store that.
    pub fn is_outdated(&self) -> bool {
        self.0.cost().is_none_or(|cost| cost.memory_kib < COST.memory_kib || cost.iterations < COST.iterations)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Whether `password` is the one that was hashed, for the work of one hash in either case. `None` stands for a
/// user who does not exist or cannot sign in, see [`User::usable_password`](super::User::usable_password). Slow by
/// design, and 19 MiB of memory: off the runtime, few at once.
///
/// # Errors
/// [`HashError`] when the stored hash cannot be checked: log it, and answer as for a wrong password.
pub fn verify(stored: Option<&PasswordHash>, password: &Password) -> Result<bool, HashError> {
    let Some(PasswordHash(phc)) = stored else {
        return verify_nobody(password);
    };
    phc.verify_bytes(password.0.as_bytes(), CEILING).inspect_err(|_| {
        // A hash that was refused unread cost nothing, which would tell that there is one.
        let _ = verify_nobody(password);
    })
}

/// Does the work of checking a password, and says no.
///
/// # Errors
/// None that the costs of today can cause.
pub fn verify_nobody(password: &Password) -> Result<bool, HashError> {
    black_box(Phc::decoy(COST).verify_bytes(password.0.as_bytes(), CEILING))?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::runs;

    const SENTENCE: &str = "correct horse battery staple";

    fn email() -> Email {
        "ada.lovelace@example.com".parse().unwrap()
    }

    fn typed(text: &str) -> Password {
        Password::typed(text).unwrap()
    }

    fn stored(text: &str) -> PasswordHash {
        serde_json::from_value(text.into()).unwrap()
    }

    #[test]
    fn a_password_is_12_to_128_characters_of_any_kind_and_not_the_address() {
        let cases = [
            (String::new(), Some(PeopleError::PasswordLength)),
            ("elevenchars".into(), Some(PeopleError::PasswordLength)),
            ("twelve chars".into(), None),
            ("            ".into(), None),
            ("密".repeat(12), None),
            ("密".repeat(11), Some(PeopleError::PasswordLength)),
            ("é".repeat(128), None),
            ("x".repeat(129), Some(PeopleError::PasswordLength)),
            // One character that stands for 18.
            ("\u{fdfa}".repeat(128), Some(PeopleError::PasswordLength)),
            ("ada.lovelace@example.com".into(), Some(PeopleError::PasswordIsEmail)),
            ("Ada.Lovelace@Example.com".into(), Some(PeopleError::PasswordIsEmail)),
        ];
        for (text, refused) in cases {
            assert_eq!(Password::chosen(&text, &email()).err(), refused, "{text}");
        }
    }

    #[test]
    fn a_hash_accepts_its_own_password_and_no_other() {
        let hash = PasswordHash::hash(&typed(SENTENCE)).unwrap();
        assert!(verify(Some(&hash), &typed(SENTENCE)).unwrap());
        for other in
            ["", "Correct horse battery staple", "correct horse battery stapl", "correct horse battery staple "]
        {
            assert!(!verify(Some(&hash), &typed(other)).unwrap(), "{other}");
        }
    }

    #[test]
    fn the_same_letters_are_the_same_password_however_they_are_written() {
        let hash = PasswordHash::hash(&typed("caf\u{e9} au lait, ﬁn")).unwrap();
        assert!(verify(Some(&hash), &typed("cafe\u{301} au lait, fin")).unwrap());
    }

    #[test]
    fn a_stored_hash_is_a_phc_string_at_todays_costs_and_reads_back() {
        let hash = PasswordHash::hash(&typed(SENTENCE)).unwrap();
        let written = serde_json::to_value(&hash).unwrap();
        assert!(written.as_str().unwrap().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{written}");
        assert_eq!(serde_json::from_value::<PasswordHash>(written).unwrap(), hash);
        assert!(!hash.is_outdated());
    }

    #[test]
    fn a_hash_below_todays_costs_or_of_another_form_is_outdated() {
        let rest = "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for (costs, outdated) in [
            ("v=19$m=19456,t=2,p=1", false),
            ("v=19$m=65536,t=3,p=4", false),
            ("v=19$m=19455,t=2,p=1", true),
            ("v=19$m=65536,t=1,p=1", true),
            ("v=16$m=19456,t=2,p=1", true),
        ] {
            assert_eq!(stored(&format!("$argon2id${costs}${rest}")).is_outdated(), outdated, "{costs}");
        }
        assert!(stored("").is_outdated());
    }

    #[test]
    fn a_known_and_an_unknown_user_cost_the_same_work() {
        let hash = PasswordHash::hash(&typed(SENTENCE)).unwrap();
        let unreadable = [stored(""), stored("$2b$12$abc"), stored("$argon2id$v=19$m=4194304,t=1,p=1$AAAA$AAAA")];
        runs::take();
        assert!(verify(Some(&hash), &typed(SENTENCE)).unwrap());
        assert_eq!(runs::take(), [COST]);
        assert!(!verify(Some(&hash), &typed("wrong")).unwrap());
        assert_eq!(runs::take(), [COST]);
        assert!(!verify(None, &typed(SENTENCE)).unwrap());
        assert_eq!(runs::take(), [COST]);
        assert!(!verify_nobody(&typed(SENTENCE)).unwrap());
        assert_eq!(runs::take(), [COST]);
        for hash in unreadable {
            assert!(verify(Some(&hash), &typed(SENTENCE)).is_err());
            assert_eq!(runs::take(), [COST]);
        }
    }

    #[test]
    fn debug_shows_neither_password_nor_hash() {
        let password = typed(SENTENCE);
        let hash = PasswordHash::hash(&password).unwrap();
        assert_eq!(format!("{password:?} {hash:?}"), "Password(…) PasswordHash(…)");
    }

    proptest! {
        #[test]
        fn what_may_be_chosen_may_be_typed(text in "\\PC{0,140}") {
            if Password::chosen(&text, &email()).is_ok() {
                prop_assert!(Password::typed(&text).is_ok());
            }
        }

        #[test]
        fn any_text_is_taken_or_refused_with_its_memory_measured(text in any::<String>()) {
            if let Ok(password) = Password::typed(&text) {
                prop_assert!(password.0.chars().count() <= 128);
                prop_assert_eq!(password.0.capacity(), password.0.len());
            }
        }
    }
}
