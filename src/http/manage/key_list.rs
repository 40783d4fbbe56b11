//! Lists of keys: which of them, in which order, and how many there are.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Manage;
use super::input::OneOf;
use super::paging::Paging;
use super::refusal::Refusal;
use super::view::{Direction, KeyState, KeyView, Page};
use crate::http::json::time;
use crate::key::{Key, KeyId, Kind, Mode, Moment, StoredSecret};
use crate::ledger::LedgerError;
use crate::ring::LiveKey;

/// Which keys, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct KeyFilter {
    mode: Option<Mode>,
    /// `publishable`, `secret` or `restricted`, or several of them, separated by commas.
    #[param(value_type = Option<String>, example = "secret,restricted")]
    kind: Option<OneOf<Kind>>,
    /// `active`, `disabled`, `expired`, `compromised` or `revoked`, or several of them, separated by commas.
    #[param(value_type = Option<String>, example = "active,disabled")]
    state: Option<OneOf<KeyState>>,
    /// Those whose name or note holds this text, in capitals or not; or whose id, token or token's selector begins with
    /// it; or whose token ends with these four characters.
    #[param(max_length = 200)]
    search: Option<String>,
    /// Those that expire within so many days.
    #[param(minimum = 0, maximum = 36600)]
    expiring_within_days: Option<u32>,
    /// `true`: those that work without end; `false`: those that expire, or have.
    never_expires: Option<bool>,
    /// Those that should be rotated within so many days, overdue ones included.
    #[param(minimum = 0, maximum = 36600)]
    rotation_due_within_days: Option<u32>,
    /// Those that were made before this time and not used since.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "time")]
    unused_since: Option<Timestamp>,
    /// `true`: those that somebody should do something about: compromised or flagged, to be rotated by now or soon, or
    /// about to expire (both within `rotation.warn_days`); `false`: the others.
    needs_attention: Option<bool>,
    /// `oldest` first, as when it is not given, or `newest` first.
    #[param(inline)]
    order: Option<Direction>,
    /// Those behind this one: the `next` of the page before.
    after: Option<String>,
    /// At most so many; 1 to 1,000, 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Where a key stands in the order of creation. Those that came with an account are of one moment.
type Place = (Moment, Mode, &'static str, KeyId);

fn place(live: &LiveKey) -> Place {
    (live.key.created_at, live.key.mode, live.key.kind.as_str(), live.key.id)
}

impl KeyFilter {
    fn admits(&self, key: &Key, search: Option<&Search>, soon: SignedDuration, now: Timestamp) -> bool {
        self.mode.is_none_or(|mode| key.mode == mode)
            && self.kind.as_ref().is_none_or(|kinds| kinds.has(&key.kind))
            && self.unused_since.is_none_or(|since| key.created_at.time() < since)
            && self.state.as_ref().is_none_or(|states| states.has(&KeyState::of(key, now)))
            && self.expiring_within_days.is_none_or(|days| is_ending(key, days_of(days), now))
            && self.never_expires.is_none_or(|never| key.expires_at().is_none() == never)
            && self.rotation_due_within_days.is_none_or(|days| is_due(key, days_of(days), now))
            && self.needs_attention.is_none_or(|needs| needs_attention(key, soon, now) == needs)
            && search.is_none_or(|search| search.finds(key))
    }

    /// The page of these keys.
    pub fn page(self, manage: &Manage, mut keys: Vec<Arc<LiveKey>>, now: Timestamp) -> Result<Page<KeyView>, Refusal> {
        let paging = Paging { after: self.after.clone(), limit: self.limit };
        let search = self.search.as_deref().map(Search::of).transpose()?;
        // Before any is left out: the list goes on behind a key that has changed meanwhile. Nobody else's keys are looked at.
        let after = paging.behind(|after| {
            let id: KeyId = after.parse().ok()?;
            keys.iter().find(|live| live.key.id == id).map(|live| place(live))
        })?;
        keys.retain(|live| self.admits(&live.key, search.as_ref(), manage.soon, now));
        if let Some(since) = self.unused_since {
            let uses = manage.ledger().all_uses()?;
            keys.retain(|live| uses.of(live).none_since(since));
        }
        let total = keys.len();
        let compare = |a: &Place, b: &Place| match self.order.unwrap_or(Direction::Oldest) {
            Direction::Oldest => a.cmp(b),
            Direction::Newest => b.cmp(a),
        };
        if let Some(after) = after {
            keys.retain(|live| compare(&place(live), &after) == Ordering::Greater);
        }
        first(&mut keys, paging.most()? + 1, |a, b| compare(&place(a), &place(b)));
        let next = paging.cut(&mut keys, |live| live.key.id.to_string())?;
        let shown = |live: &Arc<LiveKey>| Ok(KeyView::of(&live.key, now).used(&manage.ledger().uses(live)?));
        let items = keys.iter().map(shown).collect::<Result<_, LedgerError>>()?;
        Ok(Page { items, next, total: Some(total) })
    }
}

/// Leaves the first `most` of them, in order: most of a long list needs no sorting.
fn first<T>(all: &mut Vec<T>, most: usize, compare: impl Fn(&T, &T) -> Ordering) {
    if all.len() > most {
        all.select_nth_unstable_by(most, &compare);
        all.truncate(most);
    }
    all.sort_unstable_by(compare);
}

fn days_of(days: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(days))
}

fn is_within(end: Option<Timestamp>, time: SignedDuration, now: Timestamp) -> bool {
    end.is_some_and(|end| end <= now.checked_add(time).unwrap_or(Timestamp::MAX))
}

fn is_ending(key: &Key, within: SignedDuration, now: Timestamp) -> bool {
    key.expires_at().is_some_and(|end| end > now) && is_within(key.expires_at(), within, now)
}

fn is_due(key: &Key, within: SignedDuration, now: Timestamp) -> bool {
    key.is_living(now) && is_within(key.rotation_due_at(), within, now)
}

/// Whether somebody should do something about it. Nothing can be done about a key that is revoked or has expired.
fn needs_attention(key: &Key, soon: SignedDuration, now: Timestamp) -> bool {
    let is_open =
        key.is_living(now) && (key.flagged_at(now).is_some() || is_due(key, soon, now) || is_ending(key, soon, now));
    is_open || KeyState::of(key, now) == KeyState::Compromised
}

/// A text that keys and accounts are looked for by.
pub(super) struct Search {
    text: String,
    lower: String,
}

impl Search {
    /// What people typed.
    pub fn of(text: &str) -> Result<Self, Refusal> {
        if text.chars().count() > 200 {
            return Err(Refusal::invalid(Some("search"), "give up to 200 characters"));
        }
        let text = text.trim();
        Ok(Self { text: text.to_owned(), lower: text.to_lowercase() })
    }

    /// Whether it is in this name, or says how this id begins.
    pub fn finds_named(&self, name: &str, id: &[&str]) -> bool {
        holds(name, &self.lower) || beyond(&self.text, id) == Some("")
    }

    fn finds(&self, key: &Key) -> bool {
        self.finds_named(&key.name, &["key_", key.id.as_str()])
            || key.note().is_some_and(|note| holds(note, &self.lower))
            || key.secrets().any(|secret| self.is_of(key, secret))
    }

    /// Whether it says how a token of this secret begins or ends.
    fn is_of(&self, key: &Key, secret: &StoredSecret) -> bool {
        if secret.last_four.is_some_and(|last| self.text.len() == 4 && last.to_string() == self.text) {
            return true;
        }
        if secret.phc.is_foreign() {
            return secret.phc.foreign_start().is_some_and(|start| start.starts_with(&self.text));
        }
        let selector = secret.selector.as_str();
        // Who pastes more of a token than its selector finds the key, too; what is behind it is not looked at.
        selector.starts_with(&self.text)
            || beyond(&self.text, &[key.kind.prefix(), "_", key.mode.as_str(), "_", selector]).is_some()
    }
}

/// What is left of a text behind these parts, one after the other: nothing, when it ends among them; `None`, when it says
/// something else.
fn beyond<'a>(mut text: &'a str, parts: &[&str]) -> Option<&'a str> {
    for part in parts {
        match text.strip_prefix(part) {
            Some(rest) => text = rest,
            None => return part.starts_with(text).then_some(""),
        }
    }
    Some(text)
}

/// Whether a text holds another one that is in small letters already.
fn holds(text: &str, lower: &str) -> bool {
    if text.is_ascii() && lower.is_ascii() {
        let (text, lower) = (text.as_bytes(), lower.as_bytes());
        return lower.is_empty() || text.windows(lower.len()).any(|part| part.eq_ignore_ascii_case(lower));
    }
    text.to_lowercase().contains(lower)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_found_in_another_whatever_the_capitals(before in ".{0,9}", found in "[a-zA-Z0-9 äÖ]{0,6}", after in ".{0,9}") {
            let lower = found.to_lowercase();
            let whole = format!("{before}{}{after}", found.to_uppercase());
            prop_assert!(holds(&whole, &lower), "{:?} in {:?}", lower, whole);
        }

        #[test]
        fn a_text_goes_along_with_parts_or_beyond_them(parts in prop::collection::vec("[ab]{1,3}", 0..4), text in "[ab]{0,9}") {
            let whole = parts.concat();
            let parts: Vec<_> = parts.iter().map(String::as_str).collect();
            let left = if whole.starts_with(&text) { Some("") } else { text.strip_prefix(&whole) };
            prop_assert_eq!(beyond(&text, &parts), left);
        }

        #[test]
        fn the_first_ones_are_those_of_the_whole_list_in_order(all in prop::collection::vec(0..50_u8, 0..60), most in 1..70_usize) {
            let mut found = all.clone();
            first(&mut found, most, Ord::cmp);
            let mut sorted = all;
            sorted.sort_unstable();
            sorted.truncate(most);
            prop_assert_eq!(found, sorted);
        }
    }
}
