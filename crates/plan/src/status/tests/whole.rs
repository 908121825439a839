//! Whole statuses, as `kubectl get -o yaml` shows them.

use super::*;

// Every field is part of what people and programs read; a change here is a change of the API.
#[test]
fn a_processor_that_serves() {
    let pods = ["ttp-a", "ttp-b", "ttp-c"].map(ready).into();
    let service = service().with(deployment("ttp-processor", 3, "RollingUpdate", settled(3)), pods);
    insta::assert_yaml_snapshot!(service.publish().status);
}

#[test]
fn a_processor_whose_image_is_missing() {
    let state = json!({"waiting": {"reason": "ErrImagePull", "message": "failed to pull and unpack image \"docker.io/library/ttp:1\": not found"}});
    let pods = vec![starting("ttp-processor-7c9f-x2b4k", state, 0, json!({}))];
    let service = service().with(deployment("ttp-processor", 3, "RollingUpdate", unsettled(3)), pods);
    insta::assert_yaml_snapshot!(service.publish().status);
}

#[test]
fn a_processor_that_runs_elsewhere() {
    let mut service = service();
    service.object.spec.workload = None;
    service.object.spec.external = Some(read(json!({"endpoint": "plugins.internal:9002"})));
    service.plan = Plan {
        wiring: Wiring {
            endpoint: Some("plugins.internal:9002".to_owned()),
            steps: Vec::new(),
        },
        ..Plan::default()
    };
    insta::assert_yaml_snapshot!(service.publish().status);
}

#[test]
fn a_pipeline_on_its_first_pass() {
    insta::assert_yaml_snapshot!(flow("Streaming").served_by(service()).publish().status);
}

#[test]
fn a_batch_pipeline_that_is_complete() {
    let status = json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]});
    insta::assert_yaml_snapshot!(flow("Batch").with_job(job(status), Vec::new()).publish().status);
}
