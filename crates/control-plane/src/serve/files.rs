//! The limit of open files: every connection is one, and the usual soft limit of 1,024 would refuse a small cluster.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For the store, listeners, calls to the apiserver and to webhooks.
const OTHERS: u64 = 128;

/// Raises the soft limit to the hard one, and gives the number of connections that it allows, at most `wanted`.
pub(crate) fn connections(wanted: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let files = if raised { hard } else { soft };
    let most = usize::try_from(files.saturating_sub(OTHERS))
        .unwrap_or(usize::MAX)
        .max(1);
    if most < wanted {
        tracing::warn!(
            wanted,
            most,
            "fewer connections than --max-connections: the limit of open files is {files}"
        );
    }
    wanted.min(most)
}
