//! Schemas that the derive cannot give: open objects that keep unknown fields, and open lists with a merge key.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Longest `endpoint` of a built-in step, in characters: some are URLs with a query.
const MAX_ENDPOINT: u32 = 2048;

/// An object with any keys, kept as they are.
pub(crate) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A step's `config`: any keys. `endpoint` is declared so that CEL can see it, and CEL sees typed properties only: the
/// price is that a built-in step cannot have a list or an object there.
pub(crate) fn step_config(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"endpoint": {
            "type": "string",
            "maxLength": MAX_ENDPOINT,
            "description": "Address that a built-in step dials, as text; with processorRef the operator writes it.",
        }},
    })
}

/// `volumes`: open objects merged by name; what they may hold is checked in `flowctl-plan`.
pub(crate) fn volumes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 63}},
            "x-kubernetes-preserve-unknown-fields": true,
        },
    })
}

/// An empty object: a choice that carries nothing.
pub(crate) fn empty_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}
