//! The operator behind the fault proxy, against a real apiserver with real controllers and garbage collection.

use flowctl_faults::{
    Case, Runner,
    campaign::{self, JOBS},
};
use flowctl_testkit::{Tier, tier};

/// What there is today: an empty list would be green.
const WORKLOADS: usize = 15;
/// Each as it is, with one kind late, and with a kill and another fault for one write at least.
const PER_WORKLOAD: usize = 4;

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
        let workloads = Case::all_in("workloads").expect("workloads");
        assert!(workloads.len() >= WORKLOADS, "{:?}", workloads.keys());
        assert_eq!(campaign::gaps(&workloads, &all), Vec::<String>::new());
        let of = all.len();
        let mut cases = campaign::selection(all);
        assert!(cases.len() >= WORKLOADS * PER_WORKLOAD, "{} of {of}", cases.len());
        println!(
            "{} of {of} cases; all of them: cargo xtask faults campaign",
            cases.len()
        );
        for (name, _) in &cases {
            println!("    {name}");
        }
        cases.extend(Case::all_in("cases").expect("committed cases"));
        let chosen = cases.len();
        let report = campaign::run(&runner, cases, JOBS, |line| println!("{line}")).await;
        assert_eq!(
            report.outcomes.len() + report.errors.len(),
            chosen,
            "every case has its own name"
        );
        report
    });
    println!("{}", report.text());
    assert!(report.is_good(), "{}", report.text());
}
