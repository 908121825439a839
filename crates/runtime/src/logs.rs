//! Where logs go and what is in them: lines on stderr, as text for people or JSON for collectors. Standard output is left
//! to the program's own output (a consumer may print messages there).

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object on a line, fields at the top level.
    Json,
}

/// The flags of every binary: `--log-format` and `--log-level`, or `LOG_FORMAT` and `LOG_LEVEL`.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// How log lines are written: text or json
    #[arg(long, env = "LOG_FORMAT", default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,

    /// Least severe level that is logged: error, warn, info, debug or trace; `RUST_LOG` gives a finer filter and wins
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
}

/// What to log, before it is switched on with [`init`](Self::init).
#[derive(Debug, Clone)]
#[must_use = "nothing is logged before init"]
pub struct Logs {
    format: LogFormat,
    level: String,
}

/// Why logs cannot be switched on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not one of the formats.
    #[error("unknown log format {0:?}: use text or json")]
    Format(String),
    /// `LOG_LEVEL` or the flag is no level.
    #[error("unknown log level {0:?}: use error, warn, info, debug, trace or off")]
    Level(String),
    /// `RUST_LOG` is no filter.
    #[error("cannot read the log filter in RUST_LOG: {0}; an example is info,flowctl_operator=debug")]
    Filter(#[source] tracing_subscriber::filter::FromEnvError),
    /// The process already has a log subscriber.
    #[error("cannot switch on logs: they are already on in this process")]
    AlreadyOn,
}

// === impl LogFormat ===

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(name.to_owned())),
        }
    }
}

// === impl LogArgs ===

impl LogArgs {
    /// Switches logs on as the flags say.
    ///
    /// # Errors
    ///
    /// As [`Logs::init`].
    pub fn init(&self) -> Result<(), LogError> {
        Logs::new(self.log_format).level(&self.log_level).init()
    }
}

impl Default for LogArgs {
    /// What no flag and no variable gives.
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}

// === impl Logs ===

impl Logs {
    /// Level `info` in the given format.
    pub fn new(format: LogFormat) -> Self {
        Self {
            format,
            level: "info".to_owned(),
        }
    }

    /// Another level than `info`; `RUST_LOG` wins over it.
    pub fn level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.level);
        self
    }

    /// Switches logs on for the whole process, once.
    ///
    /// # Errors
    ///
    /// When the level or `RUST_LOG` cannot be read, or logs are already on.
    pub fn init(self) -> Result<(), LogError> {
        let filter = match std::env::var_os("RUST_LOG") {
            Some(value) if !value.is_empty() => EnvFilter::try_from_default_env().map_err(LogError::Filter)?,
            _ => EnvFilter::new(directives(&self.level)?),
        };
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let installed = match self.format {
            LogFormat::Text => lines.try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
        installed.map_err(|_| LogError::AlreadyOn)
    }
}

/// The filter for a level: ours and everybody's, but the transport libraries stay at `info`, because at `debug` they
/// write several lines for each message.
fn directives(level: &str) -> Result<String, LogError> {
    let unknown = || LogError::Level(level.to_owned());
    let parsed = LevelFilter::from_str(level.trim()).map_err(|_| unknown())?;
    let level = parsed.to_string();
    if parsed <= LevelFilter::INFO {
        return Ok(level);
    }
    Ok(format!(
        "{level},h2=info,hyper=info,hyper_util=info,tower=info,rustls=info"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A typo in a manifest must not silently switch logs off.
    #[test]
    fn unknown_names_are_refused() {
        assert!(matches!("yaml".parse::<LogFormat>(), Err(LogError::Format(_))));
        assert!(matches!(directives("verbose"), Err(LogError::Level(_))));
    }

    #[test]
    fn levels_and_formats_are_read_in_any_case() {
        assert_eq!("JSON".parse::<LogFormat>().expect("a format"), LogFormat::Json);
        assert_eq!(directives("WARN").expect("a level"), "warn");
    }

    #[test]
    fn debug_keeps_the_transport_quiet() {
        let filter = directives("debug").expect("a level");
        assert!(filter.starts_with("debug,") && filter.contains("h2=info"), "{filter}");
    }
}
