//! Keys: their list, making one, looking at one, changing it.

pub mod change;
pub mod create;
pub mod edit;
pub mod list;
pub mod one;
mod scopes;

use jiff::{SignedDuration, Timestamp};

use super::api::{Client, Problem};
use super::show::Moment;
use crate::http::manage::view::{KeyState, KeyView};
use crate::key::{Kind, LastUsed};

/// How long before something is due a key's page says so.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 7);

/// A key, as pages show it.
pub struct Shown {
    /// What the API says of it.
    pub key: KeyView,
    now: Timestamp,
}

impl Shown {
    /// A key, seen from `now`.
    pub fn new(key: KeyView, now: Timestamp) -> Self {
        Self { key, now }
    }

    /// What its token looks like, as far as that is no secret.
    pub fn mask(&self) -> String {
        masked(self.key.start.as_deref(), self.key.last_four.as_deref())
    }

    /// The same of the token that is being rotated out.
    pub fn old_mask(&self) -> String {
        masked(self.key.start.as_deref(), self.key.old_last_four.as_deref())
    }

    /// Its state in a word, and the colour of it.
    pub fn state(&self) -> (&'static str, &'static str) {
        match self.key.state {
            KeyState::Active if self.key.old_secret_ends_at.is_some() => ("Rotating", "accent"),
            KeyState::Active => ("Active", "good"),
            KeyState::Disabled => ("Disabled", "warn"),
            KeyState::Expired => ("Expired", ""),
            KeyState::Compromised => ("Compromised", "bad"),
            KeyState::Revoked => ("Revoked", ""),
        }
    }

    /// Its kind in a word.
    pub fn kind(&self) -> &'static str {
        match self.key.kind {
            Kind::Publishable => "Publishable",
            Kind::Secret => "Secret",
            Kind::Restricted => "Restricted",
        }
    }

    /// Whether it is restricted, and so has scopes.
    pub fn is_restricted(&self) -> bool {
        self.key.kind == Kind::Restricted
    }

    /// Whether it may be shown to everybody.
    pub fn is_public(&self) -> bool {
        self.key.kind == Kind::Publishable
    }

    /// Whether it will never work again without being given a new secret, or at all.
    pub fn is_gone(&self) -> bool {
        matches!(self.key.state, KeyState::Expired | KeyState::Revoked)
    }

    /// Whether it is dead for good.
    pub fn is_revoked(&self) -> bool {
        self.key.state == KeyState::Revoked
    }

    /// Whether it is switched off.
    pub fn is_disabled(&self) -> bool {
        self.key.state == KeyState::Disabled
    }

    /// Whether its secret is known to others.
    pub fn is_compromised(&self) -> bool {
        self.key.state == KeyState::Compromised
    }

    /// When a secret was used.
    pub fn used(&self, used: &LastUsed) -> Moment {
        Moment::rough(used.at, self.now)
    }

    /// A moment.
    pub fn at(&self, at: &Timestamp) -> Moment {
        Moment::new(*at, self.now)
    }

    /// What should be done about it within a week, if anything.
    pub fn concern(&self) -> Option<Concern> {
        self.concern_until(self.now.checked_add(SOON).unwrap_or(Timestamp::MAX))
    }

    /// What should be done about it some day. The API says of which keys that is soon.
    pub fn pressing(&self) -> Option<Concern> {
        self.concern_until(Timestamp::MAX)
    }

    fn concern_until(&self, soon: Timestamp) -> Option<Concern> {
        let key = &self.key;
        if key.state == KeyState::Compromised {
            let since = key.compromised_at.map(|at| format!(" since {}", self.at(&at).exact())).unwrap_or_default();
            return Some(Concern {
                is_urgent: true,
                text: format!("is compromised{since}: others know its secret, and it works no more. Rotate it."),
                cure: Cure::Rotate("0s"),
            });
        }
        if key.state != KeyState::Active {
            return None;
        }
        if key.flagged_at.is_some() {
            let text = "was seen where others may have read it, and still works. Rotate it now.".into();
            return Some(Concern { is_urgent: true, text, cure: Cure::Rotate("0s") });
        }
        let is_first = |due: &Timestamp| key.expires_at.is_none_or(|end| *due <= end);
        if let Some(due) = key.rotation_due_at.filter(|due| *due <= soon).filter(is_first) {
            let due_at = self.at(&due);
            let is_urgent = due_at.is_past();
            let text = if is_urgent {
                format!("should have been rotated {due_at}.")
            } else {
                format!("should be rotated {due_at}.")
            };
            return Some(Concern { is_urgent, text, cure: Cure::Rotate("24h") });
        }
        let expires = key.expires_at.filter(|end| *end <= soon)?;
        Some(Concern {
            is_urgent: false,
            text: format!(
                "expires {}: calls with it get 401 from then on, and a new secret would not change that.",
                self.at(&expires)
            ),
            cure: Cure::Extend,
        })
    }
}

/// What should be done about a key.
pub struct Concern {
    /// Whether now.
    pub is_urgent: bool,
    /// What, as the end of a sentence that begins with the key's name.
    pub text: String,
    /// How.
    pub cure: Cure,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// A new secret; the old one goes on for so long.
    Rotate(&'static str),
    /// Another expiry.
    Extend,
}

fn masked(start: Option<&str>, last_four: Option<&str>) -> String {
    format!("{}…{}", start.unwrap_or_default(), last_four.unwrap_or_default())
}

/// A key by its id.
pub async fn find(client: &Client, id: &str) -> Result<KeyView, Problem> {
    client.get(&["keys", id], &[]).await
}
