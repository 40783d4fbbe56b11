//! The flags that change the configuration, and reading it for a command.

use std::path::PathBuf;

use clap::Args;
use figment::providers::Serialized;
use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};

use super::{CONFIGURATION, Failure};
use crate::config::Config;

#[derive(Args)]
pub(super) struct Configuration {
    /// The configuration file; without it, keyward.toml in this folder if there is one
    #[arg(long, value_name = "FILE", env = "KEYWARD_CONFIG")]
    config: Option<PathBuf>,
    /// The folder of the store
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The folder of the schema
    #[arg(long, value_name = "DIR")]
    schemas_dir: Option<PathBuf>,
    /// The folder of the policies
    #[arg(long, value_name = "DIR")]
    policies_dir: Option<PathBuf>,
}

/// The flags that change the configuration, named as such in its errors.
struct Flags(Vec<(&'static str, String)>);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        let mut data = Map::new();
        for (key, value) in &self.0 {
            let given = Serialized::default(key, value).data()?;
            for (profile, dict) in given {
                let merged: &mut Dict = data.entry(profile).or_default();
                for (name, value) in dict {
                    match (merged.get_mut(&name), value) {
                        (Some(figment::value::Value::Dict(_, held)), figment::value::Value::Dict(_, more)) => {
                            held.extend(more);
                        }
                        (_, value) => drop(merged.insert(name, value)),
                    }
                }
            }
        }
        Ok(data)
    }
}

impl Configuration {
    pub(super) fn load(&self, more: Vec<(&'static str, String)>) -> Result<Config, Failure> {
        let mut flags = more;
        for (key, folder) in
            [("data_dir", &self.data_dir), ("schemas_dir", &self.schemas_dir), ("policies_dir", &self.policies_dir)]
        {
            flags.extend(folder.as_ref().map(|folder| (key, folder.display().to_string())));
        }
        Config::load(self.config.as_deref(), Flags(flags))
            .map_err(|error| Failure::of(CONFIGURATION, error.to_string()))
    }
}
