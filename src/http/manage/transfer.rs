//! Moving accounts, keys and people out, and in.

use std::io::Write;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::backup::{download, told};
use super::input::Input;
use super::keys::CreateKey;
use super::refusal::{Refusal, Refusals};
use super::{Caller, Shared};
use crate::authorize::manage::Subject;
use crate::http::json::time;
use crate::key::{Account, AccountId, Ceiling, Key, KeyId, MintError, StoredSecret};
use crate::ledger::{DeletedUser, ImportError, Incoming, KnownToken, Ledger, MovedIn, SecretUse};
use crate::people::User;
use crate::store::{Row, StoreError, Table};
use crate::trail::{Event, Happened};

/// The format of an export, and the newest that is understood.
const FORMAT: u32 = 1;
/// Items of one import.
const MOST: usize = 1_000;

/// What moves in: all of it, or nothing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Accounts before their keys and people.
    #[schema(max_items = 1000)]
    items: Vec<Item>,
}

/// One thing that moves in.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", content = "record", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = ImportItem)]
enum Item {
    /// As an export has it.
    #[schema(value_type = Object)]
    Account(Account),
    /// As an export has it.
    #[schema(value_type = Object)]
    Key(Box<Key>),
    /// As an export has it.
    #[schema(value_type = Object)]
    User(Box<User>),
    /// As an export has it: when a secret was used last. That of a secret that is not here is left.
    #[schema(value_type = Object)]
    LastUsed(SecretUse),
    /// As an export has it: somebody who was deleted, and whom no import brings back.
    #[schema(value_type = Object)]
    DeletedUser(DeletedUser),
    /// As an export has it: a token of another system that came here, whatever became of its key. No import brings it back.
    #[schema(value_type = Object)]
    ForeignToken(KnownToken),
    /// A key that another system issued, and whose token goes on working.
    ForeignKey(Box<ForeignKey>),
}

/// A key that another system issued. Of its token it takes `sha256`, or `argon2id` and `starts_with`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ForeignKey {
    /// Whose key it is here: `acct_…`.
    #[schema(value_type = String)]
    account: AccountId,
    /// What it is here.
    key: CreateKey,
    /// When it was issued; now, when not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "time")]
    created_at: Option<Timestamp>,
    /// The SHA-256 of the whole token, 64 hexadecimal digits.
    sha256: Option<String>,
    /// The Argon2id hash of the whole token, a PHC string.
    argon2id: Option<String>,
    /// The token's first 8 to 63 characters, which find the key when its SHA-256 is not known.
    starts_with: Option<String>,
}

/// What became of each, in their order.
#[derive(Serialize, ToSchema)]
pub struct Imported {
    items: Vec<ImportedItem>,
}

/// What became of one.
#[derive(Serialize, ToSchema)]
pub struct ImportedItem {
    /// `made`, or `kept`: it was here already.
    outcome: &'static str,
    /// Its id: of a foreign key, the one that it has here. Not there for a last use.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Every account, key and person, and when keys were used last, as they are at one moment, as JSON lines for `keyward
/// import`. It holds hashes, and no secret.
#[utoipa::path(
    get, path = "/v1/export", tag = "installation", operation_id = "exportAll",
    responses((status = 200, body = String, content_type = "application/jsonl"), Refusals)
)]
pub(super) async fn export_all(State(manage): State<Shared>, caller: Caller) -> Result<Response<Body>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let ledger = manage.ledger().clone();
    told(&manage, Event::new(Happened::Exported, &by)).await?;
    let spool = move |out: &mut dyn Write| export(&ledger, by.now, out);
    download(spool, "attachment; filename=\"keyward-export.jsonl\"").await
}

fn export(ledger: &Ledger, now: Timestamp, out: &mut dyn Write) -> Result<(), std::io::Error> {
    // What was noted since they were written last would be missing.
    ledger.write_uses().map_err(std::io::Error::other)?;
    writeln!(out, "{}", json!({ "keyward_export": FORMAT, "made_at": now }))?;
    let (mut items, mut failed) = (0_u64, None);
    // In the order of tables' names: accounts come before what refers to them, and keys before their uses.
    let tables = [
        (Table::ACCOUNTS, "account"),
        (Table::DELETED_USERS, "deleted_user"),
        (Table::FOREIGN_TOKENS, "foreign_token"),
        (Table::KEYS, "key"),
        (Table::USERS, "user"),
    ];
    let mut each = |table: &str, row: &Row| -> Result<(), std::io::Error> {
        if table == Table::LAST_USED.0 {
            let used = SecretUse::of_row(row).map_err(std::io::Error::other)?;
            writeln!(out, "{}", json!({ "type": "last_used", "record": used }))?;
        } else if let Some((_, name)) = tables.iter().find(|(known, _)| known.0 == table) {
            write!(out, "{{\"type\":\"{name}\",\"record\":")?;
            out.write_all(&row.value)?;
            out.write_all(b"}\n")?;
        } else {
            return Ok(());
        }
        items += 1;
        Ok(())
    };
    let read: Result<u64, StoreError> =
        ledger.store().snapshot(&mut |table, row| each(table, &row).map_err(|error| failed = Some(error)).is_ok());
    if let Some(error) = failed {
        return Err(error);
    }
    read.map_err(std::io::Error::other)?;
    writeln!(out, "{}", json!({ "end": { "items": items } }))?;
    out.flush()
}

/// Take over accounts, keys and people of an export, and keys that another system issued. What is here already and the
/// same stays as it is.
#[utoipa::path(
    post, path = "/v1/import", tag = "installation", operation_id = "import", request_body = Import,
    responses((status = 200, body = Imported), Refusals)
)]
pub(super) async fn import(
    State(manage): State<Shared>,
    caller: Caller,
    Input(import, _): Input<Import>,
) -> Result<Json<Imported>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    if import.items.len() > MOST {
        return Err(Refusal::invalid(Some("items"), format!("give at most {MOST}")));
    }
    let ceiling = manage.pdp.verifier().ceiling();
    let mut incoming = Vec::with_capacity(import.items.len());
    for (at, item) in import.items.into_iter().enumerate() {
        let item = item.into_incoming(&caller, ceiling, by.now);
        incoming.push(item.map_err(|refusal| refusal.within(&format!("items[{at}].record")))?);
    }
    let (ledger, asked) = (manage.ledger().clone(), incoming.clone());
    let done = tokio::task::spawn_blocking(move || ledger.import(&asked, ceiling, &by)).await;
    let outcomes = match done.map_err(|error| Refusal::internal(&error))? {
        Ok(outcomes) => outcomes,
        Err(ImportError::Ledger(error)) => return Err(error.into()),
        Err(ImportError::Item { at, reason }) => {
            let place = format!("items[{at}].record");
            return Err(Refusal::invalid(reason.field(), reason.to_string()).within(&place));
        }
    };
    let items = incoming.iter().zip(outcomes).map(|(item, outcome)| ImportedItem::of(item, outcome)).collect();
    Ok(Json(Imported { items }))
}

impl ImportedItem {
    fn of(item: &Incoming, outcome: MovedIn) -> Self {
        let id = match item {
            Incoming::Account(account) => Some(account.id.to_string()),
            Incoming::Key(key) | Incoming::ForeignKey(key) => Some(key.id.to_string()),
            Incoming::KnownToken(token) => Some(token.key.to_string()),
            Incoming::User(user) => Some(user.id.to_string()),
            Incoming::DeletedUser(user) => Some(user.id.to_string()),
            Incoming::Use(_) => None,
        };
        match outcome {
            MovedIn::Made => Self { outcome: "made", id },
            MovedIn::Kept => Self { outcome: "kept", id },
            // It was given an id anew, which is nobody's then.
            MovedIn::KeptAs(key) => Self { outcome: "kept", id: Some(key.to_string()) },
        }
    }
}

impl Item {
    fn into_incoming(self, caller: &Caller, ceiling: Ceiling, now: Timestamp) -> Result<Incoming, Refusal> {
        match self {
            Self::Account(account) => Ok(Incoming::Account(account)),
            Self::Key(key) => Ok(Incoming::Key(key)),
            Self::User(user) => Ok(Incoming::User(user)),
            Self::LastUsed(used) => Ok(Incoming::Use(used)),
            Self::DeletedUser(user) => Ok(Incoming::DeletedUser(user)),
            Self::ForeignToken(token) => Ok(Incoming::KnownToken(token)),
            Self::ForeignKey(foreign) => {
                foreign.into_key(caller, ceiling, now).map(|key| Incoming::ForeignKey(key.into()))
            }
        }
    }
}

impl ForeignKey {
    fn into_key(self, caller: &Caller, ceiling: Ceiling, now: Timestamp) -> Result<Key, Refusal> {
        let issued = self.created_at.unwrap_or(now);
        if issued > now {
            return Err(Refusal::invalid(Some("created_at"), "give a time in the past"));
        }
        let secret = match (&self.sha256, &self.argon2id, &self.starts_with) {
            (Some(digest), None, None) => StoredSecret::of_foreign_digest(digest, issued),
            (None, Some(phc), Some(start)) => StoredSecret::of_foreign_phc(start, phc, ceiling, issued),
            _ => return Err(Refusal::invalid(None, "give sha256 alone, or argon2id and starts_with")),
        };
        let secret = secret.map_err(|error| Refusal::invalid(error.field(), error.to_string()))?;
        let new = self.key.into_new(caller).map_err(|refusal| refusal.within("key"))?;
        let id = KeyId::random().map_err(|error| Refusal::internal(&MintError::from(error)))?;
        let key = Key::create(self.account, new, id, secret, now);
        key.map(|key| Key { created_at: issued.into(), ..key }).map_err(|error| Refusal::from(error).within("key"))
    }
}
