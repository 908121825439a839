//! The step types we know, by place, with the config keys that we read: for validation, suggestions and documentation. Data
//! only; a type that is not here is not an error of the file, because the Go binary has many more.

use crate::model::Place;

/// A step type that the runner has.
#[derive(Debug, PartialEq, Eq)]
pub struct StepType {
    /// `type` in the file.
    pub name: &'static str,
    /// Where it can stand.
    pub place: Place,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What its `config` may hold.
    pub keys: &'static [Key],
}

/// A key of a config.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// Whether it must be there.
    pub presence: Presence,
    /// What its value is.
    pub expects: Expects,
    /// What it means, with its default.
    pub summary: &'static str,
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It must.
    Required,
    /// It may.
    Optional,
    /// It may, for the sake of files that the Go binary reads too; the runner does not use it.
    Ignored,
}

/// What a value is. A text that holds a `${NAME}` placeholder is accepted wherever its expansion could be.
#[derive(Debug, PartialEq, Eq)]
pub enum Expects {
    /// A text that is not empty.
    Text,
    /// A Go duration above zero: see [`crate::duration`].
    Duration,
    /// An amount of memory above zero: see [`crate::size`]; a plain number is bytes.
    Size,
    /// A whole number within these bounds.
    Count(u64, u64),
    /// A number of at least this much.
    Factor(u32),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A map with these keys.
    Map(&'static [Key]),
    /// Anything.
    Anything,
}

/// The type with this name in this place.
pub fn lookup(place: Place, name: &str) -> Option<&'static StepType> {
    types(place).find(|kind| kind.name == name)
}

/// All types of a place.
pub fn types(place: Place) -> impl Iterator<Item = &'static StepType> {
    TYPES.iter().filter(move |kind| kind.place == place)
}

// === impl StepType ===

impl StepType {
    /// The key of its config with this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

// === the catalogue ===

const fn required(name: &'static str, expects: Expects, summary: &'static str) -> Key {
    Key {
        name,
        presence: Presence::Required,
        expects,
        summary,
    }
}

const fn optional(name: &'static str, expects: Expects, summary: &'static str) -> Key {
    Key {
        name,
        presence: Presence::Optional,
        expects,
        summary,
    }
}

const fn ignored(name: &'static str) -> Key {
    Key {
        name,
        presence: Presence::Ignored,
        expects: Expects::Anything,
        summary: "read by the Go binary only",
    }
}

/// Every step type of the runner.
pub const TYPES: &[StepType] = &[
    StepType {
        name: "BufferedStorageSourceAdapter",
        place: Place::Source,
        summary: "reads ledgers that Galexie wrote",
        keys: &[
            required("storage_type", Expects::OneOf(&["FS"]), "FS: a folder"),
            required("path", Expects::Text, "the folder"),
            optional("network", Expects::Text, "the network's name"),
            optional(
                "start_ledger",
                Expects::Count(1, u32::MAX as u64),
                "the first ledger; default: the first one there is",
            ),
            optional(
                "end_ledger",
                Expects::Count(0, u32::MAX as u64),
                "the last ledger, included; default: none, also written 0",
            ),
            optional(
                "poll_interval",
                Expects::Duration,
                "how often to look for new files without an end_ledger; default 5s",
            ),
            optional(
                "gap_timeout",
                Expects::Duration,
                "how long a ledger may be missing while later ones are there; default 30s",
            ),
            ignored("buffer_size"),
            ignored("num_workers"),
            ignored("retry_limit"),
            ignored("retry_wait"),
            ignored("ledgers_per_file"),
            ignored("files_per_partition"),
        ],
    },
    StepType {
        name: "LedgerReader",
        place: Place::Processor,
        summary: "turns a ledger's XDR into JSON",
        keys: &[optional(
            "network",
            Expects::Text,
            "the network's name; default: the source's",
        )],
    },
    StepType {
        name: "ExternalProcessor",
        place: Place::Processor,
        summary: "sends each message to a service over gRPC and takes its answer",
        keys: BRIDGE,
    },
    StepType {
        name: "ExternalConsumer",
        place: Place::Consumer,
        summary: "sends each message to a service over gRPC",
        keys: BRIDGE,
    },
    StepType {
        name: "StdoutConsumer",
        place: Place::Consumer,
        summary: "prints each message as one line of JSON",
        keys: &[],
    },
    StepType {
        name: "JSONLinesConsumer",
        place: Place::Consumer,
        summary: "appends each message to a file as one line of JSON",
        keys: &[required("path", Expects::Text, "the file")],
    },
];

/// The keys of both external steps.
pub const BRIDGE: &[Key] = &[
    required("endpoint", Expects::Text, "host:port or https://host:port"),
    optional(
        "timeout",
        Expects::Duration,
        "of one attempt; starts anew, for a call at most four times, when the service answers another message; default 30s",
    ),
    optional(
        "total_timeout",
        Expects::Duration,
        "of all attempts, from the first; default none",
    ),
    optional(
        "max_retries",
        Expects::Count(0, 1_000_000),
        "attempts after the first; default 3",
    ),
    optional("retry", Expects::Map(RETRY), "how long to wait between attempts"),
    optional(
        "use_streaming",
        Expects::Flag,
        "one stream with many messages in flight, which the service gets in order, instead of a call for each, \
         of which a processor gets up to four at once for each of its addresses, in any order; default false",
    ),
    optional(
        "window",
        Expects::Map(WINDOW),
        "what may be in flight at this step, from when it is accepted until its answer was passed on in order; the \
         smaller bound wins; bytes are those of the messages sent, so answers that wait for an earlier one come on \
         top: up to messages times the largest answer",
    ),
    optional(
        "batch",
        Expects::Map(BATCH),
        "how many messages go into one call; default one",
    ),
    optional(
        "ordering",
        Expects::OneOf(&["strict", "per_key", "none"]),
        "the order in which answers are passed on; default strict; messages reach a processor in order only with \
         use_streaming: true",
    ),
    optional("health_check_interval", Expects::Duration, "default 10s"),
    optional(
        "on_error",
        Expects::OneOf(&["halt", "retry", "drop", "dlq"]),
        "what becomes of a message that fails for good; default halt",
    ),
    optional("dlq", Expects::Map(DLQ), "where messages go with on_error: dlq"),
    optional(
        "connections",
        Expects::Count(1, 64),
        "connections for each address; default 1",
    ),
    optional("tls", Expects::Map(TLS), "default off"),
    optional(
        "protocol",
        Expects::OneOf(&["pipeline.v1", "flowctl.v1"]),
        "what the service speaks; default pipeline.v1",
    ),
];

/// Waiting between attempts.
pub const RETRY: &[Key] = &[
    optional("initial", Expects::Duration, "the first wait; default 200ms"),
    optional("max", Expects::Duration, "the longest wait; default 30s"),
    optional("multiplier", Expects::Factor(1), "the growth of the wait; default 2"),
];

/// What may be in flight.
pub const WINDOW: &[Key] = &[
    optional("messages", Expects::Count(1, 1_000_000), "default 256"),
    optional("bytes", Expects::Size, "default 32MiB"),
];

/// When a batch is full.
pub const BATCH: &[Key] = &[
    optional("count", Expects::Count(1, 1_000_000), "messages"),
    optional("bytes", Expects::Size, "their payloads together"),
    optional("age", Expects::Duration, "of the oldest message"),
];

/// Where dead letters go: a file or a consumer service.
pub const DLQ: &[Key] = &[
    optional("path", Expects::Text, "a file of JSON lines"),
    optional("endpoint", Expects::Text, "an ExternalConsumer's host:port"),
    optional("timeout", Expects::Duration, "of one attempt; default 30s"),
    optional("tls", Expects::Map(TLS), "default off"),
];

/// TLS towards a service. Files are read again when their content changes.
pub const TLS: &[Key] = &[
    optional(
        "ca_file",
        Expects::Text,
        "PEM of the authorities to trust; default: the system's",
    ),
    optional(
        "cert_file",
        Expects::Text,
        "PEM of the client's certificate, with key_file",
    ),
    optional("key_file", Expects::Text, "PEM of the client's key, with cert_file"),
    optional(
        "server_name",
        Expects::Text,
        "the name in the server's certificate; default: the host in endpoint",
    ),
];
