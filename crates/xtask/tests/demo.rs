//! The README's first command, as a person runs it. It makes its own cluster, so it is a test binary of its own: the tests
//! of one binary run at the same time.

use flowctl_testkit::tier::{Tier, require};
use tokio::process::Command;

#[tokio::test]
async fn the_first_command_of_the_readme_ends_with_totals_by_asset() {
    if require(Tier::Node).is_none() {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("demo")
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (shown, told) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "the demo failed\n{told}\n{shown}");
    assert!(
        shown.contains("type: ExternalProcessor"),
        "the wired file is not shown\n{shown}"
    );
    assert!(
        shown.contains("endpoint: ttp-processor-processor-pods.flowctl-demo.svc"),
        "no endpoint is wired\n{shown}"
    );
    // Through a port-forward, from pods that got the address injected: who is looked after is seen.
    for (id, kind) in [
        ("flowctl-demo.payments.", "cdp-pipeline"),
        ("flowctl-demo.ttp-processor.", "processor"),
        ("flowctl-demo.analytics-sink.", "sink"),
    ] {
        let reports = |line: &str| {
            let cells: Vec<_> = line.split_whitespace().take(3).collect();
            matches!(cells[..], [of, is, "healthy"] if of.starts_with(id) && is == kind)
        };
        assert!(shown.lines().any(reports), "{id} does not report\n{shown}");
    }
    assert!(
        shown.lines().any(|line| line.contains("native")),
        "there are no totals by asset\n{shown}"
    );
}
