//! The rest of what a spec may say, each on a live object: what a user writes must arrive in the pods and Services.

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{PersistentVolumeClaim, Service},
    policy::v1::PodDisruptionBudget,
};
use serde_json::{Value, json};

use crate::{
    objects::{file, nothing_was_forbidden, pipeline, processor, replica_sets},
    support::{LIMIT, Place, TestResult, in_namespace},
};

/// The container `main` of a Deployment.
async fn main_of(place: &Place, deployment: &str) -> Result<Value, Error> {
    let template = template_of(place, deployment).await?;
    let containers = template["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let main = containers.into_iter().find(|container| container["name"] == "main");
    main.ok_or_else(|| Error::impossible(format!("{deployment} has no container main")))
}

async fn template_of(place: &Place, deployment: &str) -> Result<Value, Error> {
    let deployment: Deployment = place.get(deployment).await?;
    let template = deployment.spec.map(|spec| spec.template);
    serde_json::to_value(template).map_err(|error| Error::impossible(error.to_string()))
}

/// The value of a variable in a container.
fn variable<'c>(container: &'c Value, name: &str) -> Option<&'c str> {
    let entries = container["env"].as_array()?;
    entries.iter().find(|entry| entry["name"] == name)?["value"].as_str()
}

async fn has_variable(place: &Place, deployment: &str, name: &str, value: &str) -> TestResult {
    let what = format!("{deployment} has {name}={value}");
    wait::until_explained(&what, LIMIT, async || {
        let main = main_of(place, deployment).await?;
        Ok(match variable(&main, name) {
            Some(seen) if seen == value => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

/// An ExternalProcessor with more in its spec.
fn with(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = processor(name, "Processor");
    change(&mut object["spec"]);
    object
}

// Each of these is a line in somebody's manifest: one that is taken and has no effect is found out in production.
#[test]
fn what_a_processor_asks_for_is_what_it_gets() {
    in_namespace("processors", async |place| {
        let operator = place.operator().await?;
        let all = [
            processor("up", "Processor"),
            with("down", |spec| {
                spec["connections"] = json!([{"env": "UPSTREAM", "processorRef": {"name": "up"}}]);
            }),
            with("asked", |spec| spec["probe"] = json!({"grpc": {"service": "ready"}})),
            with("web", |spec| {
                spec["probe"] = json!({"http": {"path": "/healthz", "port": 8080}});
                spec["extraPorts"] = json!([{"name": "flight", "port": 8816}]);
            }),
            with("named", |spec| {
                spec["workload"]["env"] =
                    json!([{"name": "COMPONENT_ID", "value": "mine"}, {"name": "LOG_LEVEL", "value": "debug"}]);
                spec["workload"]["args"] = json!(["--fast"]);
                spec["workload"]["podTemplate"] = json!({"spec": {
                    "nodeSelector": {"disk": "ssd"},
                    "containers": [{"name": "main", "resources": {"limits": {"memory": "1Gi"}}}],
                }});
            }),
        ];
        for object in all {
            place.apply(object).await?;
        }
        for name in ["up", "down", "asked", "web", "named"] {
            place.ready::<ExternalProcessor>(name).await?;
        }

        let wired = |port: u32| format!("up-processor-pods.processors.svc.cluster.local:{port}");
        has_variable(&place, "down-processor", "UPSTREAM", &wired(50051)).await?;
        place
            .merge::<ExternalProcessor>("up", json!({"spec": {"port": 50052}}))
            .await?;
        has_variable(&place, "down-processor", "UPSTREAM", &wired(50052)).await?;
        // One whose connection is lost keeps running, and says so.
        place.delete::<ExternalProcessor>("up").await?;
        let refused = "ProcessorNotFoundOrNotGranted";
        let status = place
            .condition::<ExternalProcessor>("down", "ResolvedRefs", "False", refused)
            .await?;
        assert!(
            status.why.contains("spec.connections[0].processorRef"),
            "{}",
            status.why
        );
        has_variable(&place, "down-processor", "UPSTREAM", &wired(50052)).await?;

        assert_eq!(
            main_of(&place, "asked-processor").await?["readinessProbe"]["grpc"],
            json!({"port": 50051, "service": "ready"})
        );
        let web = main_of(&place, "web-processor").await?;
        assert_eq!(web["readinessProbe"]["httpGet"]["path"], "/healthz");
        assert_eq!(web["readinessProbe"]["httpGet"]["port"], 8080);
        for service in ["web-processor", "web-processor-pods"] {
            let service: Service = place.get(service).await?;
            let ports: Vec<i32> = service
                .spec
                .and_then(|spec| spec.ports)
                .unwrap_or_default()
                .iter()
                .map(|port| port.port)
                .collect();
            assert_eq!(ports, [50051, 8816]);
        }
        let named = main_of(&place, "named-processor").await?;
        assert_eq!(variable(&named, "COMPONENT_ID"), Some("mine"));
        assert_eq!(variable(&named, "LOG_LEVEL"), Some("debug"));
        assert_eq!(named["args"], json!(["--fast"]));
        assert_eq!(named["resources"]["limits"]["memory"], "1Gi");
        assert_eq!(
            template_of(&place, "named-processor").await?["spec"]["nodeSelector"]["disk"],
            "ssd"
        );
        let taken = place.ready::<ExternalProcessor>("named").await?.revision;
        assert_eq!(
            taken.map(|revision| revision.taken_by_user),
            Some(vec!["COMPONENT_ID".to_owned()])
        );

        budgets(&place).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// A budget stands while there is more than one pod: on a single one it would block every drain of its node.
async fn budgets(place: &Place) -> TestResult {
    for (replicas, wanted) in [(1, false), (2, true), (1, false)] {
        let scale = json!({"spec": {"workload": {"replicas": replicas}}});
        place.merge::<ExternalProcessor>("web", scale).await?;
        wait::until("the budget follows the number of pods", LIMIT, async || {
            let budget = place.api::<PodDisruptionBudget>().get_opt("web-processor").await;
            let budget = budget.map_err(Error::kube("read"))?;
            Ok((budget.is_some() == wanted).then_some(()))
        })
        .await?;
    }
    Ok(())
}

// A name that the definition takes and that is too long for a Service, a label or a Job would fail child by child.
#[test]
fn the_longest_names_work() {
    let namespace = "n".repeat(63);
    in_namespace(&namespace, async |place| {
        let operator = place.operator().await?;
        let name = |first: &str| first.repeat(48);
        let (ttp, streaming, batch) = (name("t"), name("s"), name("b"));
        place.apply(processor(&ttp, "Processor")).await?;
        let mut flow = pipeline(&streaming);
        flow["spec"]["processors"][1]["processorRef"]["name"] = json!(ttp);
        flow["spec"]["consumers"] = json!([{"type": "StdoutConsumer"}]);
        let mut run = flow.clone();
        run["metadata"]["name"] = json!(batch);
        run["spec"]["mode"] = json!("Batch");
        place.apply(flow).await?;
        place.apply(run).await?;
        place.ready::<ExternalProcessor>(&ttp).await?;
        place.ready::<Pipeline>(&streaming).await?;
        place.ready::<Pipeline>(&batch).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// A processor that moves out of the cluster, or back, must not be deployed twice, and its callers must follow it once.
#[test]
fn a_processor_may_run_elsewhere() {
    in_namespace("elsewhere", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("sink", "Consumer")).await?;
        let outside = |endpoint: &str| {
            json!({
                "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": "ttp"},
                "spec": {"role": "Processor", "external": {"endpoint": endpoint}},
            })
        };
        place.apply(outside("plugins.internal:9002")).await?;
        let status = place
            .condition::<ExternalProcessor>("ttp", "Available", "True", "External")
            .await?;
        assert_eq!(status.endpoint.as_deref(), Some("plugins.internal:9002"));
        place.apply(pipeline("payments")).await?;
        place.ready::<Pipeline>("payments").await?;
        assert!(file(&place, "payments").await?.contains("plugins.internal:9002"));
        let children = place.children().await?;
        let of_ttp: Vec<_> = children
            .values()
            .flatten()
            .filter(|name| name.contains("/ttp-"))
            .collect();
        assert!(of_ttp.is_empty(), "{of_ttp:?}");

        for (object, endpoint) in [
            (outside("plugins.internal:9003"), "plugins.internal:9003"),
            (processor("ttp", "Processor"), "ttp-processor-pods.elsewhere.svc"),
        ] {
            place.apply(object).await?;
            is_wired(&place, endpoint).await?;
        }
        place.ready::<ExternalProcessor>("ttp").await?;

        // Balanced by the Service instead of by the caller.
        let balanced = json!({"spec": {"service": {"balancing": "ClusterIP"}}});
        place.merge::<ExternalProcessor>("ttp", balanced).await?;
        is_wired(&place, "//ttp-processor.elsewhere.svc").await?;

        place.apply(outside("plugins.internal:9004")).await?;
        wait::until_explained("nothing of it runs here any more", LIMIT, async || {
            let children = place.children().await?;
            let left: Vec<_> = children
                .values()
                .flatten()
                .filter(|name| name.contains("/ttp-"))
                .collect();
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            })
        })
        .await?;
        is_wired(&place, "plugins.internal:9004").await?;
        place.settled().await?;
        assert_eq!(replica_sets(&place).await?.len(), 5, "one roll-out for each endpoint");
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// Waits until the pipeline's file holds this endpoint; `//` stands for what is before a host name.
async fn is_wired(place: &Place, endpoint: &str) -> TestResult {
    let wanted = endpoint.replace("//", "endpoint: ");
    wait::until_explained(&format!("{wanted} is wired"), LIMIT, async || {
        let text = file(place, "payments").await?;
        Ok(if text.contains(&wanted) { Ok(()) } else { Err(text) })
    })
    .await
}

// As with processors: what is written and has no effect is found out in production.
#[test]
fn what_a_pipeline_asks_for_is_what_it_gets() {
    in_namespace("pipelines", async |place| {
        let operator = place.operator().await?;
        let built_in = |name: &str| {
            let mut object = pipeline(name);
            object["spec"]["processors"] =
                json!([{"name": "reads", "type": "LedgerReader", "config": {"network": "pubnet"}}]);
            object["spec"]["consumers"] = json!([{"type": "StdoutConsumer"}]);
            object
        };
        let mut go = built_in("go");
        go["spec"]["runtime"] = json!({"flavor": "Cdp", "image": "cdp:1", "command": ["/cdp-pipeline-workflow"]});
        let mut kept = built_in("kept");
        kept["spec"]["checkpoint"] = json!({"claimName": "progress"});
        let mut mounted = built_in("mounted");
        mounted["spec"]["checkpoint"] = json!({"emptyDir": {}});
        mounted["spec"]["runtime"] = json!({
            "env": [{"name": "NETWORK", "value": "pubnet"}],
            "resources": {"requests": {"cpu": "500m"}},
            "volumes": [{"name": "ledgers", "emptyDir": {}}],
            "volumeMounts": [{"name": "ledgers", "mountPath": "/ledgers", "readOnly": true}],
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "progress"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        place.apply(claim).await?;
        for object in [go, kept, mounted] {
            place.apply(object).await?;
        }
        for name in ["go", "kept", "mounted"] {
            place.ready::<Pipeline>(name).await?;
        }

        // The Go program: exactly these arguments, a file of its own words, and no port of ours.
        let main = main_of(&place, "go-pipeline").await?;
        assert_eq!(main["args"], json!(["-config", "/etc/flowctl/pipeline.yaml"]));
        assert_eq!(main["image"], "cdp:1");
        assert_eq!(main["ports"], Value::Null);
        let text = file(&place, "go").await?;
        assert!(
            text.contains("LedgerReader") && !text.contains("reads"),
            "it knows no names of steps: {text}"
        );
        assert!(file(&place, "kept").await?.contains("reads"), "our runner does");
        let service = place.api::<Service>().get_opt("go-pipeline").await;
        assert!(service.map_err(Error::kube("read"))?.is_none());
        place.get::<Service>("kept-pipeline").await?;

        for (name, source) in [("kept", json!({"claimName": "progress"})), ("mounted", json!({}))] {
            let deployment = format!("{name}-pipeline");
            let main = main_of(&place, &deployment).await?;
            let folder = variable(&main, "FLOWCTL_CHECKPOINT_DIR");
            assert_eq!(folder, Some("/var/lib/flowctl/checkpoint"));
            let volumes = template_of(&place, &deployment).await?["spec"]["volumes"].clone();
            let volume = volumes
                .as_array()
                .into_iter()
                .flatten()
                .find(|volume| volume["name"] == "flowctl-checkpoint")
                .cloned()
                .unwrap_or_default();
            let shown = [&volume["persistentVolumeClaim"], &volume["emptyDir"]];
            assert!(shown.contains(&&source), "{volume}");
        }
        let main = main_of(&place, "mounted-pipeline").await?;
        assert_eq!(variable(&main, "NETWORK"), Some("pubnet"));
        assert_eq!(main["resources"]["requests"]["cpu"], "500m");
        let mounts = main["volumeMounts"].as_array().cloned().unwrap_or_default();
        assert!(
            mounts
                .iter()
                .any(|mount| mount["mountPath"] == "/ledgers" && mount["readOnly"] == true)
        );

        suspended_and_restarted(&place).await?;
        // What is a user's stays when the Pipeline goes.
        place.delete::<Pipeline>("kept").await?;
        place.settled().await?;
        place.get::<PersistentVolumeClaim>("progress").await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// Suspending stops the pod and keeps everything else; resuming is the same revision, and a restart is another one.
async fn suspended_and_restarted(place: &Place) -> TestResult {
    let revision = async || {
        let status = place.ready::<Pipeline>("kept").await?;
        Ok::<_, Error>(status.revision.map(|revision| revision.current))
    };
    let before = revision().await?;
    let change = async |spec: Value| place.merge::<Pipeline>("kept", json!({"spec": spec})).await;
    change(json!({"suspend": true})).await?;
    place
        .condition::<Pipeline>("kept", "Available", "True", "Suspended")
        .await?;
    let pods = place
        .kubectl(&["get", "deployment/kept-pipeline", "-o", "jsonpath={.spec.replicas}"])
        .await?;
    assert_eq!(pods, "0");
    change(json!({"suspend": false})).await?;
    wait::until("it runs again", LIMIT, async || {
        let status = place.ready::<Pipeline>("kept").await?;
        Ok((status.pods.as_deref() == Some("1/1")).then_some(()))
    })
    .await?;
    assert_eq!(revision().await?, before);
    change(json!({"restartedAt": "2026-11-21T12:00:00Z"})).await?;
    wait::until("there is another revision", LIMIT, async || {
        Ok((revision().await? != before).then_some(()))
    })
    .await?;
    let stamp =
        template_of(place, "kept-pipeline").await?["metadata"]["annotations"]["flowctl.dev/restarted-at"].clone();
    assert_eq!(stamp, "2026-11-21T12:00:00Z");
    Ok(())
}
