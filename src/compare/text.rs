//! A comparison for people to read, in the manner of a plan: what is alike is told once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Change, Comparison, Decided, Difference, Row};

/// Actions that one group names; the others are counted.
const MOST_NAMES: usize = 8;

/// Rows that are told together: the same callers, changed in the same way by the same policies.
type Group<'a> = (String, Change, Vec<&'a [String]>);

impl Comparison {
    /// Everything, for a terminal or a log: a line that sums it up, and then what has changed, with an example each.
    pub fn render(&self) -> String {
        let mut out = format!("{}\n", self.summary());
        let mut groups: BTreeMap<(u8, usize), (Group<'_>, Vec<&Row>)> = BTreeMap::new();
        for row in self.changed() {
            let policies = [&row.widened, &row.narrowed].into_iter().flatten();
            let policies = policies.flat_map(|found| [&*found.before.policies, &*found.after.policies]).collect();
            let group = (row.subject.to_string(), row.change, policies);
            let order = u8::from(row.change == Change::Narrowed);
            let known = groups.iter_mut().find(|(_, (of, _))| *of == group);
            match known {
                Some((_, (_, rows))) => rows.push(row),
                None => drop(groups.insert((order, groups.len()), (group, vec![row]))),
            }
        }
        for ((subject, change, _), rows) in groups.values() {
            let mark = match change {
                Change::Widened => '+',
                Change::Narrowed => '-',
                Change::Both | Change::Unchanged => '~',
            };
            let _ = writeln!(out, "{mark} {} for {subject}: {}", change.as_str(), names(rows));
            let Some(first) = rows.first() else { continue };
            for found in [&first.widened, &first.narrowed].into_iter().flatten() {
                let _ = write!(out, "{}", example(found));
            }
        }
        out
    }

    /// One line: how much of what.
    pub fn summary(&self) -> String {
        let count = |change: Change| self.rows.iter().filter(|row| row.change == change).count();
        let counted = [Change::Widened, Change::Narrowed, Change::Both].map(|change| (change.as_str(), count(change)));
        let counted = counted.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
        let mut parts: Vec<String> = counted.collect();
        if parts.is_empty() {
            parts.push("nothing has changed".into());
        }
        let mut text = parts.join(", ");
        let _ = write!(text, "; {} unchanged, proven", self.unchanged);
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for why in self.rows.iter().filter_map(|row| row.unproven.as_ref()) {
            *reasons.entry(why.to_string()).or_default() += 1;
        }
        for (why, count) in reasons {
            let _ = write!(text, "; of {count} it is not proven that nothing else has changed ({why})");
        }
        text
    }
}

fn names(rows: &[&Row]) -> String {
    let shown: Vec<String> =
        rows.iter().take(MOST_NAMES).map(|row| format!("{} ({} {})", row.action, row.method, row.path)).collect();
    let more = rows.len().saturating_sub(MOST_NAMES);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn example(found: &Difference) -> String {
    format!(
        "    {}\n      before: {}\n      after:  {}\n",
        found.request,
        decision(&found.before),
        decision(&found.after)
    )
}

fn decision(decided: &Decided) -> String {
    let by = if decided.policies.is_empty() { String::new() } else { format!(" by {}", decided.policies.join(", ")) };
    if decided.allowed { format!("allowed{by}") } else { format!("denied, {}{by}", decided.reason) }
}
