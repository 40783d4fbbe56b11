//! Decisions over time, as a picture that needs no script.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::api::{Client, Problem};
use super::show::number;
use crate::authorize::verdict::Reason;
use crate::http::manage::decisions::Counts;

/// Minutes of a bar.
const STEP: i64 = 30;
/// Bars of a picture: those of a day, which begins and ends within one.
const BARS: usize = 49;
/// The picture's size.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 170.0;
/// Room for the figures at the left, and for the times below.
const LEFT: f64 = 46.0;
const BELOW: f64 = 22.0;

/// The outcomes, from the ground up.
pub const OUTCOMES: [&str; 3] = ["allow", "unauthenticated", "forbidden"];

/// A part of a bar.
pub struct Block {
    /// Which outcome.
    pub outcome: &'static str,
    /// Its place.
    pub x: f64,
    /// …
    pub y: f64,
    /// Its size.
    pub width: f64,
    /// …
    pub height: f64,
    /// What it says when it is pointed at.
    pub says: String,
}

/// A figure beside a line.
pub struct Mark {
    /// Where.
    pub at: f64,
    /// What.
    pub text: String,
}

/// The decisions of the last day.
pub struct Day {
    /// How many there were of each outcome.
    pub totals: [u64; 3],
    /// How many were not allowed, by reason, the most frequent first.
    pub denials: Vec<(String, u64)>,
    /// The picture.
    pub blocks: Vec<Block>,
    /// Lines across it.
    pub lines: Vec<Mark>,
    /// Times below it.
    pub times: Vec<Mark>,
}

impl Day {
    /// The last day's decisions of an account or a key (`account`, `key` and its id), or all.
    pub async fn get(client: &Client, query: &[(&str, &str)], now: Timestamp) -> Result<Self, Problem> {
        let step = STEP.to_string();
        let mut asked = query.to_vec();
        asked.push(("step", &step));
        Ok(Self::of(&client.get(&["decisions", "counts"], &asked).await?, now))
    }

    fn of(counts: &Counts, now: Timestamp) -> Self {
        let outcome_of = |reason: &str| Reason::named(reason).map_or(2, |reason| reason.outcome() as usize);
        let mut totals = [0; 3];
        let mut denials = BTreeMap::<String, u64>::new();
        let mut bars = vec![[0; 3]; BARS];
        let newest = now.as_second().div_euclid(STEP * 60);
        for count in &counts.items {
            let age = newest - count.from.as_second().div_euclid(STEP * 60);
            let place = usize::try_from(age).ok().and_then(|age| BARS.checked_sub(age + 1));
            for (reason, count) in &count.reasons {
                let outcome = outcome_of(reason);
                if let Some(total) = totals.get_mut(outcome) {
                    *total += count;
                }
                if outcome > 0 {
                    *denials.entry(reason.to_string()).or_default() += count;
                }
                if let Some(part) = place.and_then(|place| bars.get_mut(place)).and_then(|bar| bar.get_mut(outcome)) {
                    *part += count;
                }
            }
        }
        let mut denials: Vec<_> = denials.into_iter().collect();
        denials.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let (blocks, lines) = drawn(&bars, newest);
        Self { totals, denials, blocks, lines, times: times(newest) }
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.totals.iter().sum()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

fn began(newest: i64, place: usize) -> Timestamp {
    let age = i64::try_from(BARS - 1 - place).unwrap_or_default();
    Timestamp::from_second((newest - age) * STEP * 60).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts and places of a picture")]
fn drawn(bars: &[[u64; 3]], newest: i64) -> (Vec<Block>, Vec<Mark>) {
    let most = bars.iter().map(|bar| bar.iter().sum::<u64>()).max().unwrap_or_default();
    let top = rounded_up(most);
    let (room, each) = (HEIGHT - BELOW - 8.0, (WIDTH - LEFT) / BARS as f64);
    let ground = HEIGHT - BELOW;
    let mut blocks = Vec::new();
    for (place, bar) in bars.iter().enumerate() {
        let mut y = ground;
        let from = began(newest, place).strftime("%H:%M").to_string();
        for (outcome, count) in OUTCOMES.iter().zip(bar).filter(|(_, count)| **count > 0) {
            // What is there is seen, however little it is beside the rest.
            let height = (*count as f64 / top as f64 * room).max(1.5);
            y -= height;
            let says = format!("{from} UTC: {} {outcome}", number(*count));
            blocks.push(Block { outcome, x: LEFT + each * place as f64 + 1.0, y, width: each - 2.0, height, says });
        }
    }
    let line = |part: u64| Mark { at: ground - room * part as f64 / 2.0, text: number(top * part / 2) };
    let parts = if top < 2 { vec![0, 2] } else { vec![0, 1, 2] };
    (blocks, parts.into_iter().map(line).collect())
}

#[expect(clippy::cast_precision_loss, reason = "places of a picture")]
fn times(newest: i64) -> Vec<Mark> {
    let each = (WIDTH - LEFT) / BARS as f64;
    let hours = (0..BARS).filter(|place| began(newest, *place).as_second().rem_euclid(4 * 3600) == 0);
    hours
        .map(|place| Mark { at: LEFT + each * place as f64, text: began(newest, place).strftime("%H:%M").to_string() })
        .collect()
}

/// A round figure that is at least this: 2, 4, 6, 8, 10, 20 …
fn rounded_up(most: u64) -> u64 {
    let mut unit = 1_u64;
    while unit.saturating_mul(10) < most {
        unit = unit.saturating_mul(10);
    }
    [2, 4, 6, 8, 10].into_iter().map(|factor| unit.saturating_mul(factor)).find(|top| *top >= most).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_and_shows_what_there_is() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |minutes: i64| (now - jiff::SignedDuration::from_mins(minutes)).to_string();
        let counts: Counts = serde_json::from_value(serde_json::json!({ "items": [
            { "from": at(1430), "reasons": { "allowed": 1 }, "actions": {} },
            { "from": at(5), "reasons": { "allowed": 9_000, "scope_missing": 1, "key_unknown": 20 }, "actions": {} },
        ]}))
        .unwrap();
        let day = Day::of(&counts, now);
        assert_eq!(day.totals, [9_001, 20, 1]);
        assert_eq!(day.denials, [("key_unknown".to_owned(), 20), ("scope_missing".to_owned(), 1)]);
        assert_eq!(day.blocks.len(), 4);
        for block in &day.blocks {
            assert!(block.x >= LEFT && block.x + block.width <= WIDTH && block.y >= 0.0, "{}", block.says);
            assert!(block.height >= 1.5 && block.y + block.height <= HEIGHT - BELOW + 0.01, "{}", block.says);
        }
    }

    #[test]
    fn figures_beside_lines_are_round() {
        for (most, expected) in [(0, 2), (2, 2), (3, 4), (10, 10), (11, 20), (61, 80), (9_021, 10_000)] {
            assert_eq!(rounded_up(most), expected, "{most}");
        }
    }
}
