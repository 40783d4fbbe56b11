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
const PAGE: usize = 50;
/// People that are asked for at once where some are looked for.
const MANY: &str = "1000";

/// What somebody can be in an account, and what that means.
const ROLES: [(&str, &str); 3] = [
    ("owner", "Owner: everything in the account, and its team"),
    ("developer", "Developer: manages test keys, sees live ones"),
    ("viewer", "Viewer: sees everything, changes nothing"),
];

/// A page of people, of all or of those that are looked for.
struct Several<T> {
    items: Vec<T>,
    /// How many there are on all pages.
    total: usize,
    /// What is looked for; empty for everybody.
    search: String,
    is_first: bool,
    /// The query of the next page.
    next: Option<String>,
}

impl<T> Several<T> {
    /// Those that a query asks for; `said` is the id of one, and what they are looked for by besides.
    fn of(all: Vec<T>, fields: &Fields, said: impl Fn(&T) -> [&String; 3]) -> Self {
        let (search, after) = (fields.text("search").to_owned(), fields.text("after").to_owned());
        let wanted = search.to_lowercase();
        let is_found = |one: &T| said(one).iter().any(|text| text.to_lowercase().contains(&wanted));
        let found: Vec<T> = all.into_iter().filter(is_found).collect();
        let begins = found.iter().position(|one| *said(one)[0] == after).map_or(0, |place| place + 1);
        let total = found.len();
        let items: Vec<T> = found.into_iter().skip(begins).take(PAGE).collect();
        let last = items.last().filter(|_| begins + items.len() < total);
        let next = last.map(|last| with(fields.pairs(), "after", said(last)[0]));
        Self { next, items, total, search, is_first: begins == 0 }
    }

    /// Whether there are so many that one looks for some.
    fn are_many(&self) -> bool {
        self.total > 10 || !self.search.is_empty()
    }
}

#[derive(Template)]
#[template(path = "people/team.html")]
struct Team {
    frame: Frame,
    account: String,
    base: String,
    members: Several<Member>,
    me: String,
    can_change: bool,
}

/// An account's members.
pub async fn team(visitor: Visitor, Path(account): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = Frame::about(&visitor, Section::Team, "Team", &account, Mode::Live, None).await?;
    let members: ListOf<Member> = visitor.client.get(&["accounts", &account, "members"], &[]).await?;
    let can_change = frame.can_here("setMember") && !frame.is_closed();
    let members = Several::of(members.items, &fields, |member| [&member.user, &member.name, &member.email]);
    let base = format!("/accounts/{account}/team");
    Ok(answer(&Team { frame, account, base, members, me: visitor.me.id.clone(), can_change }))
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
    people: Several<UserView>,
}

/// Everybody.
pub async fn list(visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let fields = Fields::read(query.unwrap_or_default().as_bytes())?;
    let frame = Frame::new(&visitor, Section::People, "People").await?;
    let people = everybody(&visitor).await?;
    let people = Several::of(people, &fields, |person| [&person.id, &person.name, &person.email]);
    Ok(answer(&List { frame, people }))
}

/// The API looks for nobody by name, and has not so many people that they could not be looked through.
async fn everybody(visitor: &Visitor) -> Result<Vec<UserView>, Problem> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let asked = [("after", after.as_str()), ("limit", MANY)];
        let people: ListOf<UserView> = visitor.client.get(&["users"], &asked).await?;
        all.extend(people.items);
        match people.next {
            Some(next) => after = next,
            None => return Ok(all),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_found_by_name_address_and_id_and_each_is_on_one_page() {
        let all = || (0..120).map(|number| [format!("usr_{number}"), format!("Ada {number}"), "A@b".into()]).collect();
        let several = |query: &str| {
            Several::of(all(), &Fields::read(query.as_bytes()).unwrap(), |[id, name, email]: &[String; 3]| {
                [id, name, email]
            })
        };
        for (search, expected) in [("ada 11", 11), ("USR_7", 11), ("a@B", 120), ("nobody", 0), ("", 120)] {
            let found = several(&format!("search={search}"));
            assert_eq!((found.total, found.items.len()), (expected, expected.min(PAGE)), "{search}");
        }
        let (mut seen, mut query) = (Vec::new(), "search=ada".to_owned());
        for page in 0.. {
            let found = several(&query);
            assert_eq!(found.is_first, page == 0);
            seen.extend(found.items.into_iter().map(|[id, ..]| id));
            match found.next {
                Some(next) => query = next.trim_start_matches('?').to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, (0..120).map(|number| format!("usr_{number}")).collect::<Vec<_>>());
    }
}
