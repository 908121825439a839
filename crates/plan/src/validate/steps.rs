//! The steps of a Pipeline: names, references, and whether each fits its place. A reference that does not exist and one
//! that is not granted get the same words: whether an object exists is a secret of its namespace.

mod contracts;

use std::collections::{BTreeMap, BTreeSet};

use flowctl_api::external_processor::ClientAuth;
use flowctl_api::pipeline::{Flavor, Step};
use flowctl_api::{ExternalProcessor, Object, ProcessorRef, Protocol, Reason, Role};
use flowctl_pipeline::Place;

use super::Problems;
use crate::{Endpoint, Key, PipelineObserved, Settings, WiredStep, endpoint, references};

/// Keys of a config that the operator writes beside a `processorRef`.
const WRITTEN: [&str; 3] = ["endpoint", "protocol", "tls"];

/// Most characters of a name that is given to a step.
const MAX_NAME: usize = 63;
/// Most characters of a type, which is the step's name where none is given.
const MAX_TYPE: usize = 128;

/// A step that can be written into a pipeline file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidStep {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) config: Object,
    pub(crate) work: Work,
}

/// What does the work of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// A type of the program that reads the file.
    BuiltIn(String),
    /// An ExternalProcessor.
    External(Key, Endpoint),
}

/// What the steps are checked against.
struct Context<'a> {
    observed: &'a PipelineObserved,
    namespace: &'a str,
    flavor: Flavor,
    has_client_certificate: bool,
}

/// A step with where it stands.
struct Placed<'a> {
    place: Place,
    field: String,
    step: &'a Step,
}

/// All steps, by place.
pub(super) struct ValidSteps {
    pub(super) source: ValidStep,
    pub(super) processors: Vec<ValidStep>,
    pub(super) consumers: Vec<ValidStep>,
}

/// Checks all steps. A step whose reference has problems has a stand-in for its endpoint in the first part, so that the
/// rest of it can be judged, and none in the second, which holds every step that refers to an ExternalProcessor. The
/// first part is missing when a step is none, or the source is a reference.
pub(super) fn check(
    observed: &PipelineObserved,
    flavor: Flavor,
    has_client_certificate: bool,
    problems: &mut Problems,
) -> (Option<ValidSteps>, Vec<WiredStep>) {
    let namespace = observed.object.metadata.namespace.as_deref().unwrap_or_default();
    let context = Context {
        observed,
        namespace,
        flavor,
        has_client_certificate,
    };
    let placed = placed(observed);
    if observed.object.spec.consumers.is_empty() {
        problems.invalid("spec.consumers", "no consumer; add at least one");
    }
    names(&placed, problems);
    let mut valid = Vec::new();
    let mut wired = Vec::new();
    for placed in &placed {
        let Some(name) = name_of(placed.step) else {
            let choice =
                "a step has exactly one of `type` (built into the runner) and `processorRef` (an ExternalProcessor)";
            problems.invalid(placed.field.as_str(), choice);
            continue;
        };
        let work = match (&placed.step.kind, &placed.step.processor_ref) {
            (Some(kind), _) => Some(Work::BuiltIn(kind.clone())),
            (None, Some(reference)) => {
                let target = references::target(reference, namespace);
                let endpoint = context.external(placed, reference, &target, problems);
                wired.push(WiredStep {
                    name: name.to_owned(),
                    target: target.clone(),
                    endpoint: endpoint.as_ref().map(|endpoint| endpoint.address.clone()),
                });
                let endpoint = endpoint.or_else(|| stand_in(placed.place));
                endpoint.map(|endpoint| Work::External(target, endpoint))
            }
            (None, None) => None,
        };
        let config = placed.step.config.clone().unwrap_or_default();
        valid.extend(work.map(|work| ValidStep {
            place: placed.place,
            name: name.to_owned(),
            config,
            work,
        }));
    }
    contracts::check(&context, &placed, problems);
    let all = valid.len() == placed.len();
    let (source, others): (Vec<_>, Vec<_>) = valid.into_iter().partition(|step| step.place == Place::Source);
    let (processors, consumers) = others.into_iter().partition(|step| step.place == Place::Processor);
    let steps = source.into_iter().next().filter(|_| all).map(|source| ValidSteps {
        source,
        processors,
        consumers,
    });
    (steps, wired)
}

/// In the place of an endpoint that is not known; `None` for a source, which no service can be.
fn stand_in(place: Place) -> Option<Endpoint> {
    let stand_in = Endpoint {
        address: "unknown:1".to_owned(),
        protocol: Protocol::PipelineV1,
        tls: None,
    };
    match place {
        Place::Source => None,
        Place::Processor | Place::Consumer => Some(stand_in),
    }
}

fn placed(observed: &PipelineObserved) -> Vec<Placed<'_>> {
    let spec = &observed.object.spec;
    let source = Placed {
        place: Place::Source,
        field: "spec.source".to_owned(),
        step: &spec.source,
    };
    let mut all = vec![source];
    for (place, list, steps) in [
        (Place::Processor, "processors", &spec.processors),
        (Place::Consumer, "consumers", &spec.consumers),
    ] {
        let steps = steps.iter().enumerate();
        all.extend(steps.map(|(index, step)| Placed {
            place,
            field: format!("spec.{list}[{index}]"),
            step,
        }));
    }
    all
}

/// The name of a step: its own, its processor's, or its type; `None` when it has neither or both of the latter.
fn name_of(step: &Step) -> Option<&str> {
    let default = match (&step.kind, &step.processor_ref) {
        (Some(kind), None) => kind.as_str(),
        (None, Some(reference)) => reference.name.as_str(),
        (None, None) | (Some(_), Some(_)) => return None,
    };
    Some(step.name.as_deref().unwrap_or(default))
}

fn names(steps: &[Placed<'_>], problems: &mut Problems) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for placed in steps {
        let Some(name) = name_of(placed.step) else { continue };
        // As in the schema, in characters.
        let (field, longest) = match (&placed.step.name, &placed.step.kind) {
            (None, Some(_)) => ("type", MAX_TYPE),
            (Some(_), _) | (None, None) => ("name", MAX_NAME),
        };
        if name.is_empty() || name.chars().count() > longest || name.chars().any(char::is_control) {
            problems.invalid(
                format!("{}.{field}", placed.field),
                format!("a {field} has 1 to {longest} printable characters"),
            );
        }
        if let Some(other) = seen.insert(name, &placed.field) {
            problems.invalid(
                format!("{}.name", placed.field),
                format!("{other} is named {name:?} too; give one of the two another name"),
            );
        }
    }
}

/// The role that a place asks for.
const fn role_of(place: Place) -> Role {
    match place {
        Place::Source => Role::Source,
        Place::Processor => Role::Processor,
        Place::Consumer => Role::Consumer,
    }
}

// === impl Context ===

impl Context<'_> {
    /// The endpoint of a step that refers to an ExternalProcessor, when everything about the reference is right.
    fn external(
        &self,
        placed: &Placed<'_>,
        reference: &ProcessorRef,
        target: &Key,
        problems: &mut Problems,
    ) -> Option<Endpoint> {
        let field = format!("{}.processorRef", placed.field);
        let mut clean = true;
        for key in WRITTEN {
            if placed
                .step
                .config
                .as_ref()
                .is_some_and(|config| config.contains_key(key))
            {
                clean = false;
                problems.refuse(
                    Reason::EndpointConflict,
                    format!("{}.config.{key}", placed.field),
                    format!("the operator writes {key:?} from {field} ({target}); remove config.{key}, or replace processorRef by a type"),
                );
            }
        }
        if self.flavor == Flavor::Cdp {
            problems.misfit(
                Reason::ProtocolMismatch,
                field,
                format!("flavor Cdp has no step that calls a service, so it cannot use {target}; set spec.runtime.flavor to Runner"),
            );
            return None;
        }
        let Some(processor) = self.granted(target) else {
            let (settings, unread) = (&self.observed.settings, &self.observed.unread);
            problems.unresolved(field, not_found(reference, target, self.namespace, settings, unread));
            return None;
        };
        let reached = self.reached(placed, &field, target, processor, problems);
        reached.filter(|_| clean)
    }

    fn granted(&self, target: &Key) -> Option<&ExternalProcessor> {
        let found = self.observed.processors.get(target)?;
        references::granted(found, self.namespace).then_some(found.as_ref())
    }

    fn reached(
        &self,
        placed: &Placed<'_>,
        field: &str,
        target: &Key,
        processor: &ExternalProcessor,
        problems: &mut Problems,
    ) -> Option<Endpoint> {
        let (wanted, role) = (role_of(placed.place), processor.spec.role);
        if role != wanted {
            problems.misfit(
                Reason::RoleMismatch,
                field,
                format!(
                    "{target} has role {}, but a {} of a pipeline needs role {}; refer to another one, or move the step",
                    role.as_str(),
                    placed.place.noun(),
                    wanted.as_str()
                ),
            );
            return None;
        }
        if placed.place == Place::Source {
            problems.misfit(
                Reason::ProtocolMismatch,
                field,
                format!(
                    "the runner cannot take messages from a service: pipeline.v1 has calls for processors and consumers only, \
                     and {target} is a source; use a built-in source type, for example BufferedStorageSourceAdapter"
                ),
            );
            return None;
        }
        let Some(endpoint) = endpoint::of(processor, &self.observed.settings) else {
            problems.misfit(
                Reason::ProtocolMismatch,
                field,
                format!("{target} names no port; set its spec.port"),
            );
            return None;
        };
        if endpoint.protocol != Protocol::PipelineV1 {
            problems.misfit(
                Reason::ProtocolMismatch,
                field,
                format!(
                    "{target} speaks {}, and the runner speaks pipeline.v1; refer to a processor whose spec.protocol is pipeline.v1",
                    endpoint.protocol.as_str()
                ),
            );
            return None;
        }
        let required = endpoint
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_auth == ClientAuth::Required);
        if required && !self.has_client_certificate {
            problems.misfit(
                Reason::ProtocolMismatch,
                "spec.runtime.clientTls",
                format!("{target} requires a client certificate (its tls.clientAuth); set clientTls.secretName"),
            );
            return None;
        }
        Some(endpoint)
    }
}

/// What is said of a reference that leads nowhere; `unread` are namespaces that the operator works for and cannot read. What
/// the operator may look at is no secret of a namespace; what is in it is.
pub(super) fn not_found(
    reference: &ProcessorRef,
    target: &Key,
    namespace: &str,
    settings: &Settings,
    unread: &BTreeSet<String>,
) -> String {
    let watched = &settings.watched_namespaces;
    if target.namespace == namespace {
        return format!(
            "there is no ExternalProcessor {:?} in this namespace; create it, or correct the name",
            reference.name
        );
    }
    if !watched.is_empty() && !watched.contains(&target.namespace) {
        return format!(
            "ExternalProcessor {target} cannot be used: this operator works in {} only; refer to one there, or add \
             namespace {:?} to the operator's --namespaces",
            watched.join(", "),
            target.namespace
        );
    }
    if unread.contains(&target.namespace) {
        return format!(
            "ExternalProcessor {target} cannot be looked up: the operator cannot read namespace {:?} at present; what runs is \
             left as it is; create that namespace, or the operator's Role in it",
            target.namespace
        );
    }
    format!(
        "ExternalProcessor {target} does not exist or does not grant namespace {namespace:?}; create it, or add the namespace \
         to its spec.allowedNamespaces.names"
    )
}
