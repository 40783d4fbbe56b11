//! Signing in and out.

use std::time::Instant;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::api::Problem;
use super::assets;
use super::frame::{page as answer, page_with};
use super::visitor::{Answer, Browser, Open, Posted, Visitor, see_other};
use crate::http::manage::users::SignedIn;
use crate::http::manage::view::TokenView;
use crate::ledger::SIGNED_IN;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Page<'a> {
    style: &'static str,
    email: &'a str,
    next: &'a str,
    problem: Option<&'a str>,
}

/// Where to go after signing in.
#[derive(Deserialize)]
pub struct Wanted {
    #[serde(default)]
    next: String,
}

/// The form.
pub async fn page(_: Browser, Query(wanted): Query<Wanted>) -> Answer {
    Ok(answer(&Page { style: assets::style(), email: "", next: place(&wanted.next), problem: None }))
}

/// A page of ours, and of nobody else's: a path that browsers can take for nothing else.
fn place(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_path && is_plain && !next.starts_with("/sign-") { next } else { "/" }
}

/// Signs a person in.
pub async fn submit(State(shared): State<Shared>, Open { browser, fields }: Open) -> Answer {
    let (email, next) = (fields.text("email"), place(fields.text("next")));
    let asked = json!({ "email": email, "password": fields.raw("password") });
    let signed_in: Result<SignedIn, Problem> = browser.client.post(&["sign-in"], &asked).await;
    let signed_in = match signed_in {
        Ok(signed_in) => signed_in,
        Err(problem) => {
            let detail = match problem.status {
                400 | 401 => "The e-mail address or the password is wrong.",
                429 => "Too many attempts. Wait a little, and try again.",
                _ => &problem.detail,
            };
            let status = if problem.status == 400 { StatusCode::UNAUTHORIZED } else { problem.status() };
            return Ok(page_with(status, &Page { style: assets::style(), email, next, problem: Some(detail) }));
        }
    };
    let begun = shared.sessions.begin(&signed_in.user.id, signed_in.token, signed_in.token_id, Instant::now());
    let cookie = begun.map_err(|error| Problem::internal(&error))?;
    let mut response = see_other(next);
    browser.set_cookie(&mut response, Some(&cookie));
    Ok(response)
}

/// Signs out here: the session ends, and the token behind it.
pub async fn sign_out(browser: Browser, Posted { visitor, .. }: Posted) -> Answer {
    visitor.end();
    end_tokens(&visitor, |token| token.id == visitor.session.token_id).await?;
    Ok(signed_out(&browser))
}

/// Signs out in all browsers, and at the command line.
pub async fn sign_out_everywhere(browser: Browser, Posted { visitor, .. }: Posted) -> Answer {
    visitor.end_all();
    end_tokens(&visitor, |token| token.name == SIGNED_IN).await?;
    Ok(signed_out(&browser))
}

/// Removes tokens of the visitor's; the one that this is done with at last.
async fn end_tokens(visitor: &Visitor, is_meant: impl Fn(&TokenView) -> bool) -> Result<(), Problem> {
    let mut tokens: Vec<&TokenView> = visitor.me.tokens.iter().filter(|token| is_meant(token)).collect();
    tokens.sort_by_key(|token| token.id == visitor.session.token_id);
    for token in tokens {
        let path = ["users", &visitor.me.id, "tokens", &token.id];
        match visitor.client.call(Method::DELETE, &path, &[]).done().await {
            Err(problem) if problem.status != 404 => return Err(problem),
            _ => {}
        }
    }
    Ok(())
}

fn signed_out(browser: &Browser) -> Response {
    let mut response = see_other("/sign-in");
    browser.set_cookie(&mut response, None);
    response
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn signing_in_leads_to_pages_of_ours_alone() {
        for next in ["/accounts/acct_1/live?x=1", "/policies"] {
            assert_eq!(place(next), next);
        }
        for next in ["", "//evil.test", "/\\evil.test", "https://evil.test", "/a b", "/\u{e9}", "/sign-out", "x"] {
            assert_eq!(place(next), "/", "{next}");
        }
    }
}
