//! Configuration: a file, the environment and flags become one checked [`Config`].
//!
//! Owns where values come from, which source wins (flags over environment over file over defaults) and what
//! is refused. It opens no port and makes no folder: what it returns is only known to be consistent.
//!
//! `KEYWARD_DECISION__ADDR` is `decision.addr`. `KEYWARD_URL`, `KEYWARD_TOKEN`, `KEYWARD_CONFIG` and
//! `KEYWARD_LOG` have other uses, and what Kubernetes sets for a service called `keyward`
//! (`KEYWARD_SERVICE_HOST`, `KEYWARD_PORT`, …) is none of ours; any other unknown name is an error.

mod check;
mod model;

use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Env, Format, Toml};
use figment::{Figment, Metadata, Provider, Source};

pub use check::read_level;
pub use model::{
    Admin, Argon2, Config, Decision, DecisionLog, Guarantees, LastUsed, Limits, Log, LogFormat, Policies, ProxyStyle,
    Reload, Rotation, Webhook, WhenExposed, WhenFull, WhenStale, Widening,
};

/// The file that is read when none is named, if it is there.
pub const FILE: &str = "keyward.toml";
/// The least that `limits.header_bytes` may be: hyper refuses a smaller read buffer.
pub const LEAST_HEADER_BYTES: usize = 8 * 1024;

/// The file that `keyward init` writes: every key with its default and what it is for.
pub const TEMPLATE: &str = include_str!("keyward.toml");

/// Variables with our prefix that are not configuration.
const RESERVED: &[&str] = &["url", "token", "config", "log"];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("cannot read the configuration {}: {error}; `keyward init` writes one", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A file that is no TOML.
    #[error("{place}: {what}")]
    Syntax {
        /// The file.
        place: String,
        /// The parser's words, with line and column.
        what: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no key `{key}`; {hint}")]
    UnknownKey {
        /// The file, variable or flag.
        place: String,
        /// The key, with its table.
        key: String,
        /// The key that was meant, or all there are.
        hint: String,
    },
    /// A value that its key does not take.
    #[error("{place}: `{key}`: {what}")]
    Value {
        /// The file, variable or flag.
        place: String,
        /// The key, with its table.
        key: String,
        /// What is wrong and what would be right.
        what: String,
    },
}

impl Config {
    /// Reads the configuration: `flags` over the environment over the file over the defaults, then checks it.
    ///
    /// Without a `path`, [`FILE`] in the working directory is read if it exists. Relative folders start at the file's
    /// folder where they come from the file or from defaults, and at the working directory where they come from
    /// the environment or from flags.
    ///
    /// # Errors
    /// [`ConfigError`]: a file that cannot be read, an unknown key, a value of the wrong kind, or values that do not
    /// go together.
    pub fn load(path: Option<&Path>, flags: impl Provider) -> Result<Self, ConfigError> {
        Self::merge(path, environment(), flags)
    }

    fn merge(path: Option<&Path>, environment: impl Provider, flags: impl Provider) -> Result<Self, ConfigError> {
        let file = match path {
            Some(path) => Some(path.to_owned()),
            None => Some(PathBuf::from(FILE)).filter(|path| path.exists()),
        };
        let mut sources = Figment::new();
        if let Some(path) = &file {
            let text =
                std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.clone(), error })?;
            // From a string, so that an unreadable file is not taken for an empty one.
            sources = sources.merge(File { path: path.clone(), toml: Toml::string(&text) });
        }
        sources = sources.merge(environment).merge(flags);
        let mut config: Self = sources.extract().map_err(explain)?;
        let base = file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        config.anchor(&sources, base);
        config.check_from(&sources)?;
        Ok(config)
    }

    /// Checks what a type cannot state: values that fit their keys and are wrong all the same, or do not go together.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the first one.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_from(&Figment::new())
    }

    fn check_from(&self, sources: &Figment) -> Result<(), ConfigError> {
        check::check(self).map_err(|(key, what)| {
            let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
            ConfigError::Value { place: place(sources.find_metadata(key), &keys), key: key.to_owned(), what }
        })
    }

    /// Makes folders that the file or a default names start at `base`.
    fn anchor(&mut self, sources: &Figment, base: &Path) {
        let here = |key: &str| {
            sources.find_metadata(key).is_none_or(|metadata| matches!(metadata.source, Some(Source::File(_))))
        };
        let folders = [
            ("data_dir", Some(&mut self.data_dir)),
            ("schemas_dir", Some(&mut self.schemas_dir)),
            ("policies_dir", Some(&mut self.policies_dir)),
            ("decision_log.path", self.decision_log.path.as_mut()),
            ("webhook.secret_file", self.webhook.secret_file.as_mut()),
        ];
        for (key, folder) in folders {
            let Some(folder) = folder else { continue };
            let joined = if here(key) { base.join(&*folder) } else { folder.clone() };
            // Whole, because events of the file system name whole paths. Standard output is no file.
            let is_file = key != "decision_log.path" || folder.as_os_str() != "-";
            *folder = if is_file { std::path::absolute(&joined).unwrap_or(joined) } else { folder.clone() };
        }
    }
}

fn environment() -> Env {
    Env::prefixed("KEYWARD_")
        .ignore(RESERVED)
        .filter(|key| {
            let key = key.as_str().to_ascii_lowercase();
            !(key == "port" || key.starts_with("port_") || key.starts_with("service_"))
        })
        .split("__")
}

/// TOML that was read already, with the name of the file it came from.
struct File {
    path: PathBuf,
    toml: figment::providers::Data<Toml>,
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::named("file").source(self.path.as_path())
    }

    fn data(&self) -> figment::error::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        self.toml.data()
    }
}

/// Says where a value came from in the words of whoever set it.
fn place(metadata: Option<&Metadata>, keys: &[String]) -> String {
    match metadata {
        None => "configuration".to_owned(),
        Some(Metadata { source: Some(Source::File(path)), .. }) => path.display().to_string(),
        Some(metadata) if metadata.name.contains("environment") => {
            format!("environment variable KEYWARD_{}", keys.join("__").to_uppercase())
        }
        Some(_) => "command line".to_owned(),
    }
}

fn explain(error: figment::Error) -> ConfigError {
    let mut keys = error.path.clone();
    match error.kind {
        Kind::UnknownField(field, known) => {
            if keys.last() != Some(&field) {
                keys.push(field.clone());
            }
            let table = keys
                .split_last()
                .map_or(String::new(), |(_, table)| table.iter().fold(String::new(), |table, key| table + key + "."));
            let hint = match closest(&field, known) {
                Some(meant) => format!("did you mean `{table}{meant}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            let place = place(error.metadata.as_ref(), &keys);
            ConfigError::UnknownKey { place, key: keys.join("."), hint }
        }
        Kind::Message(what) if keys.is_empty() => {
            ConfigError::Syntax { place: place(error.metadata.as_ref(), &keys), what: what.trim_end().to_owned() }
        }
        kind => {
            let what = match kind {
                Kind::UnknownVariant(word, known) => {
                    format!("`{word}` is not one of {}", known.join(", "))
                }
                Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                    let found = found.to_string();
                    let types = ["signed int ", "unsigned int ", "string ", "float ", "bool "];
                    let value = types.iter().find_map(|name| found.strip_prefix(name)).unwrap_or(&found);
                    format!("give {}, not {value}", in_words(&expected))
                }
                Kind::Message(what) if what.contains("socket address") => {
                    format!("give {}", in_words("socket address"))
                }
                kind => kind.to_string(),
            };
            ConfigError::Value { place: place(error.metadata.as_ref(), &keys), key: keys.join("."), what }
        }
    }
}

/// What serde expects, in the words of people who write configurations.
fn in_words(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list, for example [\"127.0.0.1\"]",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "socket address" => "an IP address and a port, for example 127.0.0.1:8700",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        others => others,
    }
}

fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
