//! What is registered: one description, written in the words of either dialect by `dialect`.

use std::collections::BTreeMap;

/// What a service does (`flowctl.ServiceType`; seed 002, appendix B, and the pipeline of seed 001).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Produces events.
    Source,
    /// Makes events of events.
    Processor,
    /// Takes events; `CONSUMER` in the v1 dialect.
    Sink,
    /// A whole pipeline.
    Pipeline,
}

/// What a service says about itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) id: Option<String>,
    pub(crate) input_event_types: Vec<String>,
    pub(crate) output_event_types: Vec<String>,
    pub(crate) endpoint: String,
    pub(crate) health_endpoint: String,
    pub(crate) max_inflight: Option<u32>,
    pub(crate) metadata: BTreeMap<String, String>,
}

// === impl Registration ===

impl Registration {
    /// A service of that role and name.
    #[must_use]
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Self {
            role,
            name: name.into(),
            version: String::new(),
            description: String::new(),
            id: None,
            input_event_types: Vec::new(),
            output_event_types: Vec::new(),
            endpoint: String::new(),
            health_endpoint: String::new(),
            max_inflight: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// A sentence for people.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// The id to register under when the environment gives none; without either the server makes one.
    #[must_use]
    pub fn default_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The types of events that it takes.
    #[must_use]
    pub fn input_event_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.input_event_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// The types of events that it makes.
    #[must_use]
    pub fn output_event_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.output_event_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Where it is reached, `host:port`; a server of ours completes `:port` with the address that it sees.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// URL that tells its health.
    #[must_use]
    pub fn health_endpoint(mut self, url: impl Into<String>) -> Self {
        self.health_endpoint = url.into();
        self
    }

    /// How many events it takes at once.
    #[must_use]
    pub fn max_inflight(mut self, most: u32) -> Self {
        self.max_inflight = Some(most);
        self
    }

    /// Adds properties, for example a [`SourceMetadata`](super::SourceMetadata).
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<BTreeMap<String, String>>) -> Self {
        self.metadata.extend(metadata.into());
        self
    }

    /// What the author left open, filled in by the program that serves.
    pub(crate) fn completed_by(mut self, other: Self) -> Self {
        let fill = |mine: &mut String, theirs: String| {
            if mine.is_empty() {
                *mine = theirs;
            }
        };
        fill(&mut self.name, other.name);
        fill(&mut self.version, other.version);
        fill(&mut self.endpoint, other.endpoint);
        fill(&mut self.health_endpoint, other.health_endpoint);
        self.max_inflight = self.max_inflight.or(other.max_inflight);
        self
    }
}
