//! Endpoints into the pipeline file: a step with a `processorRef` becomes a step of the bridge, with `endpoint`, `protocol`
//! and `tls` in its config. `${NAME}` stays as it is: the program that runs the file expands it, so that no secret ever
//! stands in one (invariant R10). Keys of configs are written in order, because an apiserver returns them so.

use std::collections::BTreeMap;

use flowctl_api::Object;
use flowctl_api::external_processor::ClientAuth;
use flowctl_api::pipeline::Flavor;
use flowctl_pipeline::{PipelineFile, Place, Step};
use serde_json::{Map, Value};

use crate::validate::{ValidPipeline, ValidStep, Work};
use crate::{Endpoint, EndpointTls, Key, digest, pod};

/// Key of the pipeline file in its ConfigMap.
pub(crate) const FILE: &str = "pipeline.yaml";

/// The pipeline file with every endpoint in it.
pub(crate) fn file(valid: &ValidPipeline) -> PipelineFile {
    let steps = |steps: &[ValidStep]| steps.iter().map(|one| step(one, valid)).collect();
    PipelineFile {
        key: valid.owner.dotted(),
        name: Some(valid.owner.name.clone()),
        source: step(&valid.source, valid),
        processors: steps(&valid.processors),
        consumers: steps(&valid.consumers),
    }
}

/// The certificates that callers need, by their file's name: those of processors.
pub(crate) fn authorities(valid: &ValidPipeline) -> BTreeMap<String, String> {
    let bundles = valid.external().filter_map(|(target, endpoint)| {
        let bundle = endpoint.tls.as_ref()?.ca_bundle.clone()?;
        Some((authority_file(target), bundle))
    });
    bundles.collect()
}

/// Named after the processor, not after the step: two steps may share it, and a step's name may hold anything.
fn authority_file(target: &Key) -> String {
    format!("ca-{}.{}.pem", target.namespace, target.name)
}

fn step(step: &ValidStep, valid: &ValidPipeline) -> Step {
    let mut config = step.config.clone();
    let kind = match &step.work {
        Work::BuiltIn(kind) => kind.as_str(),
        Work::External(target, endpoint) => {
            wire(&mut config, target, endpoint);
            match step.place {
                Place::Source | Place::Processor => "ExternalProcessor",
                Place::Consumer => "ExternalConsumer",
            }
        }
    };
    let config = match digest::sorted(&Value::Object(config)) {
        Value::Object(config) => config,
        _ => Map::new(),
    };
    let written = Step::new(kind, config);
    match valid.flavor {
        Flavor::Runner => written.named(step.name.as_str()),
        // The Go binary knows no names of steps.
        Flavor::Cdp => written,
    }
}

fn wire(config: &mut Object, target: &Key, endpoint: &Endpoint) {
    config.insert("endpoint".to_owned(), Value::from(endpoint.address.as_str()));
    config.insert("protocol".to_owned(), Value::from(endpoint.protocol.as_str()));
    if let Some(tls) = &endpoint.tls {
        config.insert("tls".to_owned(), Value::Object(tls_config(target, endpoint, tls)));
    }
}

fn tls_config(target: &Key, endpoint: &Endpoint, tls: &EndpointTls) -> Object {
    let mut config = Object::new();
    let mut put = |key: &str, value: String| config.insert(key.to_owned(), Value::from(value));
    match &tls.ca_bundle {
        Some(_) => put("ca_file", format!("{}/{}", pod::CONFIG_DIR, authority_file(target))),
        // Said although it is the default: an empty map could be read as "off".
        None => put("server_name", endpoint.host().to_owned()),
    };
    match tls.client_auth {
        ClientAuth::Required => {
            put("cert_file", format!("{}/{}/tls.crt", pod::CONFIG_DIR, pod::CLIENT_TLS));
            put("key_file", format!("{}/{}/tls.key", pod::CONFIG_DIR, pod::CLIENT_TLS));
        }
        ClientAuth::None => {}
    }
    config
}
