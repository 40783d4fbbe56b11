//! Tokens that were found where they should not be, as services that scan public code report them.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::input::Listed;
use super::refusal::{Refusal, Refusals};
use super::{Caller, Manage, Shared, blocking};
use crate::authorize::manage::Subject;
use crate::key::{ForeignToken, Glance, Kind, Secret, Selector, Token, UserToken};
use crate::ledger::Exposure;
use crate::ring::LiveKey;
use crate::trail::By;

/// Tokens of one report.
const MOST: usize = 1_000;

/// A token that was found.
#[derive(Deserialize, ToSchema)]
pub struct Leak {
    /// The token, as it was found.
    #[schema(value_type = String)]
    token: Zeroizing<String>,
    /// Where it was found.
    url: Option<String>,
    /// In what kind of place: `commit`, `issue`, …
    source: Option<String>,
    /// What the scanning service calls this kind of token; not looked at.
    #[serde(default, rename = "type")]
    #[expect(dead_code, reason = "services send it, and unknown fields are let pass for them alone")]
    kind: Option<String>,
}

/// What became of each, in the order of the report.
#[derive(Serialize, ToSchema)]
pub struct Reported {
    items: Vec<Outcome>,
}

/// What became of one.
#[derive(Serialize, ToSchema)]
pub struct Outcome {
    /// `marked`, `known` (it was marked before), `public` (a publishable key, which harms nobody), or `not_ours`.
    #[serde(rename = "outcome")]
    became: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

impl Outcome {
    fn not_ours() -> Self {
        Self { became: "not_ours", key: None, user: None }
    }
}

/// Report tokens that were found; those that are ours are dead from then on.
#[utoipa::path(
    post, path = "/v1/leaks", tag = "keys", operation_id = "reportLeaks", request_body = Vec<Leak>,
    responses((status = 200, body = Reported), Refusals)
)]
pub(super) async fn report_leaks(
    State(manage): State<Shared>,
    caller: Caller,
    Listed(leaks): Listed<Leak>,
) -> Result<Json<Reported>, Refusal> {
    let by = caller.may(Subject::System)?;
    if leaks.len() > MOST {
        return Err(Refusal::invalid(None, format!("{} tokens, and at most {MOST} are taken", leaks.len())));
    }
    let mut items = Vec::with_capacity(leaks.len());
    for leak in &leaks {
        items.push(manage.reported(leak, by).await?);
    }
    Ok(Json(Reported { items }))
}

impl Manage {
    async fn reported(&self, leak: &Leak, by: &By) -> Result<Outcome, Refusal> {
        let text = leak.token.trim().as_bytes();
        let place = [leak.source.as_deref(), leak.url.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let place: String =
            crate::key::masked(&place).chars().filter(|character| !character.is_control()).take(500).collect();
        let how = if place.is_empty() { "reported as found".to_owned() } else { format!("reported as found: {place}") };
        if let Ok(token) = Token::parse(text) {
            self.key_reported(&token, how, by).await
        } else if let Ok(token) = UserToken::parse(text) {
            self.token_reported(&token, how, by).await
        } else if let Some(token) = ForeignToken::parse(text) {
            let found = self.pdp.find_foreign(&token).await.map_err(|busy| super::users::too_busy(&busy))?;
            match found {
                Some((live, selector)) => self.marked(&live, selector, how, by).await,
                None => Ok(Outcome::not_ours()),
            }
        } else {
            Ok(Outcome::not_ours())
        }
    }

    /// Marks the secret of a token that was found.
    async fn marked(&self, live: &LiveKey, selector: Selector, how: String, by: &By) -> Result<Outcome, Refusal> {
        let (ledger, id, by) = (self.ledger().clone(), live.key.id, by.clone());
        let key = Some(id.to_string());
        if live.key.kind == Kind::Publishable {
            return Ok(Outcome { became: "public", key, user: None });
        }
        let marked = blocking(move || ledger.expose(&id, &selector, Exposure::Kills, &how, &by)).await?;
        Ok(Outcome { became: if marked { "marked" } else { "known" }, key, user: None })
    }

    async fn key_reported(&self, token: &Token<'_>, how: String, by: &By) -> Result<Outcome, Refusal> {
        let found = self.ledger().ring().find(&token.selector);
        let Some(live) = found.filter(|live| (live.key.kind, live.key.mode) == (token.kind, token.mode)) else {
            return Ok(Outcome::not_ours());
        };
        let Some(stored) = live.key.secret(&token.selector) else { return Ok(Outcome::not_ours()) };
        let is_ours = match live.glance(token) {
            Glance::Proven => true,
            Glance::Wrong => false,
            Glance::Unproven => self.check(&token.selector, Secret::of(token), &stored.phc).await?,
        };
        if !is_ours {
            return Ok(Outcome::not_ours());
        }
        self.marked(&live, token.selector, how, by).await
    }

    async fn token_reported(&self, token: &UserToken<'_>, how: String, by: &By) -> Result<Outcome, Refusal> {
        let Some(live) = self.ledger().people().by_selector(&token.selector) else { return Ok(Outcome::not_ours()) };
        let Some(stored) = live.user.token(&token.selector) else { return Ok(Outcome::not_ours()) };
        let is_ours = match live.glance(token) {
            Glance::Proven => true,
            Glance::Wrong => false,
            Glance::Unproven => self.check(&token.selector, Secret::of(token), &stored.secret.phc).await?,
        };
        if !is_ours {
            return Ok(Outcome::not_ours());
        }
        let (ledger, id, selector, by) = (self.ledger().clone(), live.user.id, token.selector, by.clone());
        let marked = blocking(move || ledger.expose_token(&id, &selector, &how, &by)).await?;
        Ok(Outcome { became: if marked { "marked" } else { "known" }, key: None, user: Some(id.to_string()) })
    }

    async fn check(&self, selector: &Selector, secret: Secret, phc: &crate::key::Phc) -> Result<bool, Refusal> {
        self.pdp.verifier().verify(selector, secret, phc).await.map_err(|busy| super::users::too_busy(&busy))
    }
}
