//! Accounts: choosing one, making one, its name and its end.

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::http::Method;
use serde_json::json;
use zeroize::Zeroizing;

use super::api::Problem;
use super::fields::Fields;
use super::frame::{Frame, Section, page as answer, page_with};
use super::session::random;
use super::show::with;
use super::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::view::{AccountView, KeyView, NewAccount, Page as ListOf};
use crate::key::Mode;

/// Accounts of a page.
const PAGE: &str = "50";

#[derive(Template)]
#[template(path = "accounts/list.html")]
struct List {
    frame: Frame,
    accounts: Vec<AccountView>,
    total: usize,
    search: String,
    once: Zeroizing<String>,
    name: String,
    problem: Option<Problem>,
    is_first: bool,
    next: Option<String>,
}

/// The accounts that the visitor may see.
pub async fn list(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    Ok(answer(&listed(&visitor, &fields, "", None).await?))
}

async fn listed(visitor: &Visitor, fields: &Fields, name: &str, problem: Option<Problem>) -> Result<List, Problem> {
    let frame = Frame::new(visitor, Section::Accounts, "Accounts").await?;
    let search = fields.text("search").to_owned();
    let asked = [("search", search.as_str()), ("after", fields.text("after")), ("limit", PAGE)];
    let accounts: ListOf<AccountView> = visitor.client.get(&["accounts"], &asked).await?;
    let next = accounts.next.map(|next| with(fields.pairs(), "after", &next));
    let once = random().map_err(|error| Problem::internal(&error))?;
    let (accounts, total) = (accounts.items, accounts.total.unwrap_or_default());
    Ok(List {
        frame,
        accounts,
        total,
        search,
        once,
        name: name.to_owned(),
        problem,
        is_first: fields.text("after").is_empty(),
        next,
    })
}

#[derive(Template)]
#[template(path = "accounts/made.html")]
struct Made {
    frame: Frame,
    keys: Vec<(KeyView, Zeroizing<String>)>,
}

/// Makes an account, and shows the tokens of its four keys: here, because four do not fit the page of one key.
pub async fn create(Posted { visitor, fields }: Posted) -> Answer {
    let name = fields.text("name");
    let call = visitor.client.call(Method::POST, &["accounts"], &[]).body(&json!({ "name": name }));
    match call.once(fields.text("once")).send::<NewAccount>().await {
        Ok(made) => {
            visitor.tell(format!("The account “{}” was created.", made.account.name));
            let fresh =
                made.keys.into_iter().filter_map(|key| Some(super::session::Fresh { of: key.id, token: key.token? }));
            visitor.keep(fresh.collect());
            Ok(see_other(&format!("/accounts/{}", made.account.id)))
        }
        Err(problem) if problem.is_about_input() => {
            let status = problem.status();
            Ok(page_with(status, &listed(&visitor, &Fields::default(), name, Some(problem)).await?))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// The tokens of a new account's keys, once; then its keys.
pub async fn enter(visitor: Visitor, Path(account): Path<String>) -> Answer {
    let mut keys = Vec::new();
    for id in visitor.waiting().iter().filter(|id| id.starts_with("key_")) {
        match super::keys::find(&visitor.client, id).await {
            Ok(key) if key.account == account => keys.push(key),
            // What another page shows is none of this page's business.
            Ok(_) => {}
            Err(problem) if matches!(problem.status, 403 | 404) => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    if keys.is_empty() {
        return Ok(see_other(&format!("/accounts/{account}/live")));
    }
    let frame = Frame::about(&visitor, Section::Keys, "A new account", &account, Mode::Live, None).await?;
    let fresh = visitor.fresh(|of| keys.iter().any(|key| key.id == of));
    let token_of = |key: KeyView| {
        let token = fresh.iter().find(|fresh| fresh.of == key.id)?.token.clone();
        Some((key, token))
    };
    Ok(answer(&Made { frame, keys: keys.into_iter().filter_map(token_of).collect() }))
}

#[derive(Template)]
#[template(path = "accounts/settings.html")]
struct Settings {
    frame: Frame,
    account: AccountView,
    version: String,
}

/// An account's name and end.
pub async fn settings(visitor: Visitor, Path(account): Path<String>) -> Answer {
    let frame = Frame::about(&visitor, Section::Settings, "Settings", &account, Mode::Live, None).await?;
    let found = visitor.client.get_versioned::<AccountView>(&["accounts", &account]).await?;
    Ok(answer(&Settings { frame, account: found.body, version: found.version }))
}

/// Gives the account another name.
pub async fn rename(Path(account): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let call = visitor.client.call(Method::PATCH, &["accounts", &account], &[]);
    let call = call.body(&json!({ "name": fields.text("name") })).if_match(fields.text("version"));
    let done = call.send::<AccountView>().await;
    told(&visitor, done.map(|account| format!("The account is called “{}” now.", account.name)), &account)
}

/// Closes the account whose name was typed.
pub async fn close(Path(account): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let known: AccountView = visitor.client.get(&["accounts", &account], &[]).await?;
    if fields.text("name") != known.name.trim() {
        visitor.warn("That is not the account's name. Nothing was done.");
        return Ok(see_other(&format!("/accounts/{account}/settings")));
    }
    let done = visitor.client.post::<AccountView>(&["accounts", &account, "close"], &json!({})).await;
    told(&visitor, done.map(|account| format!("“{}” is closed, and all its keys are revoked.", account.name)), &account)
}

fn told(visitor: &Visitor, done: Result<String, Problem>, account: &str) -> Answer {
    if let Some(text) = visitor.or_warn(done, Problem::is_about_input)? {
        visitor.tell(text);
    }
    Ok(see_other(&format!("/accounts/{account}/settings")))
}
