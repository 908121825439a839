//! Event types: whether what one step is declared to give is something that the next one takes.

use flowctl_api::{ExternalProcessor, Reason};
use flowctl_pipeline::Place;

use super::{Context, Placed, name_of};
use crate::validate::Problems;
use crate::{Key, references};

/// What a step is declared to take and to give.
struct Declared<'a> {
    name: &'a str,
    target: Key,
    inputs: &'a [String],
    outputs: &'a [String],
}

/// Whether what each step gives is something that the next one takes, where both say so.
pub(super) fn check(context: &Context<'_>, steps: &[Placed<'_>], problems: &mut Problems) {
    let declared = |placed: &Placed<'_>| -> Option<(Key, &ExternalProcessor)> {
        let target = references::target(placed.step.processor_ref.as_ref()?, context.namespace);
        let processor = context.granted(&target)?;
        Some((target, processor))
    };
    let resolved: Vec<_> = steps.iter().map(declared).collect();
    let mut previous: Option<Declared<'_>> = None;
    for (placed, resolved) in steps.iter().zip(&resolved) {
        let current = resolved.as_ref().and_then(|(target, processor)| {
            let contract = processor.spec.contract.as_ref()?;
            Some(Declared {
                name: name_of(placed.step)?,
                target: target.clone(),
                inputs: &contract.input_event_types,
                outputs: &contract.output_event_types,
            })
        });
        if let (Some(from), Some(to)) = (&previous, &current)
            && !from.outputs.is_empty()
            && !to.inputs.is_empty()
            && !from.outputs.iter().any(|given| to.inputs.contains(given))
        {
            problems.misfit(
                Reason::ContractMismatch,
                format!("{}.processorRef", placed.field),
                format!(
                    "{} ({}) gives {}, but {} ({}) takes {}; put a step between them that turns one into the other",
                    from.name,
                    from.target,
                    from.outputs.join(", "),
                    to.name,
                    to.target,
                    to.inputs.join(", ")
                ),
            );
        }
        match placed.place {
            Place::Source | Place::Processor => previous = current,
            // Every consumer takes what the last processor gives.
            Place::Consumer => {}
        }
    }
}
