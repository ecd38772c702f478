//! One TOML file, a section a service.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::output::say;

/// Where `headroom up` keeps its data when nobody says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/headroom";
/// Where the page is served when nobody says otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// A file or a value that can't be used: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Probes and shipping.
    pub agent: headroom_agent::config::Raw,
    /// Ingest, store and SQL.
    pub collector: headroom_collector::config::Raw,
    /// Forecasts, recommendations and the webhook.
    pub forecaster: headroom_forecaster::config::Raw,
    /// The page of `headroom up`.
    pub up: Up,
}

/// Section `[up]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Up {
    /// Address of the page; loopback only.
    pub listen: String,
    /// Directory of everything that is kept.
    pub data_dir: String,
}

impl Default for Up {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN.into(),
            data_dir: DEFAULT_DATA_DIR.into(),
        }
    }
}

/// Commands of `headroom config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Prints the configuration in force: the defaults, or a file over them
    ///
    /// Example: headroom config print > headroom.toml
    Print {
        /// A configuration file
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Checks a file and names the key that is wrong
    ///
    /// Example: headroom config check headroom.toml
    Check {
        /// A configuration file
        file: PathBuf,
    },
}

/// Runs a configuration command.
///
/// # Errors
/// [`Invalid`] with the key and the remedy.
pub fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Print { config } => {
            let file = load(config.as_deref())?;
            say(toml::to_string(&file)
                .context("print the configuration")?
                .trim_end());
        }
        ConfigCommand::Check { file } => {
            load(Some(file))?;
            say(&format!("{}: ok", file.display()));
        }
    }
    Ok(())
}

/// Reads and validates a file, or gives the defaults.
///
/// # Errors
/// [`Invalid`]: the file can't be read, a key is unknown (with its line), or a
/// value is out of range.
pub fn load(path: Option<&Path>) -> anyhow::Result<File> {
    let Some(path) = path else {
        return Ok(File::default());
    };
    let text = std::fs::read_to_string(path)
        .map_err(|e| Invalid(format!("read {}: {e}", path.display())))?;
    parse(&text).map_err(|e| Invalid(format!("{}: {e}", path.display())).into())
}

/// Reads and validates a text.
///
/// # Errors
/// [`Invalid`] as [`load`].
pub fn parse(text: &str) -> Result<File, Invalid> {
    let file: File =
        toml::from_str(text).map_err(|e| Invalid(e.to_string().trim_end().to_owned()))?;
    validate(&file)?;
    Ok(file)
}

fn validate(file: &File) -> Result<(), Invalid> {
    fn named<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), Invalid> {
        result.map(drop).map_err(|e| Invalid(e.to_string()))
    }
    named(file.agent.clone().validate())?;
    named(file.collector.clone().validate())?;
    named(file.forecaster.clone().validate())?;
    named(listen(&file.up.listen))
}

/// The page's address.
///
/// # Errors
/// [`Invalid`]: no address, or one beyond this host.
pub fn listen(text: &str) -> Result<std::net::SocketAddr, Invalid> {
    let remedy = format!("write it like \"{DEFAULT_LISTEN}\"");
    let address: std::net::SocketAddr = text.parse().map_err(|_| {
        Invalid(format!(
            "up.listen: {text:?} is no address and port; {remedy}"
        ))
    })?;
    if !address.ip().is_loopback() {
        return Err(Invalid(format!(
            "up.listen: {text:?} is not loopback, and the page has no login yet; {remedy} and reach it through ssh -L"
        )));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_example_equals_the_defaults() {
        let example = include_str!("../../deploy/headroom.toml");
        let file = parse(example).unwrap();
        assert_eq!(
            toml::to_string(&file).unwrap(),
            toml::to_string(&File::default()).unwrap()
        );
        // Every key of the defaults stands in the example, so a reader sees all.
        let printed = toml::to_string(&File::default()).unwrap();
        for key in printed
            .lines()
            .filter_map(|l| l.split_once(" = "))
            .map(|(k, _)| k)
        {
            assert!(
                example.contains(&format!("{key} = ")),
                "{key} is missing in deploy/headroom.toml"
            );
        }
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        for (text, named) in [
            ("[agent]\nintervall = \"1s\"\n", "intervall"),
            ("[agent]\ninterval = \"soon\"\n", "agent.interval"),
            ("[collector]\nlisten = \"nowhere\"\n", "collector.listen"),
            ("[up]\nlisten = \"0.0.0.0:8080\"\n", "up.listen"),
            ("[agents]\n", "agents"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text:?} gave {error:?}");
        }
    }
}
