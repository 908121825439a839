//! Schemas that the derive cannot give: open objects that keep unknown fields, and open lists with a merge key.

use schemars::{Schema, SchemaGenerator, json_schema};

/// An object with any keys, kept as they are.
pub(crate) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A step's `config`: any keys. `endpoint` is declared so that CEL can see it.
pub(crate) fn step_config(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"endpoint": {
            "type": "string",
            "maxLength": 512,
            "description": "Address of a service that is wired by hand; with processorRef the operator writes it.",
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
