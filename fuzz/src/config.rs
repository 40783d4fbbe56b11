//! Configuration text: it is taken or refused with reasons, and what is taken reads back as itself.

use std::fs;
use std::path::Path;

use figment::Figment;
use keyward::config::{Config, ConfigError};

/// Loads the input as the configuration's file, as a start does.
pub fn check(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("keyward.toml");
    match load(&path, data) {
        Ok(config) => {
            config.check().expect("what was loaded was checked");
            let written = toml::to_string(&config).expect("a configuration can be written");
            assert_eq!(load(&path, written.as_bytes()).expect("what was written can be read"), config);
        }
        Err(error) => {
            let told = error.to_string();
            let reason = match error {
                ConfigError::Unreadable { error, .. } => error.to_string(),
                ConfigError::Syntax { what, .. } | ConfigError::Value { what, .. } => what,
                ConfigError::UnknownKey { hint, .. } => hint,
            };
            assert!(!reason.trim().is_empty() && told.contains("keyward.toml"), "{told:?}");
        }
    }
}

fn load(path: &Path, text: &[u8]) -> Result<Config, ConfigError> {
    fs::write(path, text).expect("the file can be written");
    Config::load(Some(path), Figment::new())
}
