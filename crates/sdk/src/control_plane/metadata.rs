//! The properties that seeds 001 and 002 register for each kind of component, with the keys that they use. A field that is
//! empty is left out.

use std::collections::BTreeMap;

/// The event type of ledgers (seed 002, its constants).
pub const STELLAR_LEDGER_EVENT: &str = "stellar_ledger_service.StellarLedger";
/// The event type of token transfer events (seed 002, its constants).
pub const TTP_EVENT: &str = "ttp_event_service.TTPEvent";

/// What a source says about itself (seed 002, phase 2).
#[derive(Clone, Debug, Default)]
pub struct SourceMetadata {
    /// Network or its passphrase: `network`.
    pub network: String,
    /// Where ledgers are kept, for example `datalake`: `storage_type`.
    pub storage_type: String,
    /// What keeps them, for example `s3`: `backend_type`.
    pub backend_type: String,
}

/// What a processor says about itself (seed 002, phase 3).
#[derive(Clone, Debug, Default)]
pub struct ProcessorMetadata {
    /// Network or its passphrase: `network`.
    pub network: String,
    /// What it does, for example `ttp_event_extraction`: `processor_type`.
    pub processor_type: String,
    /// The events that it makes: `event_types`, joined by commas.
    pub event_types: Vec<String>,
}

/// What a sink says about itself (seed 002, phase 4).
#[derive(Clone, Debug, Default)]
pub struct SinkMetadata {
    /// For example `parquet`, `json`, `websocket`, `api`: `output_formats`, joined by commas.
    pub output_formats: Vec<String>,
    /// Where files are written: `storage_paths`, joined by commas.
    pub storage_paths: Vec<String>,
    /// URL of the WebSocket output, if there is one: told by `websocket_enabled` and in `endpoints`.
    pub websocket: Option<String>,
    /// URL of the API, if there is one: told by `api_enabled` and in `endpoints`.
    pub api: Option<String>,
    /// URL of the health endpoint: the first of `endpoints`.
    pub health: String,
}

/// What a pipeline says about itself (seed 001, section 3).
#[derive(Clone, Debug, Default)]
pub struct PipelineMetadata {
    /// The pipeline file: `config_file`.
    pub config_file: String,
    /// Version of the program that runs it: `version`.
    pub version: String,
    /// Network or its passphrase: `network`.
    pub network: String,
}

impl From<SourceMetadata> for BTreeMap<String, String> {
    fn from(it: SourceMetadata) -> Self {
        pairs([
            ("network", it.network),
            ("storage_type", it.storage_type),
            ("backend_type", it.backend_type),
        ])
    }
}

impl From<ProcessorMetadata> for BTreeMap<String, String> {
    fn from(it: ProcessorMetadata) -> Self {
        pairs([
            ("network", it.network),
            ("processor_type", it.processor_type),
            ("event_types", it.event_types.join(",")),
        ])
    }
}

impl From<SinkMetadata> for BTreeMap<String, String> {
    fn from(it: SinkMetadata) -> Self {
        let websocket_enabled = it.websocket.is_some().to_string();
        let api_enabled = it.api.is_some().to_string();
        let health = Some(it.health).filter(|health| !health.is_empty());
        let endpoints: Vec<String> = [health, it.websocket, it.api].into_iter().flatten().collect();
        pairs([
            ("output_formats", it.output_formats.join(",")),
            ("storage_paths", it.storage_paths.join(",")),
            ("websocket_enabled", websocket_enabled),
            ("api_enabled", api_enabled),
            ("endpoints", endpoints.join(",")),
        ])
    }
}

impl From<PipelineMetadata> for BTreeMap<String, String> {
    fn from(it: PipelineMetadata) -> Self {
        pairs([
            ("config_file", it.config_file),
            ("version", it.version),
            ("network", it.network),
        ])
    }
}

fn pairs<const N: usize>(entries: [(&str, String); N]) -> BTreeMap<String, String> {
    let given = entries.into_iter().filter(|(_, value)| !value.is_empty());
    given.map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whoever filters services by these keys finds none if one is spelled otherwise.
    #[test]
    fn a_sink_says_what_seed_002_says() {
        let metadata: BTreeMap<String, String> = SinkMetadata {
            output_formats: vec!["parquet".into(), "websocket".into()],
            storage_paths: vec!["/data/parquet".into()],
            websocket: Some("ws://localhost:8080/ws".into()),
            api: None,
            health: "http://localhost:8088/health".into(),
        }
        .into();
        let expected = [
            ("api_enabled", "false"),
            ("endpoints", "http://localhost:8088/health,ws://localhost:8080/ws"),
            ("output_formats", "parquet,websocket"),
            ("storage_paths", "/data/parquet"),
            ("websocket_enabled", "true"),
        ];
        let got: Vec<_> = metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(got, expected);
    }
}
