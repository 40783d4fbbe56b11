//! Accounts and their members.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode, Uri};
use axum::response::IntoResponse;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

use super::input::{Input, Params, RetryKey, Seen};
use super::key_list::Search;
use super::once::{Made, once, shown};
use super::paging::Paging;
use super::refusal::{Refusal, Refusals};
use super::view::{AccountView, KeyView, Member, NewAccount, Page, created, versioned};
use super::{Caller, Shared, blocking};
use crate::authorize::manage::Subject;
use crate::directory::LiveUser;
use crate::key::{AccountId, KeyId, UserId};
use crate::ledger::{Ledger, Once};
use crate::people::Role;
use crate::ring::LiveAccount;

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
}

/// Another name for an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameAccount {
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
}

/// What a person is to be in an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMember {
    role: Role,
}

/// Which accounts, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AccountFilter {
    /// Those whose name holds this text, in capitals or not, or whose id begins with it.
    #[param(max_length = 200)]
    search: Option<String>,
    /// Those behind this one: the `next` of the page before.
    after: Option<String>,
    /// At most so many; 1 to 1,000, 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The account of this id.
pub(super) fn find_account(manage: &super::Manage, id: &str) -> Result<Arc<LiveAccount>, Refusal> {
    let id: AccountId = id.parse().map_err(|_| Refusal::not_found("account"))?;
    manage.ledger().ring().account(&id).ok_or_else(|| Refusal::not_found("account"))
}

/// Make an account with its two pairs of keys, publishable and secret, live and test. Their tokens are shown this once.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "accounts", operation_id = "createAccount", request_body = CreateAccount,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one account, for a day")),
    responses((status = 201, body = NewAccount, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn create_account(
    State(manage): State<Shared>,
    caller: Caller,
    RetryKey(key): RetryKey,
    uri: Uri,
    Input(input, bytes): Input<CreateAccount>,
) -> Result<Response<Body>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let (once, cost, now) = (once(&caller, key.as_deref(), uri.path(), &bytes), manage.cost, by.now);
    let asked = once.clone();
    let make = move |ledger: &Ledger, once: Option<&Once>| {
        let (account, pairs) = ledger.create_account(&input.name, cost, once, &by)?;
        let tokens: Vec<_> = pairs.iter().map(|(key, mint)| shown(&key.id, mint)).collect();
        Ok(((account, pairs, tokens.clone()), tokens))
    };
    let made = manage.make_once(asked, make).await?;
    let (id, is_replay) = match made {
        Made::Now((account, pairs, tokens)) => {
            let keys =
                pairs.iter().zip(tokens).map(|((key, _), (_, token))| KeyView::of(key, now).showing(Some(token)));
            let live = LiveAccount { account, version: 1 };
            let body = NewAccount { account: AccountView::of(&live), keys: keys.collect() };
            return Ok(created(&format!("/v1/accounts/{}", live.account.id), 1, false, body));
        }
        Made::Before(id) => (id, true),
    };
    let live = find_account(&manage, &id)?;
    let mut keys = manage.ledger().ring().keys_of(&live.account.id);
    // As they were made, so that the answer is the one that was given then.
    keys.sort_by_key(|live| (live.key.mode, live.key.kind.as_str()));
    let of_then = keys.iter().filter(|key| key.key.created_at == live.account.created_at.into());
    let token = |id: KeyId| manage.recent.find(once.as_ref(), &id.to_string());
    let keys = of_then.map(|live| KeyView::of(&live.key, now).showing(token(live.key.id))).collect();
    let body = NewAccount { account: AccountView::of(&live), keys };
    Ok(created(&format!("/v1/accounts/{id}"), live.version, is_replay, body))
}

/// List the accounts that you may see, in the order of their creation.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts", operation_id = "listAccounts", params(AccountFilter),
    responses((status = 200, body = Page<AccountView>), Refusals)
)]
pub(super) async fn list_accounts(
    State(manage): State<Shared>,
    caller: Caller,
    Params(filter): Params<AccountFilter>,
) -> Result<Json<Page<AccountView>>, Refusal> {
    caller.may(Subject::System)?;
    let mut accounts = manage.ledger().ring().accounts();
    caller.keep_those_that_could("getAccount", &mut accounts);
    let place = |live: &LiveAccount| (live.account.created_at, live.account.id);
    let paging = Paging { after: filter.after, limit: filter.limit };
    // Before any is left out by the search: nobody is told of an account that they may not see.
    let after = paging.behind(|after| {
        let id: AccountId = after.parse().ok()?;
        accounts.iter().find(|live| live.account.id == id).map(|live| place(live))
    })?;
    if let Some(search) = filter.search.as_deref().map(Search::of).transpose()? {
        accounts.retain(|live| search.finds_named(&live.account.name, &["acct_", live.account.id.as_str()]));
    }
    let total = accounts.len();
    accounts.sort_by_key(|live| place(live));
    accounts.retain(|live| after.is_none_or(|after| place(live) > after));
    let next = paging.cut(&mut accounts, |live| live.account.id.to_string())?;
    Ok(Json(Page { items: accounts.iter().map(|live| AccountView::of(live)).collect(), next, total: Some(total) }))
}

/// Look at an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}", tag = "accounts", operation_id = "getAccount",
    params(("account" = String, Path, description = "`acct_…`")),
    responses((status = 200, body = AccountView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn get_account(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_account(&manage, &caller, &account)?;
    Ok(versioned(live.version, AccountView::of(&live)))
}

/// The account of this id, if the caller may do what they want to do to it.
fn seen_account(manage: &super::Manage, caller: &Caller, id: &str) -> Result<Arc<LiveAccount>, Refusal> {
    let live = find_account(manage, id).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
    caller.may(Subject::Account(live.account.id))?;
    Ok(live)
}

/// Give an account another name.
#[utoipa::path(
    patch, path = "/v1/accounts/{account}", tag = "accounts", operation_id = "renameAccount",
    request_body = RenameAccount,
    params(
        ("account" = String, Path, description = "`acct_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = AccountView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn rename_account(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
    Seen(seen): Seen,
    Input(input, _): Input<RenameAccount>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_account(&manage, &caller, &account)?;
    let (ledger, id, by) = (manage.ledger().clone(), live.account.id, caller.by);
    let live = blocking(move || ledger.rename_account(&id, &input.name, seen.wanted(live.version), &by)).await?;
    Ok(versioned(live.version, AccountView::of(&live)))
}

/// Close an account for good: all its keys are revoked at the same moment.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/close", tag = "accounts", operation_id = "closeAccount",
    params(
        ("account" = String, Path, description = "`acct_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = AccountView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn close_account(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    let live = seen_account(&manage, &caller, &account)?;
    let (ledger, id, by) = (manage.ledger().clone(), live.account.id, caller.by);
    let live = blocking(move || ledger.close_account(&id, seen.wanted(live.version), &by)).await?;
    Ok(versioned(live.version, AccountView::of(&live)))
}

/// List who is what in an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/members", tag = "accounts", operation_id = "listMembers",
    params(("account" = String, Path, description = "`acct_…`")),
    responses((status = 200, body = Page<Member>), Refusals)
)]
pub(super) async fn list_members(
    State(manage): State<Shared>,
    caller: Caller,
    Path(account): Path<String>,
) -> Result<Json<Page<Member>>, Refusal> {
    let live = seen_account(&manage, &caller, &account)?;
    let users = manage.ledger().people().all();
    let members = users.iter().filter_map(|user| {
        let user = &user.user;
        let role = *user.roles.get(&live.account.id)?;
        let (email, name) = (user.email.as_str().to_owned(), user.name.to_string());
        Some(Member { user: user.id.to_string(), email, name, role })
    });
    Ok(Json(Page::uncounted(members.collect(), None)))
}

/// Owners know each other's e-mail addresses rather than ids.
fn member(manage: &super::Manage, named: &str) -> Result<Arc<LiveUser>, Refusal> {
    let people = manage.ledger().people();
    let by_email = || people.by_email(&named.parse().ok()?);
    named
        .parse()
        .ok()
        .and_then(|id: UserId| people.user(&id))
        .or_else(by_email)
        .ok_or_else(|| Refusal::not_found("user"))
}

/// Give a person a role in an account, in place of the one that they had.
#[utoipa::path(
    put, path = "/v1/accounts/{account}/members/{user}", tag = "accounts", operation_id = "setMember",
    request_body = SetMember,
    params(
        ("account" = String, Path, description = "`acct_…`"),
        ("user" = String, Path, description = "`usr_…`, or their e-mail address"),
        ("If-Match" = Option<String>, Header, description = "The person's ETag that you have seen")
    ),
    responses((status = 200, body = Member, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn set_member(
    State(manage): State<Shared>,
    caller: Caller,
    Path((account, user)): Path<(String, String)>,
    Seen(seen): Seen,
    Input(input, _): Input<SetMember>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_account(&manage, &caller, &account)?;
    let member = member(&manage, &user)?;
    let (ledger, account, by) = (manage.ledger().clone(), live.account.id, caller.by);
    let (id, seen) = (member.user.id, seen.wanted(member.version));
    let user = blocking(move || ledger.grant(&id, account, Some(input.role), seen, &by)).await?;
    let (email, name) = (user.user.email.as_str().to_owned(), user.user.name.to_string());
    Ok(versioned(user.version, Member { user: id.to_string(), email, name, role: input.role }))
}

/// Take a person's role in an account from them.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}/members/{user}", tag = "accounts", operation_id = "removeMember",
    params(
        ("account" = String, Path, description = "`acct_…`"),
        ("user" = String, Path, description = "`usr_…`, or their e-mail address"),
        ("If-Match" = Option<String>, Header, description = "The person's ETag that you have seen")
    ),
    responses((status = 204), Refusals)
)]
pub(super) async fn remove_member(
    State(manage): State<Shared>,
    caller: Caller,
    Path((account, user)): Path<(String, String)>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    let live = seen_account(&manage, &caller, &account)?;
    let member = member(&manage, &user)?;
    let (ledger, account, by) = (manage.ledger().clone(), live.account.id, caller.by);
    let (id, seen) = (member.user.id, seen.wanted(member.version));
    blocking(move || ledger.grant(&id, account, None, seen, &by)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
