//! The visitor's own password and tokens.

use askama::Template;
use axum::extract::Path;
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use zeroize::Zeroizing;

use super::api::Problem;
use super::frame::{Frame, Section, page as answer};
use super::session::{Fresh, random};
use super::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::view::TokenView;
use crate::ledger::SIGNED_IN;

#[derive(Template)]
#[template(path = "me.html")]
struct Page {
    frame: Frame,
    id: String,
    tokens: Vec<TokenView>,
    sessions: Vec<TokenView>,
    current: String,
    fresh: Option<Fresh>,
    once: Zeroizing<String>,
    has_password: bool,
}

/// The page.
pub async fn page(visitor: Visitor) -> Answer {
    let frame = Frame::new(&visitor, Section::Me, "Your access").await?;
    let once = random().map_err(|error| Problem::internal(&error))?;
    let newest = visitor.waiting().into_iter().rfind(|of| of.starts_with("tok_"));
    let fresh = newest.and_then(|newest| visitor.fresh(|of| of == newest).pop());
    let id = visitor.me.id.clone();
    let (current, has_password) = (visitor.session.token_id.clone(), visitor.me.has_password);
    let (sessions, tokens) = visitor.me.tokens.into_iter().partition(|token| token.name == SIGNED_IN);
    Ok(answer(&Page { frame, id, tokens, sessions, current, fresh, once, has_password }))
}

/// Changes the password. All sign-ins end, this one among them.
pub async fn set_password(Posted { visitor, fields }: Posted) -> Answer {
    if fields.raw("password") != fields.raw("again") {
        visitor.warn("The two new passwords are not the same. Nothing was changed.");
        return Ok(see_other("/me"));
    }
    let asked = json!({
        "password": fields.raw("password"),
        "current_password": fields.raw("current"),
        "end_tokens": fields.is_ticked("end_tokens"),
    });
    let call = visitor.client.call(Method::PUT, &["users", &visitor.me.id, "password"], &[]).body(&asked);
    match call.done().await {
        Ok(()) => {
            visitor.end_all();
            Ok(see_other("/sign-in"))
        }
        // A wrong password is no reason to sign the person out.
        Err(problem) if problem.is_about_input() || problem.code == "sign_in_failed" => {
            visitor.warn(if problem.status == 401 {
                "The password so far is wrong. Nothing was changed.".into()
            } else {
                problem.detail
            });
            Ok(see_other("/me"))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// Makes a token, and has the page show it.
pub async fn create_token(Posted { visitor, fields }: Posted) -> Answer {
    let days: Option<i64> = fields.text("days").parse().ok();
    let end = days.and_then(|days| Timestamp::now().checked_add(SignedDuration::from_hours(24 * days.min(3660))).ok());
    let asked = json!({ "name": fields.text("name"), "expires_at": end });
    let call = visitor.client.call(Method::POST, &["users", &visitor.me.id, "tokens"], &[]);
    let made = call.body(&asked).once(fields.text("once")).send::<TokenView>().await;
    if let Some(made) = visitor.or_warn(made, Problem::is_about_input)? {
        visitor.tell(format!("The token “{}” was made.", made.name));
        visitor.keep(made.token.map(|token| Fresh { of: made.id, token }).into_iter().collect());
    }
    Ok(see_other("/me"))
}

/// Removes a token.
pub async fn delete_token(Path(token): Path<String>, Posted { visitor, .. }: Posted) -> Answer {
    let call = visitor.client.call(Method::DELETE, &["users", &visitor.me.id, "tokens", &token], &[]);
    if visitor.or_warn(call.done().await, Problem::is_about_input_or_gone)?.is_some() {
        visitor.tell("The token is removed, and works no more.");
    }
    Ok(see_other("/me"))
}
