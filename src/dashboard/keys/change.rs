//! What can be done to a key: rotate, disable, enable, revoke, mark as compromised.

use askama::Template;
use axum::extract::Path;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Shown, find};
use crate::dashboard::api::Problem;
use crate::dashboard::fields::Fields;
use crate::dashboard::frame::{Frame, Section, page as answer, page_with};
use crate::dashboard::session::Fresh;
use crate::dashboard::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::view::KeyView;

/// How long the old secret may go on, what that is called, and what it means.
const OVERLAPS: [(&str, &str, &str); 4] = [
    ("0s", "Now", "The old secret stops at once: whatever still uses it gets 401. Right after an exposure."),
    ("1h", "In an hour", "Both secrets work for an hour."),
    ("24h", "In 24 hours", "Both secrets work for a day: time to deploy the new one. Right for most."),
    ("7d", "In 7 days", "Both secrets work for a week."),
];

#[derive(Template)]
#[template(path = "keys/rotate.html")]
struct Rotate {
    frame: Frame,
    key: Shown,
}

/// The page that asks how to rotate.
pub async fn rotate_page(visitor: Visitor, Path(key): Path<String>) -> Answer {
    let key = find(&visitor.client, &key).await?;
    let frame = Frame::about(&visitor, Section::Keys, "Rotate a key", &key.account, key.mode, None).await?;
    Ok(answer(&Rotate { key: Shown::new(key, frame.now), frame }))
}

/// Gives the key a new secret, and has its page show that.
pub async fn rotate(Path(key): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let overlap = fields.given("overlap").unwrap_or("24h");
    // Sent twice, by an impatient click, it would end the secret that is out there.
    let call = visitor.client.call(Method::POST, &["keys", &key, "rotate"], &[]).body(&json!({ "overlap": overlap }));
    let rotated: KeyView =
        match visitor.or_warn(call.once(fields.text("once")).send().await, Problem::is_about_input)? {
            Some(key) => key,
            None => return Ok(see_other(&format!("/keys/{key}"))),
        };
    if let Some(token) = rotated.token {
        visitor.keep(vec![Fresh { of: rotated.id.clone(), token }]);
    }
    visitor.tell(match rotated.old_secret_ends_at {
        Some(_) => format!("“{}” has a new secret. The old one works beside it for a while.", rotated.name),
        None => format!("“{}” has a new secret. The old one stopped.", rotated.name),
    });
    Ok(see_other(&format!("/keys/{}", rotated.id)))
}

/// What cannot be undone, and is done to the key whose name was typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Revoke,
    Compromise,
}

impl Ending {
    /// Its word in addresses: of the page that asks, and of the API's call.
    fn path(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Compromise => "compromise",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Revoke => "Revoke a key",
            Self::Compromise => "Mark a key as compromised",
        }
    }

    fn is_final(self) -> bool {
        self == Self::Revoke
    }
}

#[derive(Template)]
#[template(path = "keys/end.html")]
struct End {
    frame: Frame,
    key: Shown,
    ending: Ending,
    reason: String,
    is_misspelt: bool,
}

/// The page that asks whether to revoke.
pub async fn revoke_page(visitor: Visitor, Path(key): Path<String>) -> Answer {
    Ok(answer(&asking(&visitor, &key, Ending::Revoke, None).await?))
}

/// The page that asks whether others know the key's secret.
pub async fn compromise_page(visitor: Visitor, Path(key): Path<String>) -> Answer {
    Ok(answer(&asking(&visitor, &key, Ending::Compromise, None).await?))
}

/// The page that asks; `misspelt` is a form that did not have the key's name.
async fn asking(visitor: &Visitor, key: &str, ending: Ending, misspelt: Option<&Fields>) -> Result<End, Problem> {
    let key = find(&visitor.client, key).await?;
    let frame = Frame::about(visitor, Section::Keys, ending.title(), &key.account, key.mode, None).await?;
    let reason = misspelt.map(|fields| fields.text("reason").to_owned()).unwrap_or_default();
    Ok(End { key: Shown::new(key, frame.now), frame, ending, reason, is_misspelt: misspelt.is_some() })
}

/// Revokes the key whose name was typed.
pub async fn revoke(Path(key): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let reason = fields.text("reason");
    let body = if reason.is_empty() { json!({}) } else { json!({ "reason": reason }) };
    let told = |name: &str| format!("“{name}” is revoked: calls with it get 401 from now on.");
    end(&visitor, &key, Ending::Revoke, &fields, &body, told).await
}

/// Says that others know the secret of the key whose name was typed.
pub async fn compromise(Path(key): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let told = |name: &str| format!("“{name}” is marked as compromised: its secret works no more. Rotate it to go on.");
    end(&visitor, &key, Ending::Compromise, &fields, &json!({}), told).await
}

async fn end(
    visitor: &Visitor,
    key: &str,
    ending: Ending,
    fields: &Fields,
    body: &Value,
    told: impl Fn(&str) -> String,
) -> Answer {
    let name = find(&visitor.client, key).await?.name;
    if fields.text("name") != name.trim() {
        let page = asking(visitor, key, ending, Some(fields)).await?;
        return Ok(page_with(StatusCode::BAD_REQUEST, &page));
    }
    if change(visitor, key, ending.path(), body).await?.is_some() {
        visitor.tell(told(&name));
    }
    Ok(see_other(&format!("/keys/{key}")))
}

/// Switches the key off.
pub async fn disable(Path(key): Path<String>, Posted { visitor, .. }: Posted) -> Answer {
    if let Some(key) = change(&visitor, &key, "disable", &json!({})).await? {
        visitor.tell(format!("“{}” is disabled: calls with it get 401 until it is enabled again.", key.name));
    }
    Ok(see_other(&format!("/keys/{key}")))
}

/// Switches the key on again.
pub async fn enable(Path(key): Path<String>, Posted { visitor, .. }: Posted) -> Answer {
    if let Some(key) = change(&visitor, &key, "enable", &json!({})).await? {
        visitor.tell(format!("“{}” is enabled: calls with it are answered again.", key.name));
    }
    Ok(see_other(&format!("/keys/{key}")))
}

/// Has the API do it. What cannot be done as things are is told by the key's page; the key is not there then.
async fn change(visitor: &Visitor, key: &str, what: &str, body: &Value) -> Result<Option<KeyView>, Problem> {
    visitor.or_warn(visitor.client.post(&["keys", key, what], body).await, Problem::is_about_input)
}
