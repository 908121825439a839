//! Pods prove who they are to a control plane that asks for it, and nothing that runs is rolled for that.

mod support;

use flowctl_plan::heartbeat::{Heartbeats, Identity, IdentityMode, ObjectEvidence};
use flowctl_plan::{ChildKind, Plan};
use serde_json::{Value, json};
use support::{World, fpl, only, payments, ttp, xproc};

const PLANE: &str = "flowctl.flowctl-system:8080";
const FILE: &str = "/etc/flowctl/control-plane-token";

fn asking(plane: &str, mode: IdentityMode, audience: Option<&str>) -> Heartbeats {
    Heartbeats::Read {
        plane: plane.to_owned(),
        evidence: ObjectEvidence {
            identity: Some(Identity {
                mode,
                audience: audience.map(str::to_owned),
            }),
            ..ObjectEvidence::default()
        },
    }
}

/// The variable and the token's source, as the pod has them.
fn token(plan: &Plan) -> (Option<String>, Vec<Value>) {
    let pod = &only(plan, ChildKind::Deployment)["spec"]["template"]["spec"];
    let mut env = pod["containers"][0]["env"].as_array().into_iter().flatten();
    let variable = env.find(|entry| entry["name"] == "FLOWCTL_TOKEN_FILE");
    let sources = pod["volumes"].as_array().into_iter().flatten();
    let sources = sources.flat_map(|volume| volume["projected"]["sources"].as_array().cloned().unwrap_or_default());
    let tokens = sources.filter_map(|source| source.get("serviceAccountToken").cloned());
    (
        variable.and_then(|entry| entry["value"].as_str()).map(str::to_owned),
        tokens.collect(),
    )
}

/// Without it, a control plane that requires identities would refuse every component that the operator runs.
#[test]
fn a_control_plane_that_asks_is_given_a_token() {
    let expected = json!({"audience": "planes", "expirationSeconds": 3600, "path": "control-plane-token"});
    for mode in [IdentityMode::Permissive, IdentityMode::Required] {
        let mut world = World::usual();
        world.heartbeats = asking(PLANE, mode, Some("planes"));
        for plan in [world.plan(&payments()), world.plan_processor(&ttp())] {
            assert_eq!(token(&plan), (Some(FILE.to_owned()), vec![expected.clone()]));
        }
    }
}

/// A token that nobody asked for is one more secret in a pod; one for another control plane could be used there.
#[test]
fn nobody_else_is_given_one() {
    for heartbeats in [
        Heartbeats::NotRead,
        asking(PLANE, IdentityMode::Off, Some("planes")),
        asking(PLANE, IdentityMode::Required, None),
        asking("elsewhere:8080", IdentityMode::Required, Some("planes")),
    ] {
        let mut world = World::usual();
        world.heartbeats = heartbeats;
        for plan in [world.plan(&payments()), world.plan_processor(&ttp())] {
            assert_eq!(token(&plan), (None, Vec::new()));
        }
    }
}

/// Switching identities on at the control plane would restart every workload of the cluster at once.
#[test]
fn what_runs_is_not_rolled_for_it() {
    let mut world = World::usual();
    let before = world.pass(&payments());
    world.heartbeats = asking(PLANE, IdentityMode::Required, Some("planes"));
    let after = world.pass(&payments());
    assert_eq!(after.present, before.present);
    // The next revision has one.
    let next = fpl("payments", &format!("{}restartedAt: now", support::PAYMENTS));
    assert_eq!(token(&world.pass(&next)).0.as_deref(), Some(FILE));
}

/// A user who brings a token of another kind is obeyed, and told.
#[test]
fn a_users_own_file_wins() {
    let mut world = World::usual();
    world.heartbeats = asking(PLANE, IdentityMode::Required, Some("planes"));
    let own = xproc(
        "own",
        "role: Processor\nworkload:\n  image: x\n  env: [{name: FLOWCTL_TOKEN_FILE, value: /mine}]\nport: 50051",
    );
    let plan = world.plan_processor(&own);
    assert_eq!(token(&plan).0.as_deref(), Some("/mine"));
    assert_eq!(plan.revision.unwrap().taken_by_user, ["FLOWCTL_TOKEN_FILE"]);
}
