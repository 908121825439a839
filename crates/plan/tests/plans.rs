//! Whole plans of a table of objects, as they are applied. A change here is a change in what runs on clusters.

mod support;

use flowctl_plan::{ChildKind, Plan};
use support::{World, fpl, payments, tree, ttp, xproc};

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn snapshot(name: &str, plan: &Plan) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_yaml_snapshot!(name, tree(plan));
    });
}

#[test]
fn a_streaming_pipeline() {
    snapshot("pipeline_streaming", &World::usual().plan(&payments()));
}

#[test]
fn a_batch_pipeline_with_settings() {
    let pipeline = fpl(
        "backfill",
        "
mode: Batch
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers, start_ledger: 2, end_ledger: 9}}
processors: [{name: ttp, processorRef: {name: ttp-processor}}]
consumers: [{type: JSONLinesConsumer, config: {path: '/out/${NAME}.jsonl'}}]
batch: {backoffLimit: 1, activeDeadlineSeconds: 3600}
runtime:
  env:
  - {name: LOG_LEVEL, value: debug}
  - {name: FLOWCTL_ENDPOINT, value: 'elsewhere:1'}
  - {name: NAME, valueFrom: {secretKeyRef: {name: names, key: name}}}
  envFrom: [{configMapRef: {name: more}}]
  resources: {limits: {memory: 1Gi}}
checkpoint: {emptyDir: {}}
",
    );
    snapshot("pipeline_batch", &World::usual().plan(&pipeline));
}

#[test]
fn a_suspended_pipeline_with_a_rolling_update() {
    let mut pipeline = payments();
    pipeline.spec.suspend = Some(true);
    pipeline.spec.strategy = serde_json::from_value(
        serde_json::json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}),
    )
    .unwrap();
    let plan = World::usual().plan(&pipeline);
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        let spec = support::only(&plan, ChildKind::Deployment)["spec"].as_object().unwrap();
        let spec: std::collections::BTreeMap<_, _> = spec.iter().filter(|(key, _)| *key != "template").collect();
        insta::assert_yaml_snapshot!("pipeline_suspended_deployment", spec);
    });
}

#[test]
fn a_pipeline_with_tls_across_namespaces() {
    let mut world = World::with([
        xproc(
            "shared/ttp-processor",
            &format!(
                "
role: Processor
workload: {{image: 'ttp:1'}}
port: 443
service: {{balancing: ClusterIP}}
tls: {{secretName: ttp-tls, caBundle: {ca}, clientAuth: Required}}
allowedNamespaces: {{names: [stellar]}}
",
                ca = serde_json::to_string(CA).unwrap()
            ),
        ),
        xproc(
            "sink",
            "role: Consumer\nexternal: {endpoint: 'sink.example.com:443'}\ntls: {caBundle: '-----BEGIN CERTIFICATE-----'}",
        ),
    ]);
    world.settings.control_plane = None;
    let pipeline = fpl("secure", "
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
processors: [{processorRef: {name: ttp-processor, namespace: shared}}]
consumers: [{processorRef: {name: sink}}]
runtime: {clientTls: {secretName: secure-client}}
controlPlane: {endpoint: 'flowctl.ops.svc:8443', tls: {secretName: flowctl-client, caBundle: '-----BEGIN CERTIFICATE-----'}}
");
    snapshot("pipeline_tls", &world.plan(&pipeline));
}

#[test]
fn a_pipeline_for_the_go_binary() {
    let pipeline = fpl(
        "legacy",
        "
source: {type: S3BufferedStorageSourceAdapter, config: {bucket_name: ledgers}}
processors: [{name: filter, type: FilterPayments, config: {min_amount: '1_000'}}]
consumers: [{type: SaveToPostgreSQL, config: {connection_string: 'postgres://u:${PASSWORD}@db/x'}}]
runtime:
  flavor: Cdp
  image: docker.io/withobsrvr/obsrvr-flow-pipeline:0.1.20
  command: [/app/cdp-pipeline-workflow]
  env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}]
checkpoint: {claimName: legacy}
",
    );
    snapshot("pipeline_cdp", &World::usual().plan(&pipeline));
}

#[test]
fn a_pipeline_with_a_pod_template() {
    let pipeline = fpl("custom", "
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
consumers: [{type: StdoutConsumer}]
runtime:
  podTemplate:
    metadata: {labels: {team: payments}, annotations: {prometheus.io/scrape: 'true'}}
    spec:
      nodeSelector: {disk: fast}
      terminationGracePeriodSeconds: 90
      priorityClassName: high
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {}}]}}
      securityContext: {runAsUser: 1000}
      containers:
      - {name: main, env: [{name: EXTRA, value: '1'}], readinessProbe: {periodSeconds: 1}}
      - name: sidecar
        image: sidecar:1
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
");
    snapshot("pipeline_pod_template", &World::usual().plan(&pipeline));
}

#[test]
fn a_processor() {
    snapshot("processor", &World::usual().plan_processor(&ttp()));
}

#[test]
fn a_processor_with_everything() {
    let processor = xproc(
        "full",
        "
role: Processor
workload:
  image: full:1
  command: [/full]
  args: [serve]
  replicas: 2
  env: [{name: COMPONENT_ID, value: mine}]
  volumes: [{name: data, emptyDir: {}}]
  volumeMounts: [{name: data, mountPath: /data}]
port: 50051
extraPorts: [{name: flight, port: 8816}]
probe: {http: {path: /ready, port: 8088}}
heartbeat: {identity: Shared, componentId: full-1, intervalSeconds: 5}
tls: {secretName: full-tls, clientAuth: Required}
connections: [{env: SOURCE_SERVICE_ADDRESS, processorRef: {name: ttp-processor}}]
controlPlane: {endpoint: 'flowctl:8080', tls: {secretName: flowctl-client, caBundle: '-----BEGIN CERTIFICATE-----'}}
restartedAt: '2026-03-01T00:00:00Z'
",
    );
    snapshot("processor_full", &World::usual().plan_processor(&processor));
}

#[test]
fn a_processor_that_runs_elsewhere_keeps_nothing_here() {
    let mut world = World::usual();
    world.pass_processor(&ttp());
    let moved = xproc(
        "ttp-processor",
        "role: Processor\nexternal: {endpoint: 'plugins.internal:9002'}",
    );
    snapshot("processor_external", &world.plan_processor(&moved));
}
