//! What a user does, on a whole Kubernetes: install the chart, run pipelines over ledgers, change things, break things, and
//! remove everything. One cluster for all of it, because the order is the story; each part is a module.

mod node {
    pub(crate) mod batch;
    pub(crate) mod changes;
    pub(crate) mod health;
    pub(crate) mod processes;
    pub(crate) mod removal;
    pub(crate) mod scene;
}

use flowctl_testkit::tier::{Tier, require};
use node::{batch, changes, health, removal, scene::Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_installs_runs_changes_breaks_and_removes() {
    if require(Tier::Node).is_none() {
        return;
    }
    let scene = Scene::begin().await;
    batch::every_ledger_once_and_the_books_balance(&scene).await;
    batch::a_gap_fails_and_names_the_ledger(&scene).await;
    changes::what_restarts_and_what_does_not(&scene).await;
    changes::a_missing_processor_holds_the_pipeline_back_and_its_appearance_starts_it(&scene).await;
    changes::a_killed_pod_comes_back(&scene).await;
    health::a_silent_process_is_told_and_so_is_its_return(&scene).await;
    health::a_lost_control_plane_is_no_lost_pod(&scene).await;
    removal::everything_goes_with_the_operator_running_and_stopped(&scene).await;
    scene.end().await;
}
