//! What the schema files declare in the API's namespace, as data.
//!
//! Cedar's `Schema` answers whether an entity fits a type, and not which attributes a type has. The daemon has to know:
//! an attribute that it never fills is one that a policy waits for in vain, and a `forbid` that waits is none.

use serde_json::Value;

use super::revision::Fragment;

/// Names for names: more in a row are a circle.
const LONGEST_ALIAS: usize = 16;

/// The API's namespace, file by file.
pub(super) struct Declared(Vec<Value>);

impl Declared {
    /// What the files say of this namespace.
    pub fn of(fragments: &[Fragment<'_>], namespace: &str) -> Self {
        let json = fragments.iter().map(|(_, _, fragment)| fragment.clone().to_json_value().unwrap_or_default());
        Self(json.filter_map(|mut file| file.get_mut(namespace).map(Value::take)).collect())
    }

    fn find(&self, section: &str, word: &str) -> Option<&Value> {
        self.0.iter().find_map(|namespace| namespace.get(section)?.get(word))
    }

    /// The names that an enumerated entity type has.
    pub fn names(&self, word: &str) -> Vec<&str> {
        let listed = self.find("entityTypes", word).and_then(|declared| declared.get("enum")?.as_array());
        listed.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// An attribute of an entity type that is none of `known`; `Err` when its attributes cannot be told.
    pub fn unknown_attribute(&self, word: &str, known: &[&str]) -> Result<Option<String>, ()> {
        match self.find("entityTypes", word).and_then(|declared| declared.get("shape")) {
            Some(shape) => self.unknown(shape, known),
            None => Ok(None),
        }
    }

    /// The same of an action's context.
    pub fn unknown_in_context(&self, action: &str, known: &[&str]) -> Result<Option<String>, ()> {
        match self.find("actions", action).and_then(|declared| declared.get("appliesTo")?.get("context")) {
            Some(context) => self.unknown(context, known),
            None => Ok(None),
        }
    }

    /// What an action is annotated with.
    pub fn annotation(&self, action: &str, annotation: &str) -> Option<&str> {
        self.find("actions", action)?.get("annotations")?.get(annotation)?.as_str()
    }

    fn unknown(&self, record: &Value, known: &[&str]) -> Result<Option<String>, ()> {
        let mut record = record;
        for _ in 0..LONGEST_ALIAS {
            if let Some(attributes) = record.get("attributes").and_then(Value::as_object) {
                return Ok(attributes.keys().find(|name| !known.contains(&name.as_str())).cloned());
            }
            // A reference is written as {"type": "Call"} or as {"type": "EntityOrCommon", "name": "Call"}.
            let name = record.get("name").or_else(|| record.get("type")).and_then(Value::as_str).ok_or(())?;
            let word = name.rsplit("::").next().unwrap_or(name);
            record = self.find("commonTypes", word).ok_or(())?;
        }
        Err(())
    }
}
