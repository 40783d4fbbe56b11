//! The Docs API's data: items of three kinds, kept apart per environment, in the daemon's own store.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::store::{Batch, CommitError, Expect, Row, Store, StoreError, Table};

const TABLE: Table = Table("demo");
/// Items of a page, when nothing else is asked for.
const PAGE: usize = 20;
/// Items of a page at the most.
const LARGEST_PAGE: usize = 100;

/// A kind of item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemKind {
    Resource,
    Job,
    Webhook,
}

impl ItemKind {
    fn object(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Job => "job",
            Self::Webhook => "webhook",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Resource => "res",
            Self::Job => "job",
            Self::Webhook => "wh",
        }
    }
}

/// Why a call that was allowed does not succeed.
#[derive(Debug)]
pub(super) enum ApiError {
    /// There is no such item in this environment.
    NotFound,
    /// The body or the query is not as it should be: the field, and why.
    Invalid(&'static str, String),
    /// The item is not in a state for this.
    Conflict(&'static str),
    /// The store failed, or somebody else changed the item.
    Store,
}

impl From<StoreError> for ApiError {
    fn from(_: StoreError) -> Self {
        Self::Store
    }
}

impl From<CommitError> for ApiError {
    fn from(_: CommitError) -> Self {
        Self::Store
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceFields {
    name: Option<String>,
    data: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFields {
    task: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFields {
    url: Option<String>,
    events: Option<Vec<String>>,
}

/// One kind of item in one environment. Its calls block on the disk.
pub(super) struct Collection {
    pub store: Arc<dyn Store>,
    pub environment: String,
    pub kind: ItemKind,
}

impl Collection {
    fn row_key(&self, id: &str) -> Vec<u8> {
        format!("{}\0{}\0{id}", self.environment, self.kind.object()).into_bytes()
    }

    /// A page of items, oldest first.
    pub fn list(&self, query: Option<&str>) -> Result<Value, ApiError> {
        let (mut limit, mut after) = (PAGE, None);
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "limit" => {
                    let asked = value.parse().ok().filter(|asked| (1..=LARGEST_PAGE).contains(asked));
                    limit = asked.ok_or_else(|| ApiError::Invalid("limit", format!("give 1 to {LARGEST_PAGE}")))?;
                }
                "starting_after" => after = Some(self.row_key(value)),
                _ => {}
            }
        }
        let mut items = Vec::new();
        self.store.scan(TABLE, &self.row_key(""), &mut |row: Row| {
            if after.as_ref().is_none_or(|after| row.key > *after) && items.len() <= limit {
                items.push(serde_json::from_slice::<Value>(&row.value).unwrap_or_default());
            }
            Ok(())
        })?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Ok(json!({ "object": "list", "data": items, "has_more": has_more }))
    }

    /// One item.
    pub fn get(&self, id: &str) -> Result<Value, ApiError> {
        self.row(id).map(|(_, item)| item)
    }

    fn row(&self, id: &str) -> Result<(u64, Value), ApiError> {
        let row = self.store.get(TABLE, &self.row_key(id))?.ok_or(ApiError::NotFound)?;
        Ok((row.version, serde_json::from_slice(&row.value).map_err(|_| ApiError::Store)?))
    }

    /// A new item.
    pub fn create(&self, body: &[u8]) -> Result<Value, ApiError> {
        let fields = self.fields(body)?;
        let required = match self.kind {
            ItemKind::Resource => "name",
            ItemKind::Job => "task",
            ItemKind::Webhook => "url",
        };
        if !fields.contains_key(required) {
            return Err(ApiError::Invalid(required, "is required".into()));
        }
        let now = Timestamp::now();
        let random = getrandom::u32().map_err(|_| ApiError::Store)?;
        // Time first, so that the order of ids is the order of creation.
        let id = format!("{}_{:012x}{random:08x}", self.kind.prefix(), now.as_millisecond());
        let mut item = json!({
            "id": id,
            "object": self.kind.object(),
            "created_at": now.to_string(),
            "livemode": self.environment.ends_with("/live"),
        });
        if self.kind == ItemKind::Job {
            merge(&mut item, json!({ "status": "queued" }));
        }
        merge(&mut item, fields.into());
        self.put(&id, &item, Expect::Absent)?;
        Ok(item)
    }

    /// Changes the fields that the body names.
    pub fn update(&self, id: &str, body: &[u8]) -> Result<Value, ApiError> {
        let (version, mut item) = self.row(id)?;
        merge(&mut item, self.fields(body)?.into());
        self.put(id, &item, Expect::Version(version))?;
        Ok(item)
    }

    /// Cancels a job that has not ended.
    pub fn cancel(&self, id: &str) -> Result<Value, ApiError> {
        let (version, mut item) = self.row(id)?;
        if item.get("status").is_none_or(|status| status != "queued") {
            return Err(ApiError::Conflict("the job is not queued any more"));
        }
        merge(&mut item, json!({ "status": "cancelled" }));
        self.put(id, &item, Expect::Version(version))?;
        Ok(item)
    }

    /// Removes an item.
    pub fn delete(&self, id: &str) -> Result<Value, ApiError> {
        let (version, _) = self.row(id)?;
        let mut batch = Batch::new();
        batch.delete(TABLE, &self.row_key(id), Expect::Version(version));
        self.store.commit(&batch)?;
        Ok(json!({ "id": id, "object": self.kind.object(), "deleted": true }))
    }

    fn put(&self, id: &str, item: &Value, expect: Expect) -> Result<(), ApiError> {
        let mut batch = Batch::new();
        batch.put(TABLE, &self.row_key(id), item.to_string().into_bytes(), expect);
        self.store.commit(&batch)?;
        Ok(())
    }

    /// The fields of a body that may be set, checked.
    fn fields(&self, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
        let invalid = |error: serde_json::Error| ApiError::Invalid("body", error.to_string());
        let mut fields = Map::new();
        match self.kind {
            ItemKind::Resource => {
                let given: ResourceFields = serde_json::from_slice(body).map_err(invalid)?;
                set_text(&mut fields, "name", given.name)?;
                fields.extend(given.data.map(|data| ("data".to_owned(), Value::Object(data))));
            }
            ItemKind::Job => {
                let given: JobFields = serde_json::from_slice(body).map_err(invalid)?;
                set_text(&mut fields, "task", given.task)?;
            }
            ItemKind::Webhook => {
                let given: WebhookFields = serde_json::from_slice(body).map_err(invalid)?;
                if given.url.as_deref().is_some_and(|url| !url.starts_with("https://")) {
                    return Err(ApiError::Invalid("url", "must begin with https://".into()));
                }
                set_text(&mut fields, "url", given.url)?;
                fields.extend(given.events.map(|events| ("events".to_owned(), events.into())));
            }
        }
        Ok(fields)
    }
}

fn set_text(fields: &mut Map<String, Value>, name: &'static str, text: Option<String>) -> Result<(), ApiError> {
    let Some(text) = text else {
        return Ok(());
    };
    if !(1..=200).contains(&text.chars().count()) {
        return Err(ApiError::Invalid(name, "give 1 to 200 characters".into()));
    }
    fields.insert(name.to_owned(), text.into());
    Ok(())
}

/// Sets the members of `more`, an object, in `item`, another.
pub(super) fn merge(item: &mut Value, more: Value) {
    if let (Value::Object(item), Value::Object(more)) = (item, more) {
        item.extend(more);
    }
}
