//! Who calls. A pod may send its service account token (`authorization: Bearer …`, with an audience of ours); the
//! apiserver says whose it is, and the names of the pod say which ids it may claim. Nothing here decides who is healthy.

mod claims;
mod guard;
mod jwt;
mod review;
mod reviews;

pub(crate) use guard::{Caller, Guard};
pub use review::{KubeReviewer, ReviewError, Reviewer};
pub(crate) use reviews::Reviews;

/// What is asked of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IdentityMode {
    /// Tokens are not looked at: whoever reaches the port may claim any id.
    Off,
    /// Tokens are checked; a caller without a good one is served too, and its service is shown without an identity.
    Permissive,
    /// Without a good token nothing can be written; reading is free.
    Required,
}

/// The audience that tokens must be made for, unless a flag names another.
pub const DEFAULT_AUDIENCE: &str = "flowctl";
