//! People: an account's team, and everybody.

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::http::Method;
use serde_json::{Value, json};

use super::access::Operations;
use super::api::{Problem, set};
use super::fields::Fields;
use super::frame::{Frame, Section, page as answer};
use super::show::with;
use super::visitor::{Answer, Posted, Visitor, see_other};
use crate::http::manage::view::{Member, Page as ListOf, UserView};
use crate::key::Mode;

/// People of a page.
const PAGE: &str = "100";

/// What somebody can be in an account, and what that means.
const ROLES: [(&str, &str); 3] = [
    ("owner", "Owner: everything in the account, and its team"),
    ("developer", "Developer: manages test keys, sees live ones"),
    ("viewer", "Viewer: sees everything, changes nothing"),
];

#[derive(Template)]
#[template(path = "people/team.html")]
struct Team {
    frame: Frame,
    account: String,
    members: Vec<Member>,
    me: String,
    can_change: bool,
}

/// An account's members.
pub async fn team(visitor: Visitor, Path(account): Path<String>) -> Answer {
    let frame = Frame::about(&visitor, Section::Team, "Team", &account, Mode::Live, None).await?;
    let members: ListOf<Member> = visitor.client.get(&["accounts", &account, "members"], &[]).await?;
    let can_change = frame.can_here("setMember") && !frame.is_closed();
    Ok(answer(&Team { frame, account, members: members.items, me: visitor.me.id.clone(), can_change }))
}

/// Gives a person a role. The path's `user` is theirs, or `new`, and then the form says who.
pub async fn set_member(Path((account, user)): Path<(String, String)>, Posted { visitor, fields }: Posted) -> Answer {
    let user = if user == "new" { fields.text("user").to_owned() } else { user };
    let call = visitor.client.call(Method::PUT, &["accounts", &account, "members", &user], &[]);
    let done = call.body(&json!({ "role": fields.text("role") })).response().await.map(drop);
    told(&visitor, done, "The team is changed.", &format!("/accounts/{account}/team"))
}

#[derive(Template)]
#[template(path = "people/remove.html")]
struct Remove {
    frame: Frame,
    account: String,
    member: Member,
    is_me: bool,
}

/// The page that asks whether to take a person's role away.
pub async fn remove_page(visitor: Visitor, Path((account, user)): Path<(String, String)>) -> Answer {
    let frame = Frame::about(&visitor, Section::Team, "Remove a member", &account, Mode::Live, None).await?;
    let members: ListOf<Member> = visitor.client.get(&["accounts", &account, "members"], &[]).await?;
    let member = members.items.into_iter().find(|member| member.user == user).ok_or_else(Problem::not_found)?;
    Ok(answer(&Remove { frame, account, is_me: member.user == visitor.me.id, member }))
}

/// Takes a person's role away.
pub async fn remove_member(Path((account, user)): Path<(String, String)>, Posted { visitor, .. }: Posted) -> Answer {
    let call = visitor.client.call(Method::DELETE, &["accounts", &account, "members", &user], &[]);
    // Whoever leaves sees the account no more.
    let next = if user == visitor.me.id { "/".to_owned() } else { format!("/accounts/{account}/team") };
    told(&visitor, call.done().await, "They are in the team no more.", &next)
}

fn told(visitor: &Visitor, done: Result<(), Problem>, text: &str, next: &str) -> Answer {
    if visitor.or_warn(done, Problem::is_about_input_or_gone)?.is_some() {
        visitor.tell(text);
    }
    Ok(see_other(next))
}

#[derive(Template)]
#[template(path = "people/list.html")]
struct List {
    frame: Frame,
    people: Vec<UserView>,
    next: Option<String>,
}

/// Everybody.
pub async fn list(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = Frame::new(&visitor, Section::People, "People").await?;
    let asked = [("after", fields.text("after")), ("limit", PAGE)];
    let people: ListOf<UserView> = visitor.client.get(&["users"], &asked).await?;
    let next = people.next.map(|next| with(fields.pairs(), "after", &next));
    Ok(answer(&List { frame, people: people.items, next }))
}

/// Makes a person known.
pub async fn create(Posted { visitor, fields }: Posted) -> Answer {
    let mut asked = json!({
        "email": fields.text("email"),
        "name": fields.text("name"),
        "operator": fields.is_ticked("operator"),
    });
    if !fields.raw("password").is_empty() {
        set(&mut asked, "password", fields.raw("password"));
    }
    if let Some(account) = fields.given("account") {
        set(&mut asked, "roles", json!({ account: fields.given("role").unwrap_or("viewer") }));
    }
    let made: Result<UserView, Problem> = visitor.client.post(&["users"], &asked).await;
    match made {
        Ok(user) => {
            visitor.tell(format!("{} is known now.", user.name));
            Ok(see_other(&format!("/people/{}", user.id)))
        }
        Err(problem) => told(&visitor, Err(problem), "", "/people"),
    }
}

#[derive(Template)]
#[template(path = "people/one.html")]
struct One {
    frame: Frame,
    person: UserView,
    version: String,
    can: Operations,
}

/// A person.
pub async fn one(visitor: Visitor, Path(user): Path<String>) -> Answer {
    let found = visitor.client.get_versioned::<UserView>(&["users", &user]).await?;
    let frame = Frame::new(&visitor, Section::People, &found.body.name).await?;
    let can = Operations::on(&visitor.client, "user", &user).await?;
    Ok(answer(&One { frame, person: found.body, version: found.version, can }))
}

/// Changes a person.
pub async fn update(Path(user): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let asked: Value = json!({
        "name": fields.text("name"),
        "email": fields.text("email"),
        "operator": fields.is_ticked("operator"),
        "active": fields.is_ticked("active"),
    });
    let call = visitor.client.call(Method::PATCH, &["users", &user], &[]).body(&asked);
    let done = call.if_match(fields.text("version")).send::<UserView>().await.map(drop);
    told(&visitor, done, "They are saved.", &format!("/people/{user}"))
}

/// Sets a person's password.
pub async fn set_password(Path(user): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    if user == visitor.me.id {
        return Ok(see_other("/me"));
    }
    let asked = json!({ "password": fields.raw("password") });
    let done = visitor.client.call(Method::PUT, &["users", &user, "password"], &[]).body(&asked).done().await;
    told(&visitor, done, "The password is set, and they are signed out everywhere.", &format!("/people/{user}"))
}

/// Removes a person.
pub async fn delete(Path(user): Path<String>, Posted { visitor, fields }: Posted) -> Answer {
    let person: UserView = visitor.client.get(&["users", &user], &[]).await?;
    if fields.text("email") != person.email {
        visitor.warn("That is not their e-mail address. Nothing was done.");
        return Ok(see_other(&format!("/people/{user}")));
    }
    let done = visitor.client.call(Method::DELETE, &["users", &user], &[]).done().await;
    let next = if done.is_ok() { "/people".to_owned() } else { format!("/people/{user}") };
    told(&visitor, done, "They are removed.", &next)
}
