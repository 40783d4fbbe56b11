//! The scopes that the schema knows, as a grid: a row for each thing, and what may be done to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::dashboard::fields::Fields;

/// What can be chosen for one thing.
pub struct Choice {
    /// The scopes, separated by commas; empty for none.
    pub value: String,
    /// What it is called.
    pub name: &'static str,
    /// Whether it is what the key has.
    pub is_chosen: bool,
}

/// One thing, and what may be done to it.
pub struct Row {
    /// The thing: `resources`.
    pub name: String,
    /// The field.
    pub field: String,
    /// None, read, write, both.
    pub choices: Vec<Choice>,
}

/// All scopes.
pub struct Grid {
    /// Those that read or write a thing.
    pub rows: Vec<Row>,
    /// The others, and whether the key has them.
    pub others: Vec<(String, bool)>,
}

impl Grid {
    /// The schema's scopes, with those chosen that are held.
    pub fn of(scopes: &[String], held: &[String]) -> Self {
        let held: BTreeSet<&str> = held.iter().map(String::as_str).collect();
        let mut things = BTreeMap::<&str, (bool, bool)>::new();
        let mut others = Vec::new();
        for scope in scopes {
            match scope.rsplit_once(':') {
                Some((thing, "read")) => things.entry(thing).or_default().0 = true,
                Some((thing, "write")) => things.entry(thing).or_default().1 = true,
                _ => others.push((scope.clone(), held.contains(scope.as_str()))),
            }
        }
        let rows = things.into_iter().map(|(thing, (reads, writes))| {
            let (read, write) = (format!("{thing}:read"), format!("{thing}:write"));
            let has = (held.contains(read.as_str()), held.contains(write.as_str()));
            let choice = |value: String, name, wanted| Choice { value, name, is_chosen: has == wanted };
            let mut choices = vec![choice(String::new(), "None", (false, false))];
            if reads {
                choices.push(choice(read.clone(), "Read", (true, false)));
            }
            if writes {
                choices.push(choice(write.clone(), if reads { "Write only" } else { "Write" }, (false, true)));
            }
            if reads && writes {
                choices.push(choice(format!("{read},{write}"), "Read and write", (true, true)));
            }
            Row { name: thing.to_owned(), field: format!("scope-{thing}"), choices }
        });
        Self { rows: rows.collect(), others }
    }
}

/// The scopes that a form says.
pub fn chosen(fields: &Fields) -> Vec<String> {
    let named = fields.pairs().filter(|(name, _)| name.starts_with("scope-") || *name == "scope");
    let all = named.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|scope| !scope.is_empty());
    all.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_what_the_schema_has_and_gives_back_what_was_chosen() {
        let scopes = ["resources:read", "resources:write", "jobs:write", "audit"].map(str::to_owned);
        let held = ["resources:read", "audit"].map(str::to_owned);
        let grid = Grid::of(&scopes, &held);
        let told: Vec<_> = grid
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.choices.iter().map(|choice| choice.name).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            told,
            [("jobs", vec!["None", "Write"]), ("resources", vec!["None", "Read", "Write only", "Read and write"])]
        );
        let mut form = form_urlencoded::Serializer::new(String::new());
        for row in &grid.rows {
            let chosen = row.choices.iter().find(|choice| choice.is_chosen).unwrap();
            form.append_pair(&row.field, &chosen.value);
        }
        for (scope, _) in grid.others.iter().filter(|(_, is_held)| *is_held) {
            form.append_pair("scope", scope);
        }
        assert_eq!(chosen(&Fields::read(form.finish().as_bytes()).unwrap()), ["audit", "resources:read"]);
    }
}
