//! The pipeline file: model, YAML in and out, validation with positions, step catalogue.
