//! One answer in the three formats.

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;

/// Writes answers.
pub(crate) struct Output {
    format: Format,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

// === impl Output ===

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// The same, unless a flag of the command asks for JSON.
    pub(crate) fn or_json(&self, json: bool) -> Self {
        let format = if json { Format::Json } else { self.format };
        Self { format }
    }

    /// Writes `value` for machines, or what `text` makes of it for people.
    pub(crate) fn write<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => text(),
            Format::Json => serde_json::to_string_pretty(value)
                .map(|json| json + "\n")
                .map_err(unwritable)?,
            Format::Yaml => serde_saphyr::to_string(value).map_err(unwritable)?,
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // `flowctl status | head` is done when head is.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }

    pub(crate) fn version(&self) -> Result<ExitCode, Failure> {
        let version = env!("CARGO_PKG_VERSION");
        self.write(&Version { version }, || format!("flowctl {version}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("cannot write the answer: {error}"))
}
