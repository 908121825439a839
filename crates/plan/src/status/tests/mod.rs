//! What a person reads when something is wrong, reason by reason.
