//! People: signing in, their records, their tokens.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::ETAG;
use axum::http::{Response, StatusCode, Uri};
use axum::response::IntoResponse;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::input::{Input, Params, RetryKey, Seen};
use super::once::{Made, once, shown};
use super::paging::Paging;
use super::refusal::{Refusal, Refusals};
use super::view::{Page, TokenView, UserView, created, made, versioned};
use super::{Caller, Manage, Shared, blocking, unauthenticated};
use crate::authorize::manage::Subject;
use crate::directory::LiveUser;
use crate::key::{AccountId, ApiTokenId, Glance, HashError, Secret, Selector, Status, UserId, UserToken};
use crate::ledger::{Ledger, LedgerError, Once, SIGNED_IN};
use crate::people::{Email, NewUser, Password, PasswordHash, PeopleError, RetryAfter, Role, User, UserState, verify};
use crate::trail::{Actor, By, Event, Happened};

/// How long a token lasts that was made by signing in.
const SESSION: SignedDuration = SignedDuration::from_hours(12);

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    email: String,
    #[schema(format = Password, value_type = String)]
    password: Zeroizing<String>,
}

/// A token that was made by signing in.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SignedIn {
    /// Give it as `Authorization: Bearer kw_…`.
    #[schema(value_type = String)]
    pub(crate) token: Zeroizing<String>,
    /// Its identity: remove it to sign out.
    pub(crate) token_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) expires_at: Timestamp,
    pub(crate) user: UserView,
}

/// A new person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// What they sign in with: 3 to 254 visible ASCII characters with one `@`.
    #[schema(min_length = 3, max_length = 254, pattern = "^[!-?A-~]+@[!-?A-~]+$")]
    email: String,
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Whether they run this installation.
    #[serde(default)]
    operator: bool,
    /// What they are in which account, by the account's id.
    #[serde(default)]
    roles: BTreeMap<String, Role>,
    /// 12 to 128 characters. Without one, they have tokens alone.
    #[schema(format = Password, value_type = Option<String>, min_length = 12, max_length = 128)]
    password: Option<Zeroizing<String>>,
}

/// What to change of a person. What is not given stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    email: Option<String>,
    name: Option<String>,
    operator: Option<bool>,
    /// `false` shuts them and their scripts out.
    active: Option<bool>,
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// 12 to 128 characters.
    #[schema(format = Password, value_type = String, min_length = 12, max_length = 128)]
    password: Zeroizing<String>,
    /// The password so far: needed to change one's own, where there is one.
    #[schema(format = Password, value_type = Option<String>)]
    current_password: Option<Zeroizing<String>>,
    /// Whether their tokens end, too: whoever was signed in as them may have made some.
    #[serde(default)]
    end_tokens: bool,
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// Who sends this Authorization header, and by which token of theirs.
pub(super) async fn identify(manage: &Manage, header: &[u8]) -> Result<(Arc<User>, Selector), Refusal> {
    let malformed = || unauthenticated("credentials_malformed", "give one token: `Authorization: Bearer kw_…`");
    let unknown = || unauthenticated("token_unknown", "the token is not known");
    let (scheme, rest) = header.split_at_checked("Bearer ".len()).ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(malformed());
    }
    let token = UserToken::parse(rest.trim_ascii()).map_err(|_| malformed())?;
    let people = manage.ledger().people();
    let live = people.by_selector(&token.selector).ok_or_else(unknown)?;
    match live.glance(&token) {
        Glance::Proven => {}
        Glance::Wrong => return Err(unknown()),
        Glance::Unproven => {
            let stored = live.user.token(&token.selector).ok_or_else(unknown)?;
            let secret = Secret::of(&token);
            let accepted = manage.pdp.verifier().verify(&token.selector, secret.clone(), &stored.secret.phc).await;
            if !accepted.map_err(|busy| too_busy(&busy))? {
                return Err(unknown());
            }
            live.remember(&token.selector, &secret);
        }
    }
    // As it is now: the record may have changed while Argon2 ran.
    let live = people.by_selector(&token.selector).ok_or_else(unknown)?;
    let stored = live.user.token(&token.selector).ok_or_else(unknown)?;
    match live.user.status(stored, Timestamp::now()) {
        Status::Good => Ok((Arc::clone(&live.user), token.selector)),
        Status::Expired => Err(unauthenticated("token_expired", "the token has expired; sign in, or make a new one")),
        Status::Compromised => {
            Err(unauthenticated("token_compromised", "the token is known to others; make a new one"))
        }
        Status::Disabled | Status::Revoked => Err(unauthenticated("user_disabled", "the user is shut out")),
    }
}

pub(super) fn too_busy(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string()).after(1)
}

fn sign_in_failed() -> Refusal {
    unauthenticated("sign_in_failed", "the e-mail address or the password is wrong")
}

fn too_many(wait: RetryAfter) -> Refusal {
    let seconds = wait.seconds();
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", wait.to_string()).after(seconds)
}

impl Manage {
    /// Runs Argon2 at people's costs, off the runtime and few at a time.
    async fn with_argon2<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.passwords).acquire_owned().await.map_err(|error| Refusal::internal(&error))?;
        // The place is the work's: a client that goes away does not end it.
        let work = move || {
            let _permit = permit;
            work()
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::internal(&error))?;
        done.map_err(|error| Refusal::internal(&error))
    }

    /// The person who has this password. Whether it is the person or the password that is wrong, nobody learns.
    async fn prove(&self, email: &Email, password: &str, by: &By) -> Result<Arc<LiveUser>, Refusal> {
        let source = by.address.ok_or_else(|| Refusal::internal(&"a caller without an address"))?;
        let attempt = self.throttle.begin(source, email, Instant::now()).map_err(too_many)?;
        // What could be no password costs the same as what could.
        let password = Password::typed(password).or_else(|_| Password::typed("no password is this one"));
        let password = password.map_err(|error| Refusal::internal(&error))?;
        let live = self.ledger().people().by_email(email);
        let stored = live.as_ref().and_then(|live| live.user.usable_password().cloned());
        let is_right = self.with_argon2(move || verify(stored.as_ref(), &password)).await;
        match (is_right, live) {
            (Ok(true), Some(live)) => {
                self.throttle.succeeded(attempt, Instant::now());
                Ok(live)
            }
            (Err(error), _) => {
                self.throttle.abandoned(attempt);
                Err(error)
            }
            _ => {
                drop(attempt);
                tracing::warn!(%source, request = by.request_id.as_deref(), "a sign-in failed");
                Err(sign_in_failed())
            }
        }
    }

    /// Proves the password and makes a token; nothing when the password's hash changed in between. An outdated one is
    /// renewed, since the password itself is known at this moment alone.
    async fn sign_in(&self, email: &Email, password: &str, by: &By) -> Result<Option<SignedIn>, Refusal> {
        let live = self.prove(email, password, by).await?;
        let is_outdated = live.user.usable_password().is_some_and(PasswordHash::is_outdated);
        let renewed = match Password::typed(password) {
            Ok(password) if is_outdated => Some(self.with_argon2(move || PasswordHash::hash(&password)).await?),
            _ => None,
        };
        let (ledger, cost, user) = (self.ledger().clone(), self.cost, Arc::clone(&live.user));
        let expires_at = by.now.checked_add(SESSION).unwrap_or(Timestamp::MAX);
        let by = By { actor: Actor::User(user.id.to_string().into()), ..by.clone() };
        let made = blocking(move || match ledger.sign_in(&user, renewed.as_ref(), expires_at, cost, &by) {
            Err(LedgerError::People(PeopleError::PasswordChanged)) => Ok(None),
            made => made.map(Some),
        });
        let Some((token, mint)) = made.await? else { return Ok(None) };
        let (token_id, user) = (token.id.to_string(), UserView::of(&live.user));
        Ok(Some(SignedIn { token: Zeroizing::new(mint.expose().to_owned()), token_id, expires_at, user }))
    }

    /// Refuses a repeated creation that gives another password than the first one did. Of a password that was changed
    /// since, nobody can say whether it is the same: that is refused, too.
    async fn check_repeated(&self, user: &User, password: Option<&String>) -> Result<(), Refusal> {
        let (Some(text), Some(stored)) = (password, user.password.clone()) else { return Ok(()) };
        let password = Password::typed(text)?;
        if self.with_argon2(move || verify(Some(&stored), &password)).await? {
            return Ok(());
        }
        let detail =
            "this Idempotency-Key was used with another password, or the password was changed since; take a new one";
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail))
    }

    /// The hash of a new password.
    async fn hashed(&self, text: &str, email: &Email) -> Result<PasswordHash, Refusal> {
        let password = Password::chosen(text, email)?;
        self.with_argon2(move || PasswordHash::hash(&password)).await
    }
}

/// Sign in with a password; the token lasts twelve hours.
#[utoipa::path(
    post, path = "/v1/sign-in", tag = "session", operation_id = "signIn", request_body = SignIn, security(()),
    responses((status = 200, body = SignedIn), Refusals)
)]
pub(super) async fn sign_in(
    State(manage): State<Shared>,
    caller: Caller,
    Input(input, _): Input<SignIn>,
) -> Result<Json<SignedIn>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let email: Email = input.email.parse()?;
    // The hash that was proven may be another by now, and of the same password: another sign-in renewed it.
    match manage.sign_in(&email, &input.password, &by).await? {
        Some(signed_in) => Ok(Json(signed_in)),
        None => manage.sign_in(&email, &input.password, &by).await?.map(Json).ok_or_else(sign_in_failed),
    }
}

/// Make a person known.
#[utoipa::path(
    post, path = "/v1/users", tag = "people", operation_id = "createUser", request_body = CreateUser,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one person, for a day")),
    responses((status = 201, body = UserView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn create_user(
    State(manage): State<Shared>,
    caller: Caller,
    RetryKey(retry): RetryKey,
    uri: Uri,
    Input(input, _): Input<CreateUser>,
) -> Result<Response<Body>, Refusal> {
    let by = caller.may(Subject::System)?.clone();
    let role = |(account, role): (String, Role)| {
        let invalid = || Refusal::invalid(Some("roles"), "give roles by the ids of accounts that there are");
        let account: AccountId = account.parse().map_err(|_| invalid())?;
        manage.ledger().ring().account(&account).map(|_| (account, role)).ok_or_else(invalid)
    };
    let roles = input.roles.into_iter().map(role).collect::<Result<_, _>>()?;
    let password = match &input.password {
        Some(text) => Some(manage.hashed(text, &input.email.parse()?).await?),
        None => None,
    };
    let new = NewUser { email: input.email, name: input.name, operator: input.operator, roles };
    // Without the password, of which the store is to keep nothing but its slow hash. A repeat is held against that.
    let asked = format!("{:?}", (&new.email, &new.name, new.operator, &new.roles, password.is_some()));
    let once = once(&caller, retry.as_deref(), uri.path(), asked.as_bytes());
    let make = move |ledger: &Ledger, once: Option<&Once>| Ok((ledger.create_user(new, password, once, &by)?, vec![]));
    let made = manage.make_once(once, make).await?;
    let (live, is_replay) = match made {
        Made::Now(live) => (live, false),
        Made::Before(id) => {
            let live = find(&manage, &id)?;
            manage.check_repeated(&live.user, input.password.as_deref()).await?;
            (live, true)
        }
    };
    Ok(created(&format!("/v1/users/{}", live.user.id), live.version, is_replay, UserView::of(&live.user)))
}

/// List people, in the order in which they came.
#[utoipa::path(
    get, path = "/v1/users", tag = "people", operation_id = "listUsers", params(Paging),
    responses((status = 200, body = Page<UserView>), Refusals)
)]
pub(super) async fn list_users(
    State(manage): State<Shared>,
    caller: Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<UserView>>, Refusal> {
    caller.may(Subject::System)?;
    let mut users = manage.ledger().people().all();
    if let Some(after) = paging.behind(|after| after.parse::<Place>().ok())? {
        users.retain(|live| Place::of(&live.user) > after);
    }
    let next = paging.cut(&mut users, |live| Place::of(&live.user).to_string())?;
    Ok(Json(Page::uncounted(users.iter().map(|live| UserView::of(&live.user)).collect(), next)))
}

/// Where somebody stands in the order in which people came: also when they have gone.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(Timestamp, UserId);

impl Place {
    fn of(user: &User) -> Self {
        Self(user.created_at, user.id)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.as_nanosecond(), self.1)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (nanoseconds, id) = text.split_once('.').ok_or(())?;
        let created_at = nanoseconds.parse().ok().and_then(|time| Timestamp::from_nanosecond(time).ok());
        Ok(Self(created_at.ok_or(())?, id.parse().map_err(|_| ())?))
    }
}

fn find(manage: &Manage, id: &str) -> Result<Arc<LiveUser>, Refusal> {
    let id = id.parse().ok().and_then(|id: UserId| manage.ledger().people().user(&id));
    id.ok_or_else(|| Refusal::not_found("user"))
}

/// The person of this id, if the caller may do what they want to do to them.
fn seen_user(manage: &Manage, caller: &Caller, id: &str) -> Result<Arc<LiveUser>, Refusal> {
    let live = find(manage, id).or_else(|missing| caller.may(Subject::System).and(Err(missing)))?;
    caller.may(Subject::User(&live.user))?;
    Ok(live)
}

/// Look at a person.
#[utoipa::path(
    get, path = "/v1/users/{user}", tag = "people", operation_id = "getUser",
    params(("user" = String, Path, description = "`usr_…`")),
    responses((status = 200, body = UserView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn get_user(
    State(manage): State<Shared>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_user(&manage, &caller, &user)?;
    Ok(versioned(live.version, UserView::of(&live.user)))
}

/// Change a person's name or e-mail address, make them an operator or not, let them in or shut them out.
#[utoipa::path(
    patch, path = "/v1/users/{user}", tag = "people", operation_id = "updateUser", request_body = UpdateUser,
    params(
        ("user" = String, Path, description = "`usr_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 200, body = UserView, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn update_user(
    State(manage): State<Shared>,
    caller: Caller,
    Path(user): Path<String>,
    Seen(seen): Seen,
    Input(input, _): Input<UpdateUser>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_user(&manage, &caller, &user)?;
    let (ledger, id, by) = (manage.ledger().clone(), live.user.id, caller.by);
    let change = move |user: &mut User| {
        let now = by.now;
        let before = told(user);
        if let Some(email) = &input.email {
            user.readdress(email, now)?;
        }
        if let Some(name) = &input.name {
            user.rename(name, now)?;
        }
        match input.operator {
            Some(true) => user.promote(now),
            Some(false) => user.demote(now),
            None => false,
        };
        match input.active {
            Some(true) => user.enable(now),
            Some(false) => user.disable(now),
            None => false,
        };
        Ok(Event::of_changes(Happened::UserUpdated, &by, before, told(user)))
    };
    let live = blocking(move || ledger.change_user(&id, seen.wanted(live.version), None, change)).await?;
    Ok(versioned(live.version, UserView::of(&live.user)))
}

/// What events tell of a person, by field.
fn told(user: &User) -> [(&'static str, String); 4] {
    let is_active = user.state == UserState::Active;
    [
        ("email", user.email.as_str().to_owned()),
        ("name", user.name.to_string()),
        ("operator", user.operator.to_string()),
        ("active", is_active.to_string()),
    ]
}

/// Remove a person, with their tokens and roles.
#[utoipa::path(
    delete, path = "/v1/users/{user}", tag = "people", operation_id = "deleteUser",
    params(
        ("user" = String, Path, description = "`usr_…`"),
        ("If-Match" = Option<String>, Header, description = "The ETag that you have seen")
    ),
    responses((status = 204), Refusals)
)]
pub(super) async fn delete_user(
    State(manage): State<Shared>,
    caller: Caller,
    Path(user): Path<String>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    let live = seen_user(&manage, &caller, &user)?;
    let (ledger, id, by) = (manage.ledger().clone(), live.user.id, caller.by);
    blocking(move || ledger.delete_user(&id, seen.wanted(live.version), &by)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Set a person's password. To change one's own, the one so far is needed; a first one of one's own is an operator's to
/// set. All sign-ins end; tokens of scripts go on working, unless `end_tokens` is given.
#[utoipa::path(
    put, path = "/v1/users/{user}/password", tag = "people", operation_id = "setPassword", request_body = SetPassword,
    params(
        ("user" = String, Path, description = "`usr_…`"),
        ("If-Match" = Option<String>, Header, description = "The person's ETag that you have seen")
    ),
    responses((status = 204, headers(("ETag" = String))), Refusals)
)]
pub(super) async fn set_password(
    State(manage): State<Shared>,
    caller: Caller,
    Path(user): Path<String>,
    Seen(seen): Seen,
    Input(input, _): Input<SetPassword>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_user(&manage, &caller, &user)?;
    let is_own = caller.user.as_ref().is_some_and(|caller| caller.id == live.user.id);
    // A token that was left somewhere must not be enough to take a person's account over: whoever has it can do what the
    // person can until it is removed, and must not be able to lock them out, nor to get in when it is gone.
    if is_own && live.user.password.is_none() && !live.user.operator && !caller.has_signed_in() {
        let detail = "a token is not enough to give yourself a first password; ask an operator to set one";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "password_not_yours", detail));
    }
    if is_own && live.user.password.is_some() {
        let missing = || Refusal::invalid(Some("current_password"), "give the password so far, too");
        let current = input.current_password.as_ref().ok_or_else(missing)?;
        manage.prove(&live.user.email, current, &caller.by).await?;
    }
    let password = manage.hashed(&input.password, &live.user.email).await?;
    let (ledger, id, by) = (manage.ledger().clone(), live.user.id, caller.by);
    let change = move |user: &mut User| {
        user.set_password(password.clone(), by.now);
        user.tokens.retain(|token| !input.end_tokens && &*token.name != SIGNED_IN);
        let fields = if input.end_tokens { "password, tokens" } else { "password" };
        Ok(Some(Event::new(Happened::UserUpdated, &by).with("fields", fields)))
    };
    let live = blocking(move || ledger.change_user(&id, seen.wanted(live.version), None, change)).await?;
    Ok((StatusCode::NO_CONTENT, [(ETAG, format!("\"{}\"", live.version))]).into_response())
}

/// Make a token for a person's scripts. It is shown this once.
#[utoipa::path(
    post, path = "/v1/users/{user}/tokens", tag = "people", operation_id = "createToken", request_body = CreateToken,
    params(
        ("user" = String, Path, description = "`usr_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one token, for a day")
    ),
    responses((status = 201, body = TokenView), Refusals)
)]
pub(super) async fn create_token(
    State(manage): State<Shared>,
    caller: Caller,
    Path(user): Path<String>,
    RetryKey(retry): RetryKey,
    uri: Uri,
    Input(input, bytes): Input<CreateToken>,
) -> Result<Response<Body>, Refusal> {
    let live = seen_user(&manage, &caller, &user)?;
    let once = once(&caller, retry.as_deref(), uri.path(), &bytes);
    let (id, cost, by, asked) = (live.user.id, manage.cost, caller.by, once.clone());
    let make = move |ledger: &Ledger, once: Option<&Once>| {
        let (token, mint) = ledger.create_token(&id, &input.name, input.expires_at, cost, once, &by)?;
        let shown = shown(&token.id, &mint);
        Ok(((token, shown.1.clone()), vec![shown]))
    };
    let location = format!("/v1/users/{id}");
    match manage.make_once(asked, make).await? {
        Made::Now((token, shown)) => Ok(made(&location, false, TokenView::of(&token).showing(Some(shown)))),
        Made::Before(before) => {
            let live = find(&manage, &id.to_string())?;
            let token = live.user.tokens.iter().find(|token| token.id.to_string() == before);
            let token = token.ok_or_else(|| Refusal::not_found("token"))?;
            let body = TokenView::of(token).showing(manage.recent.find(once.as_ref(), &before));
            Ok(made(&location, true, body))
        }
    }
}

/// Remove a token, which is its end.
#[utoipa::path(
    delete, path = "/v1/users/{user}/tokens/{token}", tag = "people", operation_id = "deleteToken",
    params(
        ("user" = String, Path, description = "`usr_…`"),
        ("token" = String, Path, description = "`tok_…`"),
        ("If-Match" = Option<String>, Header, description = "The person's ETag that you have seen")
    ),
    responses((status = 204), Refusals)
)]
pub(super) async fn delete_token(
    State(manage): State<Shared>,
    caller: Caller,
    Path((user, token)): Path<(String, String)>,
    Seen(seen): Seen,
) -> Result<Response<Body>, Refusal> {
    let live = seen_user(&manage, &caller, &user)?;
    let token: ApiTokenId = token.parse().map_err(|_| Refusal::not_found("token"))?;
    let (ledger, id, by) = (manage.ledger().clone(), live.user.id, caller.by);
    let had = blocking(move || ledger.delete_token(&id, &token, seen.wanted(live.version), &by)).await?;
    if had { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(Refusal::not_found("token")) }
}
