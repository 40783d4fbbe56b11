//! What a form or a query says.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::api::Problem;

/// Fields that a form may have.
const MOST: usize = 2_000;

/// The fields of a form, in their order. They may be passwords.
#[derive(Default)]
pub struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn read(text: &[u8]) -> Result<Self, Problem> {
        let pair = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            (name.into_owned(), Zeroizing::new(value.into_owned()))
        };
        let fields: Vec<_> = form_urlencoded::parse(text).take(MOST + 1).map(pair).collect();
        if fields.len() > MOST {
            return Err(Problem::invalid("form", "This form has too many fields."));
        }
        Ok(Self(fields))
    }

    /// A field, without the space around it; empty when it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// A field as it was typed; empty when it is not there.
    pub fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    /// A field that says something.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Whether a box was ticked.
    pub fn is_ticked(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// All values of a field that may be there several times, once each.
    pub fn all<'f>(&'f self, name: &'f str) -> Vec<&'f str> {
        let mut seen = HashSet::new();
        let values = self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| value.trim());
        values.filter(|value| !value.is_empty() && seen.insert(*value)).collect()
    }

    /// All fields, for a link that changes one of them.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
