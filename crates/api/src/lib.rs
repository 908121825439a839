//! The two CRDs as Rust types; condition types, reasons, label keys.
