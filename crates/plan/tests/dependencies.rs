//! R1: what plans is built from nothing that can do I/O. Purity by dependency, not by discipline.

use std::process::Command;

/// Crates that open sockets, run timers, or exist for those that do.
const FORBIDDEN: [&str; 9] = [
    "tokio",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "tonic",
    "reqwest",
    "mio",
    "socket2",
];

/// A plan could wait, dial or read a clock, and a test of it would no longer be a proof.
#[test]
fn nothing_here_can_do_io() {
    for package in ["flowctl-plan", "flowctl-pipeline", "flowctl-api"] {
        // A tree of normal dependencies: metadata would show features that other crates of the workspace turn on.
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--package",
                package,
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).unwrap();
        let names: Vec<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(names.contains(&"serde_json"), "{package}: an empty tree proves nothing");
        let found: Vec<_> = names.iter().filter(|name| FORBIDDEN.contains(name)).collect();
        assert!(found.is_empty(), "{package} depends on {found:?}");
    }
}
