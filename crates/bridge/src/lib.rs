//! Carries messages to an external processor and back.
