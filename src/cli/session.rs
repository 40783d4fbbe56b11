//! `keyward sign-in` and `keyward whoami`: from a password to a token, and from a token to a person.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::Failure;
use super::online::Online;
use super::terminal::{password, text};
use super::users;

#[derive(Args)]
pub(super) struct SignIn {
    /// What you sign in with
    email: String,
    #[command(flatten)]
    online: Online,
}

#[derive(Args)]
pub(super) struct WhoAmI {
    #[command(flatten)]
    online: Online,
}

/// The token alone goes to standard output, so that a shell can keep it.
pub(super) fn sign_in(given: &SignIn) -> Result<(), Failure> {
    let client = given.online.stranger()?;
    let password = password("Password")?;
    let body = json!({ "email": given.email, "password": *password });
    let signed_in = client.send(Method::POST, &["sign-in"], Some(&body))?;
    given.online.tell(&signed_in, |signed_in| format!("{}\n", text(signed_in, "/token")))
}

pub(super) fn who_am_i(given: &WhoAmI) -> Result<(), Failure> {
    let me = given.online.client()?.get(&["me"], &[])?;
    given.online.tell(&me, users::shown)
}
