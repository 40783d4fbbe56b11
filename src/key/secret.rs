//! Secrets: hashing them for the store, and three ways of checking one, from cheap to dear.
//!
//! 1. The *screen*, 32 bits of a SHA-256, turns away nearly every wrong secret for a known selector in
//!    under a microsecond, so that a flood of guesses never reaches Argon2. It tells an attacker who
//!    stole the store 32 of 190 bits, which leaves 158.
//! 2. The *remembered* digest: once Argon2 has said yes, the SHA-256 of the secret is kept in memory
//!    and compared in constant time from then on.
//! 3. Argon2id (RFC 9106) over the whole secret. A secret is 190 random bits, not a password, so its
//!    costs can be small.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordVerifier, Version};
use base64ct::{Base64Unpadded, Encoding};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::used::UseCell;
use super::{LastUsed, Presented, Selector, UseStamp};

/// What proves a key: the secret part of a token, 32 characters of base62; of a token that another system issued, all
/// of it. Zeroed when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    /// The secret part, or the SHA-256 of a foreign token.
    bytes: [u8; 32],
    /// A foreign token, whole.
    foreign: Option<Box<[u8]>>,
}

impl Secret {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, foreign: None }
    }

    pub(super) fn of_foreign(token: &[u8]) -> Self {
        Self { bytes: sha256(token), foreign: Some(token.into()) }
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The whole token, if another system issued it.
    pub(super) fn expose_foreign(&self) -> Option<&[u8]> {
        self.foreign.as_deref()
    }

    /// The secret that a token carries, as a value of its own: for work that outlives the request's text.
    pub fn of<'a>(token: impl Into<Presented<'a>>) -> Self {
        Self::new(*token.into().0)
    }

    /// A digest of this secret together with what it is to be checked against: equal for equal checks only.
    pub fn bound_digest(&self, selector: &Selector, phc: &Phc) -> [u8; 32] {
        // The secret and the selector have fixed lengths, so that the parts cannot run into each other.
        let bound = Sha256::new().chain_update(self.bytes).chain_update(selector.as_bytes());
        bound.chain_update(String::from(phc.clone())).finalize().into()
    }

    /// The screen to store beside the hash.
    pub fn screen(&self) -> Screen {
        Screen::of_secret(&self.bytes)
    }

    /// Hashes with Argon2id, version 1.3, and a fresh 16-byte salt. Slow by design: off the runtime.
    ///
    /// # Errors
    /// [`HashError`] when the costs are out of Argon2's range or there are no random bytes for a salt.
    pub fn hash(&self, cost: Cost) -> Result<Phc, HashError> {
        Phc::of(&self.bytes, cost)
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What Argon2 may cost: memory in KiB, passes over it, and lanes (RFC 9106, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Cost {
    fn params(self) -> Result<Params, HashError> {
        Params::new(self.memory_kib, self.iterations, self.parallelism, None)
            .map_err(|error| HashError::Cost(error.to_string()))
    }
}

impl Default for Cost {
    /// Under a millisecond: enough, since a secret is 190 random bits.
    fn default() -> Self {
        Self { memory_kib: 512, iterations: 1, parallelism: 1 }
    }
}

/// The most that a *stored* hash may ask of this machine. A record is data: without a ceiling,
/// whoever can write one could make the daemon allocate gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling(pub Cost);

impl Ceiling {
    /// The same parameters, when they are not above this.
    fn admit(self, params: Params) -> Result<Params, HashError> {
        let Self(most) = self;
        let above = params.m_cost() > most.memory_kib
            || params.t_cost() > most.iterations
            || params.p_cost() > most.parallelism;
        if above { Err(HashError::AboveCeiling) } else { Ok(params) }
    }
}

impl Default for Ceiling {
    fn default() -> Self {
        Self(Cost { memory_kib: 64 * 1024, iterations: 10, parallelism: 4 })
    }
}

/// Why a secret could not be hashed, or a stored hash not be checked.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The configured or stored costs are outside what Argon2 takes.
    #[error("Argon2 refuses these costs: {0}; see `[argon2]` in the configuration")]
    Cost(String),
    /// A stored hash asks for more than the ceiling.
    #[error("a stored hash asks for more than the ceiling of `[argon2]` allows; the secret is refused")]
    AboveCeiling,
    /// A stored hash is no Argon2id PHC string.
    #[error("a stored hash is not an Argon2id PHC string; the secret is refused")]
    Unreadable,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(#[from] getrandom::Error),
}

/// What a secret is held against: an Argon2id hash, in the PHC string format in records, packed in memory, where there
/// are many. Not a secret, and never shown all the same.
///
/// Of a token that another system issued, it is what that system kept of the whole token: `sha256:` and its digest in
/// hexadecimal digits, or the token's beginning and a PHC string behind it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct Phc(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// As we make them: version 1.3, 16 bytes of salt, 32 bytes of hash.
    Packed { cost: Cost, salt: [u8; 16], hash: [u8; 32] },
    /// Of a whole foreign token: its SHA-256.
    ForeignDigest([u8; 32]),
    /// Of a whole foreign token: how it begins, and a PHC string.
    ForeignPhc { start: Box<str>, phc: Box<str> },
    /// Any other text, of which some can be checked.
    Text(Box<str>),
}

impl Phc {
    /// A hash that accepts no secret: for a key that is only ever reasoned about.
    pub fn none() -> Self {
        Self(Form::Text("".into()))
    }

    /// Hashes bytes of any length, with a fresh salt.
    pub(crate) fn of(bytes: &[u8], cost: Cost) -> Result<Self, HashError> {
        let (mut salt, mut hash) = ([0; 16], [0; 32]);
        getrandom::fill(&mut salt)?;
        argon2id(cost.params()?)
            .hash_password_into(bytes, &salt, &mut hash)
            .map_err(|error| HashError::Cost(error.to_string()))?;
        Ok(Self(Form::Packed { cost, salt, hash }))
    }

    /// A hash of these costs that nobody knows the secret of: checking it costs what checking another does.
    pub(crate) fn decoy(cost: Cost) -> Self {
        Self(Form::Packed { cost, salt: [0; 16], hash: [0; 32] })
    }

    /// Of a foreign token whose SHA-256 this is.
    pub(super) fn of_foreign_digest(digest: [u8; 32]) -> Self {
        Self(Form::ForeignDigest(digest))
    }

    /// Of a foreign token that begins with `start` and hashed to this PHC string.
    pub(super) fn of_foreign_phc(start: &str, phc: &str) -> Self {
        Self(Form::ForeignPhc { start: start.into(), phc: phc.into() })
    }

    /// Whether it is of a token that another system issued.
    pub fn is_foreign(&self) -> bool {
        matches!(self.0, Form::ForeignDigest(_) | Form::ForeignPhc { .. })
    }

    /// How the foreign token begins, where it cannot be found by its digest.
    pub fn foreign_start(&self) -> Option<&str> {
        if let Form::ForeignPhc { start, .. } = &self.0 { Some(start) } else { None }
    }

    /// What is the same for a foreign token however the line that brought it was written.
    pub(super) fn foreign_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::ForeignDigest(digest) => Some(digest),
            Form::ForeignPhc { phc, .. } => Some(phc.as_bytes()),
            Form::Packed { .. } | Form::Text(_) => None,
        }
    }

    /// Refuses a hash that would never accept anything, without trying one.
    ///
    /// # Errors
    /// [`HashError`], as [`verify`](Self::verify) would say it.
    pub fn check(&self, ceiling: Ceiling) -> Result<(), HashError> {
        match &self.0 {
            Form::Packed { cost, .. } => ceiling.admit(cost.params()?).map(|_| ()),
            Form::ForeignDigest(_) => Ok(()),
            Form::ForeignPhc { phc, .. } | Form::Text(phc) => readable(phc, ceiling).map(|_| ()),
        }
    }

    /// What the hash cost, when it is written as we write it.
    pub(crate) fn cost(&self) -> Option<Cost> {
        if let Form::Packed { cost, .. } = self.0 { Some(cost) } else { None }
    }

    /// Whether this secret is the one that was hashed. Slow by design: off the runtime.
    ///
    /// # Errors
    /// [`HashError`] when the hash is not an Argon2id one or asks for more than the ceiling: both mean a deny.
    pub fn verify(&self, secret: &Secret, ceiling: Ceiling) -> Result<bool, HashError> {
        // What is kept of a foreign token is held against foreign tokens alone, and our own against our own.
        match (&self.0, &secret.foreign) {
            (Form::ForeignDigest(digest), Some(_)) => Ok(secret.bytes.ct_eq(digest).into()),
            (Form::ForeignPhc { phc, .. }, Some(token)) => verify_phc(phc, token, ceiling),
            (Form::Packed { .. } | Form::Text(_), None) => self.verify_bytes(&secret.bytes, ceiling),
            _ => Ok(false),
        }
    }

    /// The same for bytes of any length.
    pub(crate) fn verify_bytes(&self, bytes: &[u8], ceiling: Ceiling) -> Result<bool, HashError> {
        match &self.0 {
            Form::Packed { cost, salt, hash } => {
                let argon2 = argon2id(ceiling.admit(cost.params()?)?);
                let mut found = Zeroizing::new([0; 32]);
                let hashed = argon2.hash_password_into(bytes, salt, found.as_mut_slice());
                hashed.map_err(|error| HashError::Cost(error.to_string()))?;
                Ok(found.ct_eq(hash).into())
            }
            Form::Text(text) => verify_phc(text, bytes, ceiling),
            Form::ForeignDigest(_) | Form::ForeignPhc { .. } => Err(HashError::Unreadable),
        }
    }
}

fn verify_phc(text: &str, bytes: &[u8], ceiling: Ceiling) -> Result<bool, HashError> {
    let (phc, params) = readable(text, ceiling)?;
    Ok(argon2id(params).verify_password(bytes, &phc).is_ok())
}

/// An Argon2id PHC string that can be checked.
fn readable(text: &str, ceiling: Ceiling) -> Result<(PasswordHash, Params), HashError> {
    let phc = PasswordHash::new(text).map_err(|_| HashError::Unreadable)?;
    let params = ceiling.admit(Params::try_from(&phc).map_err(|_| HashError::Unreadable)?)?;
    if phc.algorithm != Algorithm::Argon2id.ident() || phc.salt.is_none() || phc.hash.is_none() {
        return Err(HashError::Unreadable);
    }
    Ok((phc, params))
}

/// Argon2id, version 1.3, made for one run. The only way to one, so that tests can count the runs.
fn argon2id(params: Params) -> Argon2<'static> {
    #[cfg(test)]
    runs::note(&params);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What Argon2 did on this thread.
#[cfg(test)]
pub(crate) mod runs {
    use std::cell::RefCell;

    use super::{Cost, Params};

    thread_local! {
        static RUNS: RefCell<Vec<Cost>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note(params: &Params) {
        let cost = Cost { memory_kib: params.m_cost(), iterations: params.t_cost(), parallelism: params.p_cost() };
        RUNS.with_borrow_mut(|runs| runs.push(cost));
    }

    /// The costs of the runs since it was asked last.
    pub(crate) fn take() -> Vec<Cost> {
        RUNS.take()
    }
}

/// How what is kept of a foreign token begins, when it is a SHA-256.
const DIGEST: &str = "sha256:";

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// 64 hexadecimal digits.
pub(super) fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2).filter(|_| is_hex)?, 16).ok()?;
    }
    Some(digest)
}

/// The packed form of a PHC string, when it is one of ours.
fn packed(text: &str) -> Option<Form> {
    let phc = PasswordHash::new(text).ok()?;
    let params = Params::try_from(&phc).ok()?;
    let cost = Cost { memory_kib: params.m_cost(), iterations: params.t_cost(), parallelism: params.p_cost() };
    let salt = phc.salt?.as_ref().try_into().ok()?;
    let hash = phc.hash?.as_bytes().try_into().ok()?;
    let form = Form::Packed { cost, salt, hash };
    // Whatever the packed form would lose (an unknown parameter, another version) keeps its text.
    (String::from(Phc(form.clone())) == text).then_some(form)
}

impl From<String> for Phc {
    fn from(text: String) -> Self {
        let form = match text.split_once('$') {
            Some((start, _)) if !start.is_empty() => {
                let (start, phc) = text.split_at(start.len());
                Some(Form::ForeignPhc { start: start.into(), phc: phc.into() })
            }
            _ => text.strip_prefix(DIGEST).and_then(digest_of_hex).map(Form::ForeignDigest).or_else(|| packed(&text)),
        };
        Self(form.unwrap_or_else(|| Form::Text(text.into_boxed_str())))
    }
}

impl From<Phc> for String {
    fn from(phc: Phc) -> Self {
        let (cost, salt, hash) = match phc.0 {
            Form::Packed { cost, salt, hash } => (cost, salt, hash),
            Form::Text(text) => return text.into_string(),
            Form::ForeignPhc { start, phc } => return format!("{start}{phc}"),
            Form::ForeignDigest(digest) => {
                return format!("{DIGEST}{}", hex(&digest));
            }
        };
        let Cost { memory_kib, iterations, parallelism } = cost;
        let mut buffer = [0; 43];
        let mut base64 =
            |bytes: &[u8]| Base64Unpadded::encode(bytes, &mut buffer).map(str::to_owned).unwrap_or_default();
        let (salt, hash) = (base64(&salt), base64(&hash));
        format!("$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}${salt}${hash}")
    }
}

impl fmt::Debug for Phc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phc(…)")
    }
}

/// The first 32 bits of the SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Screen(u32);

impl Screen {
    /// The screen beside [`Phc::none`].
    pub fn none() -> Self {
        Self(0)
    }

    pub(super) fn of_secret(secret: &[u8; 32]) -> Self {
        Self::of(&sha256(secret))
    }

    fn of(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *digest;
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen(…)")
    }
}

/// What is remembered in memory of a secret that Argon2 has accepted; empty until then.
///
/// The cell is written at most once and read without a lock. On the heap, because most keys of many are never used;
/// shared by its clones, so that a use that is noted while the record changes is noted in the record after, too.
#[derive(Default, Clone)]
pub struct Remembered(OnceLock<Arc<Proven>>);

struct Proven {
    digest: [u8; 32],
    used: UseCell,
}

/// What can be said of a presented secret without Argon2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance {
    /// It is the remembered one.
    Proven,
    /// It is another one.
    Wrong,
    /// It passes the screen and was never checked: Argon2 must say.
    Unproven,
}

impl Remembered {
    /// Compares the token's secret with what is stored and remembered, in constant time. Without a screen, what was
    /// never checked has to be.
    pub fn glance<'a>(&self, token: impl Into<Presented<'a>>, screen: Option<Screen>) -> Glance {
        let digest = sha256(token.into().0);
        if let Some(known) = self.0.get() {
            return if bool::from(known.digest.as_slice().ct_eq(&digest)) { Glance::Proven } else { Glance::Wrong };
        }
        let passes = screen.is_none_or(|screen| bool::from(Screen::of(&digest).0.ct_eq(&screen.0)));
        if passes { Glance::Unproven } else { Glance::Wrong }
    }

    /// Remembers a secret that Argon2 has just accepted for this very hash.
    pub fn remember(&self, secret: &Secret) {
        let _ = self.0.set(Arc::new(Proven { digest: sha256(&secret.bytes), used: UseCell::default() }));
    }

    /// Notes a use of the secret that is remembered.
    pub fn note_use(&self, now: Timestamp, address: Option<IpAddr>) {
        if let Some(known) = self.0.get() {
            known.used.note(now, address);
        }
    }

    /// The last use that was noted.
    pub fn last_used(&self) -> Option<LastUsed> {
        self.0.get()?.used.last()
    }

    /// The last use that was noted, if it is not the one that was kept elsewhere last.
    pub fn unkept_use(&self) -> Option<(UseStamp, LastUsed)> {
        self.0.get()?.used.unkept()
    }

    /// Says that the use of this stamp is kept elsewhere.
    pub fn keep_use(&self, stamp: UseStamp) {
        if let Some(known) = self.0.get() {
            known.used.keep(stamp);
        }
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Remembered(…)" } else { "Remembered(nothing)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Mint, Mode, Token};

    fn mint() -> Mint {
        Mint::new(Kind::Secret, Mode::Live).unwrap()
    }

    #[test]
    fn a_hash_accepts_its_own_secret_and_no_other() {
        let (mine, other) = (mint(), mint());
        let phc = mine.secret().hash(Cost::default()).unwrap();
        let text = String::from(phc.clone());
        assert!(text.starts_with("$argon2id$v=19$m=512,t=1,p=1$"));
        assert!(Phc::from(text) == phc);
        assert!(phc.verify(mine.secret(), Ceiling::default()).unwrap());
        assert!(!phc.verify(other.secret(), Ceiling::default()).unwrap());
    }

    #[test]
    fn a_stored_hash_above_the_ceiling_is_refused_before_any_memory_is_taken() {
        let salt_and_hash = "c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObGRdescudvJCs";
        for costs in ["m=4194304,t=1,p=1", "m=512,t=1000000,p=1", "m=512,t=1,p=64"] {
            let phc = Phc::from(format!("$argon2id$v=19${costs}${salt_and_hash}"));
            let error = phc.verify(mint().secret(), Ceiling::default()).unwrap_err();
            assert!(matches!(error, HashError::AboveCeiling), "{costs}: {error}");
        }
        for text in [
            "",
            "$2b$12$abc",
            "$argon2i$v=19$m=512,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCs",
            "$argon2id$v=19$m=512,t=1,p=1",
        ] {
            assert!(Phc::from(text.to_owned()).verify(mint().secret(), Ceiling::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_glance_never_proves_what_argon2_has_not_accepted() {
        let (mine, other) = (mint(), mint());
        let token = Token::parse(mine.expose().as_bytes()).unwrap();
        let wrong = Token::parse(other.expose().as_bytes()).unwrap();
        let remembered = Remembered::default();
        assert_eq!(remembered.glance(&token, Some(mine.secret().screen())), Glance::Unproven);
        assert_eq!(remembered.glance(&wrong, Some(mine.secret().screen())), Glance::Wrong);
        remembered.remember(mine.secret());
        assert_eq!(remembered.glance(&token, Some(mine.secret().screen())), Glance::Proven);
        assert_eq!(remembered.glance(&wrong, Some(mine.secret().screen())), Glance::Wrong);
        assert_eq!(remembered.glance(&wrong, Some(other.secret().screen())), Glance::Wrong);
    }

    #[test]
    fn debug_of_what_is_stored_shows_no_hash() {
        let mine = mint();
        let phc = mine.secret().hash(Cost::default()).unwrap();
        let remembered = Remembered::default();
        remembered.remember(mine.secret());
        let shown = format!("{phc:?} {remembered:?} {:?} {:?}", mine.secret(), mine.secret().screen());
        assert_eq!(shown, "Phc(…) Remembered(…) Secret(…) Screen(…)");
    }
}
