//! A pipeline file, understood: every step with its type and typed settings. Building one finds
//! everything that the runner cannot do; running one can only fail because of the outside.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use flowctl_bridge::{Backoff, CallMode, Endpoint, Settings, TlsFiles, WindowLimits};
use flowctl_pipeline::{Diagnostic, PipelineFile, Step};

use crate::config::Config;

/// A pipeline that can be run.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The key of the pipeline, for example `stellar.payments`.
    pub key: String,
    /// Where ledgers come from.
    pub source: Named<FolderSettings>,
    /// What is done to each message, in order.
    pub processors: Vec<Named<ProcessorSettings>>,
    /// Where each message goes; at least one.
    pub consumers: Vec<Named<ConsumerSettings>>,
}

/// A step with its name, unique in the pipeline.
#[derive(Clone, Debug)]
pub struct Named<T> {
    /// The name.
    pub name: String,
    /// What it is.
    pub settings: T,
}

/// `BufferedStorageSourceAdapter` with `storage_type: FS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderSettings {
    /// The folder.
    pub path: PathBuf,
    /// The network's name, for messages' metadata.
    pub network: Option<String>,
    /// The first ledger; the first one there is when left out.
    pub start_ledger: Option<u32>,
    /// The last ledger, included. Without it the folder is followed.
    pub end_ledger: Option<u32>,
    /// How often a followed folder is looked at.
    pub poll_interval: Duration,
    /// How long a ledger may be missing from a followed folder while later ones are there.
    pub gap_timeout: Duration,
}

/// A processor.
#[derive(Clone, Debug)]
pub enum ProcessorSettings {
    /// XDR to JSON.
    LedgerReader(LedgerReaderSettings),
    /// A service.
    External(Box<Settings>),
}

/// `LedgerReader`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReaderSettings {
    /// The network's name; the source's when left out.
    pub network: Option<String>,
}

/// A consumer.
#[derive(Clone, Debug)]
pub enum ConsumerSettings {
    /// A service.
    External(Box<Settings>),
    /// One line of JSON on standard output for each message.
    Stdout,
    /// One line of JSON in a file for each message.
    JsonLines {
        /// The file; it is appended to.
        path: PathBuf,
    },
}

// === impl Blueprint ===

impl Blueprint {
    /// The name of the network whose ledgers are read, as messages carry it.
    #[must_use]
    pub fn network(&self) -> Option<&str> {
        let readers = self.processors.iter().rev();
        let of_reader = readers.filter_map(|step| match &step.settings {
            ProcessorSettings::LedgerReader(reader) => reader.network.as_deref(),
            ProcessorSettings::External(_) => None,
        });
        of_reader.chain(self.source.settings.network.as_deref()).next()
    }

    /// Understands a file whose variables are expanded and which the catalogue accepts.
    pub(crate) fn new(file: &PipelineFile) -> Result<Self, Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let mut names = Names::default();
        let source_name = names.give(&file.source);
        let source = folder(&mut Config::of(&file.source, &mut faults));
        let mut processors = Vec::new();
        let mut past_readers = false;
        for step in &file.processors {
            let name = names.give(step);
            let settings = match step.kind.as_str() {
                "LedgerReader" => {
                    let mut config = Config::of(step, &mut faults);
                    if past_readers {
                        config.fault(
                            "",
                            "LedgerReader reads what the source gives; put it before all other processors",
                        );
                    }
                    past_readers = true;
                    Some(ProcessorSettings::LedgerReader(LedgerReaderSettings {
                        network: config.text("network"),
                    }))
                }
                "ExternalProcessor" => {
                    past_readers = true;
                    external(&mut Config::of(step, &mut faults)).map(ProcessorSettings::External)
                }
                other => {
                    unknown(step, other, &mut faults);
                    None
                }
            };
            processors.extend(settings.map(|settings| Named { name, settings }));
        }
        let mut consumers = Vec::new();
        for step in &file.consumers {
            let name = names.give(step);
            let mut config = Config::of(step, &mut faults);
            let settings = match step.kind.as_str() {
                "ExternalConsumer" => external(&mut config).map(ConsumerSettings::External),
                "StdoutConsumer" => Some(ConsumerSettings::Stdout),
                "JSONLinesConsumer" => config
                    .text("path")
                    .map(|path| ConsumerSettings::JsonLines { path: path.into() }),
                other => {
                    unknown(step, other, &mut faults);
                    None
                }
            };
            consumers.extend(settings.map(|settings| Named { name, settings }));
        }
        match source {
            Some(settings) if faults.is_empty() => Ok(Self {
                key: file.key.clone(),
                source: Named {
                    name: source_name,
                    settings,
                },
                processors,
                consumers,
            }),
            _ => Err(faults),
        }
    }
}

fn unknown(step: &Step, kind: &str, faults: &mut Vec<Diagnostic>) {
    faults.push(Diagnostic::new(
        step.position(),
        "",
        format!("the runner has no step type {kind:?} here"),
    ));
}

fn folder(config: &mut Config<'_>) -> Option<FolderSettings> {
    config.only("storage_type", "FS");
    let path = config.text("path");
    let start_ledger: Option<u32> = config.number("start_ledger");
    // Zero is how the Go binary writes "no end".
    let end_ledger = config.number("end_ledger").filter(|end: &u32| *end != 0);
    if start_ledger == Some(0) {
        config.fault("start_ledger", "ledgers are numbered from 1");
    }
    if start_ledger.zip(end_ledger).is_some_and(|(start, end)| end < start) {
        config.fault("end_ledger", "end_ledger comes before start_ledger");
    }
    Some(FolderSettings {
        path: path?.into(),
        network: config.text("network"),
        start_ledger,
        end_ledger,
        poll_interval: config.duration("poll_interval").unwrap_or(Duration::from_secs(5)),
        gap_timeout: config.duration("gap_timeout").unwrap_or(Duration::from_secs(30)),
    })
}

/// The settings of an external step. What the bridge cannot do yet is refused by name.
fn external(config: &mut Config<'_>) -> Option<Box<Settings>> {
    config.only("protocol", "pipeline.v1");
    config.only("ordering", "strict");
    config.only("on_error", "halt");
    config.only("connections", "1");
    config.not_yet("batch", "leave it out: each message travels alone");
    config.not_yet("dlq", "leave it out: a message that fails stops the pipeline");
    let endpoint = config.read("endpoint", Endpoint::parse);
    let tls = config.map("tls", |tls| TlsFiles {
        ca_file: tls.text("ca_file").map(PathBuf::from),
        cert_file: tls.text("cert_file").map(PathBuf::from),
        key_file: tls.text("key_file").map(PathBuf::from),
        server_name: tls.text("server_name"),
    });
    let defaults = Settings::new(endpoint?);
    let backoff = config.map("retry", |retry| Backoff {
        initial: retry.duration("initial").unwrap_or(defaults.backoff.initial),
        max: retry.duration("max").unwrap_or(defaults.backoff.max),
        multiplier: retry.number("multiplier").unwrap_or(defaults.backoff.multiplier),
    });
    let window = config.map("window", |window| WindowLimits {
        messages: window.number("messages").unwrap_or(defaults.window.messages),
        bytes: window.size("bytes").unwrap_or(defaults.window.bytes),
    });
    let mode = match config.flag("use_streaming") {
        Some(true) => CallMode::Streaming,
        Some(false) | None => CallMode::Unary,
    };
    Some(Box::new(Settings {
        endpoint: match tls {
            Some(_) => defaults.endpoint.with_tls(),
            None => defaults.endpoint,
        },
        timeout: config.duration("timeout").unwrap_or(defaults.timeout),
        total_timeout: config.duration("total_timeout"),
        max_retries: config.number("max_retries").unwrap_or(defaults.max_retries),
        backoff: backoff.unwrap_or(defaults.backoff),
        mode,
        window: window.unwrap_or(defaults.window),
        health_check_interval: config
            .duration("health_check_interval")
            .unwrap_or(defaults.health_check_interval),
        tls: tls.unwrap_or_default(),
        stream_max_age: defaults.stream_max_age,
    }))
}

/// Gives each step a name that no other has: its own, else its type.
#[derive(Default)]
struct Names(BTreeSet<String>);

// === impl Names ===

impl Names {
    fn give(&mut self, step: &Step) -> String {
        let base = step.name.as_ref().unwrap_or(&step.kind);
        let mut name = base.clone();
        let mut number = 1_u32;
        while !self.0.insert(name.clone()) {
            number += 1;
            name = format!("{base}-{number}");
        }
        name
    }
}
