//! Where the daemon is, who asks it, and how its answers are told: what all commands on a running daemon share.

use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::Client;
use super::terminal::say;
use super::{COMMAND_LINE, CONFIGURATION, Failure, NOT_SIGNED_IN};
use crate::outbound;

/// Holds a person's token. There is no flag for it: everybody on the machine can read command lines.
const TOKEN: &str = "KEYWARD_TOKEN";

#[derive(Args)]
#[command(next_help_heading = "The daemon")]
pub(super) struct Online {
    /// Where its management API is. HTTPS trusts whom the system trusts, or the certificates in `SSL_CERT_FILE`
    #[arg(long, value_name = "URL", env = "KEYWARD_URL", default_value = "http://127.0.0.1:8702", global = true)]
    url: String,
    /// A file that holds your token, in place of the environment variable `KEYWARD_TOKEN`
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Allow plain HTTP to another machine, although everybody in between can read and change it
    #[arg(long, global = true)]
    insecure: bool,
    /// Tell the API's JSON, for scripts: a list is one object, however many pages it has
    #[arg(long, global = true)]
    json: bool,
}

impl Online {
    /// A client that speaks for whoever has the token.
    ///
    /// # Errors
    /// When there is no token, or the address is none to send it to.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::new(self.address()?, Some(self.token()?))
    }

    /// A client without a token.
    ///
    /// # Errors
    /// When the address is none to send a password to.
    pub(super) fn stranger(&self) -> Result<Client, Failure> {
        Client::new(self.address()?, None)
    }

    /// Tells an answer, to people or to scripts.
    pub(super) fn tell(&self, answer: &Value, people: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        let text = if self.json { format!("{answer:#}\n") } else { people(answer) };
        say(&Zeroizing::new(text))
    }

    /// Tells that something without an answer is done; scripts have the exit code.
    pub(super) fn done(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { say(text) }
    }

    fn address(&self) -> Result<Url, Failure> {
        let failure = |why: &str| Failure::of(CONFIGURATION, format!("--url, or KEYWARD_URL: {why}"));
        let url = Url::parse(&self.url).map_err(|error| failure(&format!("{error}, in `{}`", self.url)))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(failure("give an address such as https://keyward.example.com"));
        }
        let is_bare = url.username().is_empty() && url.password().is_none();
        if !is_bare || url.query().is_some() || url.fragment().is_some() {
            return Err(failure("give scheme, host, port and path alone; a token belongs into KEYWARD_TOKEN"));
        }
        if url.scheme() == "http" && !self.insecure && !outbound::is_loopback(&url) {
            return Err(failure(&format!(
                "{url} is plain HTTP to another machine, which would show your token to everybody in between; give \
                 an https address, or --insecure where you know the network"
            )));
        }
        Ok(url)
    }

    fn token(&self) -> Result<HeaderValue, Failure> {
        let missing = || {
            let say = "you are not signed in: put your token into KEYWARD_TOKEN, or name its file with --token-file; \
                       `export KEYWARD_TOKEN=\"$(keyward sign-in EMAIL)\"` gets one for your password";
            Failure::of(NOT_SIGNED_IN, say)
        };
        let (text, place) = match &self.token_file {
            Some(file) => (Zeroizing::new(read(file)?), file.display().to_string()),
            None => (Zeroizing::new(std::env::var(TOKEN).map_err(|_| missing())?), TOKEN.to_owned()),
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(missing());
        }
        let value = Zeroizing::new(format!("Bearer {text}"));
        let value = HeaderValue::from_str(&value).map_err(|_| Failure::of(COMMAND_LINE, format!("{place}: no token")));
        value.map(|mut value| {
            value.set_sensitive(true);
            value
        })
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, insecure: bool) -> Result<Url, Failure> {
        Online { url: url.into(), token_file: None, insecure, json: false }.address()
    }

    #[test]
    fn plain_http_goes_to_this_machine_alone() {
        for url in
            ["http://127.0.0.1:8702", "http://localhost:1", "http://[::1]:8702", "https://keyward.example.com/k/"]
        {
            assert!(of(url, false).is_ok(), "{url}");
        }
        for url in ["http://192.0.2.1:8702", "http://localhost.example.com", "http://127.0.0.1.example.com"] {
            assert!(of(url, false).is_err_and(|failure| failure.message.contains("--insecure")), "{url}");
            assert!(of(url, true).is_ok(), "{url}");
        }
        for url in ["", "keyward", "ftp://localhost", "http://kw_token@localhost", "http://localhost/?token=1"] {
            assert!(of(url, true).is_err_and(|failure| failure.code == CONFIGURATION), "{url}");
        }
    }
}
