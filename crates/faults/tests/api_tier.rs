//! The operator behind the fault proxy, against a real apiserver with real controllers and garbage collection.

use flowctl_faults::{
    Case, Runner,
    campaign::{self, JOBS},
};
use flowctl_testkit::{Tier, tier};

// A user whose cluster has a bad moment, at any moment, must find what they would have found without it: nothing missing,
// nothing twice, nothing restarted, nothing left.
#[test]
fn every_write_may_go_wrong() {
    if tier::require(Tier::Api).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let report = runtime.expect("a runtime").block_on(async {
        let runner = Runner::start().await.expect("a cluster");
        let all = campaign::matrix(&runner, "").await.expect("undisturbed runs");
        let of = all.len();
        let mut cases = campaign::selection(all);
        println!(
            "{} of {of} cases; all of them: cargo xtask faults campaign",
            cases.len()
        );
        for (name, _) in &cases {
            println!("    {name}");
        }
        cases.extend(Case::all_in("cases").expect("committed cases"));
        campaign::run(&runner, cases, JOBS, |line| println!("{line}")).await
    });
    println!("{}", report.text());
    assert!(report.is_good(), "{}", report.text());
}
