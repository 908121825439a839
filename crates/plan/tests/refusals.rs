//! Every refusal: its condition, reason, field and words. What a person reads when nothing runs.

mod support;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_plan::ChildKind;
use flowctl_plan::observed::PodSecurity;
use support::{World, fpl, object, only, problems, ttp, xproc};

const SOURCE: &str = "source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}";
const OUT: &str = "consumers: [{type: StdoutConsumer}]";

/// A cluster with one processor of every sort.
fn world() -> World {
    let ca = "-----BEGIN CERTIFICATE-----";
    World::with([
        ttp(),
        xproc("source", "role: Source\nworkload: {image: 'x:1'}\nport: 1"),
        xproc(
            "sink",
            "role: Consumer\nworkload: {image: 'x:1'}\nport: 1\ncontract: {inputEventTypes: [stellar.ledger.v1]}",
        ),
        xproc(
            "flowctl",
            "role: Processor\nprotocol: flowctl.v1\nworkload: {image: 'x:1'}\nport: 1",
        ),
        xproc(
            "strict",
            &format!(
                "role: Processor\nworkload: {{image: 'x:1'}}\nport: 1\ntls: {{caBundle: '{ca}', clientAuth: Required}}"
            ),
        ),
        xproc(
            "events",
            "role: Processor\nworkload: {image: 'x:1'}\nport: 1\ncontract: {outputEventTypes: [stellar.token.transfer.v1]}",
        ),
        xproc("other/private", "role: Processor\nworkload: {image: 'x:1'}\nport: 1"),
    ])
}

fn refused(pipeline: &Pipeline) -> Vec<String> {
    let plan = world().plan(pipeline);
    assert_eq!(
        (plan.present, plan.absent),
        (vec![], vec![]),
        "a refused pipeline is held"
    );
    problems(&world().plan(pipeline))
}

fn refused_processor(processor: &ExternalProcessor) -> Vec<String> {
    problems(&world().plan_processor(processor))
}

fn snapshot(name: &str, table: &[(&str, Vec<String>)]) {
    let table: Vec<_> = table
        .iter()
        .map(|(what, problems)| {
            assert!(!problems.is_empty(), "{what} is accepted");
            serde_json::json!({"what": what, "problems": problems})
        })
        .collect();
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_yaml_snapshot!(name, table);
    });
}

#[test]
fn pipelines() {
    let cases = [
        ("missing and not granted get the same words", format!("{SOURCE}\nprocessors: [{{processorRef: {{name: nobody, namespace: other}}}}, {{processorRef: {{name: private, namespace: other}}}}, {{processorRef: {{name: ttp}}}}]\n{OUT}")),
        ("roles", format!("{SOURCE}\nprocessors: [{{processorRef: {{name: sink}}}}]\nconsumers: [{{processorRef: {{name: ttp-processor}}}}]")),
        ("a service as source", format!("source: {{processorRef: {{name: source}}}}\n{OUT}")),
        ("another protocol", format!("{SOURCE}\nprocessors: [{{processorRef: {{name: flowctl}}}}]\n{OUT}")),
        ("a client certificate is required", format!("{SOURCE}\nprocessors: [{{processorRef: {{name: strict}}}}]\n{OUT}")),
        ("contracts", format!("{SOURCE}\nprocessors: [{{name: ttp, processorRef: {{name: events}}}}]\nconsumers: [{{processorRef: {{name: sink}}}}]")),
        ("written by hand beside a reference", format!("{SOURCE}\nprocessors: [{{processorRef: {{name: ttp-processor}}, config: {{endpoint: 'x:1', protocol: p, tls: {{}}}}}}]\n{OUT}")),
        ("a step that is neither or both", format!("{SOURCE}\nprocessors: [{{name: a}}, {{type: X, processorRef: {{name: ttp-processor}}}}]\n{OUT}")),
        ("names twice", format!("{SOURCE}\nconsumers: [{{type: StdoutConsumer}}, {{type: StdoutConsumer}}]")),
        ("no consumer", format!("{SOURCE}\nconsumers: []")),
        ("step types and keys of our runner", "source: {type: BufferedStorageSourceAdaptor}\nprocessors: [{type: LedgerReader, config: {netwrok: x}}]\nconsumers: [{type: JSONLinesConsumer}]".to_owned()),
        ("references with the Go binary", format!("{SOURCE}\nprocessors: [{{processorRef: {{name: ttp-processor}}}}]\n{OUT}\nruntime: {{flavor: Cdp, image: x, command: [run]}}")),
        ("the Go binary without an image", format!("{SOURCE}\n{OUT}\nruntime: {{flavor: Cdp}}")),
        ("modes", format!("{SOURCE}\n{OUT}\nbatch: {{backoffLimit: 101}}\nstrategy: {{rollingUpdate: {{maxSurge: 0}}}}")),
        ("bounds that allow nothing", format!("{SOURCE}\n{OUT}\nstrategy: {{type: RollingUpdate, rollingUpdate: {{maxSurge: '0%', maxUnavailable: many}}}}")),
        ("two checkpoints", format!("{SOURCE}\n{OUT}\ncheckpoint: {{claimName: x, emptyDir: {{}}}}")),
        ("heartbeats", format!("{SOURCE}\n{OUT}\nheartbeat: {{intervalSeconds: 20, staleAfterSeconds: 30, componentId: x}}")),
        ("a control plane outside", format!("{SOURCE}\n{OUT}\ncontrolPlane: {{endpoint: 'flowctl.example.com.:80'}}")),
        ("a control plane somewhere else", format!("{SOURCE}\n{OUT}\ncontrolPlane: {{endpoint: '169.254.169.254:80'}}")),
        ("a private key for the operator's own control plane", format!("{SOURCE}\n{OUT}\ncontrolPlane: {{endpoint: 'flowctl.flowctl-system:8080', tls: {{caBundle: '-----BEGIN PRIVATE KEY-----'}}}}")),
        ("volumes", format!("{SOURCE}\n{OUT}\nruntime: {{volumes: [{{name: a, persistentVolumeClaim: {{claim: x}}}}, {{name: flowctl-x}}, {{name: b, hostPath: {{path: /}}}}], volumeMounts: [{{name: bb, mountPath: /etc/flowctl/x}}]}}")),
        ("a volume that pod security does not allow", format!("{SOURCE}\n{OUT}\nruntime: {{volumes: [{{name: a, emptyDir: {{}}}}, {{name: b, hostPath: {{path: /}}}}], volumeMounts: [{{name: b, mountPath: /b}}]}}")),
        ("everything at once", format!("{SOURCE}\nprocessors: [{{type: LedgerReeder}}, {{processorRef: {{name: nobody}}}}]\n{OUT}\nruntime: {{volumes: [{{name: a, nfs: {{server: x, path: /}}}}], podTemplate: {{spec: {{hostPID: true}}}}}}\nbatch: {{backoffLimit: 1}}")),
        ("a large file", format!("{SOURCE}\nconsumers: [{{type: Large, config: {{text: {}}}}}]\nruntime: {{image: x}}", "x".repeat(1_050_000))),
    ];
    let table: Vec<_> = cases
        .iter()
        .map(|(what, spec)| (*what, refused(&fpl("refused", spec))))
        .collect();
    snapshot("refused_pipelines", &table);
}

#[test]
fn pod_templates() {
    let cases = [
        (
            "unknown keys",
            "{spec: {containers: [{name: main, imagePullPolicie: Always}], tolerationes: []}}",
        ),
        ("a wrong type", "{spec: {terminationGracePeriodSeconds: soon}}"),
        (
            "labels and metadata",
            "{metadata: {name: x, labels: {flowctl.dev/name: x, flowctl.dev/revision: other, app.kubernetes.io/managed-by: z}}}",
        ),
        (
            "what has a field of its own",
            "{spec: {containers: [{name: main, image: x, command: [x], args: [x]}]}}",
        ),
        (
            "injected variables, files and ports",
            "{spec: {containers: [{name: main, env: [{name: POD_NAME, value: x}], volumeMounts: [{name: flowctl-config, mountPath: /etc/flowctl}], ports: [{containerPort: 8089, name: other}]}], volumes: [{name: flowctl-config, emptyDir: {}}]}}",
        ),
        // All at once: whoever repairs one must not meet the next one only then.
        (
            "a mistyped key beside pod security",
            "{spec: {hostNetwork: true, tolerationes: []}}",
        ),
        (
            "the kind of pod",
            "{spec: {restartPolicy: Never, activeDeadlineSeconds: 1, ephemeralContainers: [{name: x}]}}",
        ),
        (
            "containers without a name, or with ours",
            "{spec: {containers: [{image: x}], initContainers: [{name: main}]}}",
        ),
        // The apiserver answers these with an error of its own, which looks as if trying again could help.
        (
            "what is there twice",
            "{spec: {hostAliases: [{ip: 1.1.1.1}, {ip: 1.1.1.1}], imagePullSecrets: [{name: a}, {name: a}], volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}], topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}], initContainers: [{name: i, image: x}, {name: i, image: x}], containers: [{name: side, image: x, env: [{name: A}, {name: B}, {name: A}], ports: [{containerPort: 53}, {containerPort: 53, protocol: TCP}, {containerPort: 53, protocol: UDP}], volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /v}]}, {name: main, env: [{name: A}, {name: A}]}, {name: main}]}}",
        ),
        (
            "ports that a merge would change",
            "{spec: {containers: [{name: main, ports: [{containerPort: 8089, protocol: UDP}, {containerPort: 53}, {containerPort: 53, protocol: UDP}]}]}}",
        ),
        (
            "two handlers, two service accounts",
            "{spec: {serviceAccount: a, serviceAccountName: b, containers: [{name: main, livenessProbe: {exec: {command: [x]}, tcpSocket: {port: 1}}}]}}",
        ),
        (
            "pod security",
            "{spec: {hostNetwork: true, hostPID: true, securityContext: {runAsUser: 0}, volumes: [{name: v, hostPath: {path: /}}], containers: [{name: side, image: x}, {name: main, securityContext: {privileged: true, capabilities: {add: [NET_ADMIN]}}}]}}",
        ),
    ];
    let pipeline = |template: &str| {
        fpl(
            "refused",
            &format!("{SOURCE}\n{OUT}\nruntime:\n  podTemplate: {template}"),
        )
    };
    let table: Vec<_> = cases
        .iter()
        .map(|(what, template)| (*what, refused(&pipeline(template))))
        .collect();
    snapshot("refused_pod_templates", &table);

    let twice = fpl(
        "refused",
        &format!(
            "{SOURCE}
{OUT}
runtime:
  env: [{{name: A, value: '1'}}]
  envFrom: [{{configMapRef: {{name: a}}}}]
  volumes: [{{name: v, emptyDir: {{}}}}]
  volumeMounts: [{{name: v, mountPath: /v}}]
  podTemplate:
    spec:
      volumes: [{{name: v, emptyDir: {{}}}}]
      containers:
      - name: main
        env: [{{name: A, value: '2'}}]
        envFrom: [{{configMapRef: {{name: b}}}}]
        volumeMounts: [{{name: v, mountPath: /v}}]
"
        ),
    );
    snapshot("refused_twice", &[("in two places", refused(&twice))]);

    // What an operator with --pod-security=baseline takes.
    let mut relaxed = world();
    relaxed.settings.pod_security = PodSecurity::Baseline;
    let root = pipeline(
        "{spec: {securityContext: {runAsUser: 0, runAsNonRoot: false}, containers: [{name: side, image: x}]}}",
    );
    assert_eq!(problems(&relaxed.plan(&root)), Vec::<String>::new());
    assert_eq!(world().plan(&root).problems.len(), 6);
}

#[test]
fn processors() {
    let cases = [
        ("nothing to run", "role: Processor"),
        (
            "both",
            "role: Processor\nworkload: {image: x}\nexternal: {endpoint: 'x:1'}\nport: 1",
        ),
        ("no image, no port", "role: Processor\nworkload: {replicas: 1001}"),
        (
            "a port beside external",
            "role: Processor\nexternal: {endpoint: 'https://x:1'}\nport: 1",
        ),
        (
            "ports",
            "role: Processor\nworkload: {image: x}\nport: 70000\nextraPorts: [{name: grpc, port: 1}, {name: Bad, port: 1}, {name: a, port: 0}]",
        ),
        (
            "probes",
            "role: Processor\nworkload: {image: x}\nport: 1\ntls: {secretName: x}\nprobe: {grpc: {}, http: {port: 0}}",
        ),
        (
            "tls",
            "role: Processor\nworkload: {image: x}\nport: 1\ntls: {caBundle: 'hello'}",
        ),
        (
            "a private key in a bundle",
            "role: Processor\nworkload: {image: x}\nport: 1\ntls: {caBundle: '-----BEGIN PRIVATE KEY-----'}",
        ),
        (
            "connections",
            "role: Processor\nworkload: {image: x}\nport: 1\nconnections: [{env: 1A, processorRef: {name: nobody}}, {env: POD_NAME, processorRef: {name: source}}, {env: POD_NAME, processorRef: {name: private, namespace: other}}]",
        ),
        (
            "env twice",
            "role: Processor\nworkload: {image: x, env: [{name: A}, {name: A}]}\nport: 1",
        ),
        (
            "everything at once",
            "role: Processor\nworkload: {image: x, replicas: 1001, podTemplate: {spec: {hostIPC: true, tolerationes: []}}}\nport: 1\nconnections: [{env: UP, processorRef: {name: nobody}}]",
        ),
        (
            "claims twice",
            "role: Processor\nworkload: {image: x, resources: {claims: [{name: A}, {name: A}]}}\nport: 1",
        ),
    ];
    let table: Vec<_> = cases
        .iter()
        .map(|(what, spec)| (*what, refused_processor(&xproc("refused", spec))))
        .collect();
    snapshot("refused_processors", &table);
}

/// A name that cannot name a Service would fail at the apiserver, child by child.
#[test]
fn names() {
    for name in ["Upper", "1st", "with.dot", "ends-", &"x".repeat(49)] {
        let yaml =
            format!("{{metadata: {{name: '{name}'}}, spec: {{role: Processor, workload: {{image: x}}, port: 1}}}}");
        let plan = world().plan_processor(&object::<ExternalProcessor>(&yaml));
        assert_eq!(plan.present, [], "{name}");
        assert_eq!(plan.problems[0].field, "metadata.name");
    }
}

/// An operator's administrator could allow nothing.
#[test]
fn control_planes_that_are_allowed() {
    let mut world = world();
    world.settings.allowed_control_planes = vec!["flowctl.example.com".to_owned(), "*.internal".to_owned()];
    let of = |endpoint: &str| {
        fpl(
            "x",
            &format!("{SOURCE}\n{OUT}\ncontrolPlane: {{endpoint: '{endpoint}'}}"),
        )
    };
    for endpoint in [
        "flowctl.example.com:1",
        "Flowctl.Example.com:1",
        "a.b.internal:1",
        "flowctl.flowctl-system:8080",
        "own:1",
    ] {
        assert_eq!(problems(&world.plan(&of(endpoint))), Vec::<String>::new(), "{endpoint}");
    }
    for endpoint in [
        "evil-flowctl.example.com:1",
        "internal.:1",
        "localhost:1",
        "x.internal.evil.com:1",
    ] {
        assert_eq!(world.plan(&of(endpoint)).problems.len(), 1, "{endpoint}");
    }
}

// Whoever granted the use of a processor must not be sent to look for a missing grant when the operator never looks there.
#[test]
fn a_namespace_that_the_operator_does_not_work_in_is_told() {
    let mut world = world();
    world.settings.watched_namespaces = vec!["stellar".to_owned(), "tools".to_owned()];
    let to = |namespace: &str| {
        let reference = format!("processors: [{{processorRef: {{name: private, namespace: {namespace}}}}}]");
        problems(&world.plan(&fpl("x", &format!("{SOURCE}\n{reference}\n{OUT}")))).concat()
    };
    let outside = to("other");
    assert!(outside.contains("works in stellar, tools only"), "{outside}");
    let inside = to("tools");
    assert!(inside.contains("does not exist or does not grant"), "{inside}");
}

// Whoever looks for a missing processor that the operator merely cannot see looks in the wrong place.
#[test]
fn a_namespace_that_cannot_be_read_is_told() {
    let mut world = world();
    world.unread = [String::from("lost")].into();
    let pipeline = fpl(
        "x",
        &format!("{SOURCE}\nprocessors: [{{processorRef: {{name: private, namespace: lost}}}}]\n{OUT}"),
    );
    let processor = xproc(
        "puller",
        "role: Processor\nworkload: {image: x}\nport: 1\nconnections: [{env: UP, processorRef: {name: private, namespace: lost}}]",
    );
    for problems in [
        problems(&world.plan(&pipeline)),
        problems(&world.plan_processor(&processor)),
    ] {
        let told = problems.concat();
        assert!(told.contains("cannot read namespace \"lost\""), "{told}");
        assert!(!told.contains("does not exist"), "{told}");
    }
}

// A bound that was tightened would refuse what runs on the day on which a processor is missing for a moment.
#[test]
fn what_was_accepted_is_not_judged_again_while_a_reference_is_missing() {
    let mut world = world();
    world.settings.pod_security = PodSecurity::Baseline;
    let spec = format!(
        "{SOURCE}\nprocessors: [{{processorRef: {{name: ttp-processor}}}}]\n{OUT}\n\
         runtime: {{podTemplate: {{spec: {{securityContext: {{runAsUser: 0, runAsNonRoot: false}}}}}}}}"
    );
    let mut pipeline = fpl("x", &spec);
    world.status = Some(world.publish(&pipeline));
    world.settings.pod_security = PodSecurity::Restricted;
    world.processors.clear();
    assert_eq!(problems(&world.plan(&pipeline)).len(), 1);

    pipeline.metadata.generation = Some(2);
    let told = problems(&world.plan(&pipeline)).concat();
    assert!(told.contains("runAsUser: 0 is not allowed"), "{told}");
}

/// A name of two labels may be one of the world: looked up as it is written, it could lead out of the cluster.
#[test]
fn a_control_plane_is_dialled_by_its_full_name() {
    let mut world = world();
    world.settings.allowed_control_planes = vec!["allowed.com".to_owned()];
    for (written, dialled) in [
        ("own:1", "own.stellar.svc.cluster.local:1"),
        ("evil.com:443", "evil.com.svc.cluster.local:443"),
        ("flowctl.ops.svc:1", "flowctl.ops.svc.cluster.local:1"),
        ("flowctl.ops.svc.cluster.local:1", "flowctl.ops.svc.cluster.local:1"),
        ("allowed.com:1", "allowed.com:1"),
        ("flowctl.flowctl-system:8080", "flowctl.flowctl-system:8080"),
    ] {
        let control_plane = format!("controlPlane: {{endpoint: '{written}'}}");
        let plans = [
            world.plan(&fpl("x", &format!("{SOURCE}\n{OUT}\n{control_plane}"))),
            world.plan_processor(&xproc(
                "x",
                &format!("role: Processor\nworkload: {{image: x}}\nport: 1\n{control_plane}"),
            )),
        ];
        for plan in plans {
            assert_eq!(problems(&plan), Vec::<String>::new(), "{written}");
            let deployment = only(&plan, ChildKind::Deployment);
            let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
            let mut env = env.as_array().unwrap().iter();
            let endpoint = env.find(|entry| entry["name"] == "FLOWCTL_ENDPOINT").unwrap();
            assert_eq!(endpoint["value"], dialled, "{written}");
        }
    }
}

/// A name that the schema takes would be refused, or one that it refuses would be promised.
#[test]
fn names_of_steps_are_as_long_as_the_schema_says() {
    let step = |name: Option<usize>, kind: usize| {
        let name = name
            .map(|length| format!("name: {}, ", "é".repeat(length)))
            .unwrap_or_default();
        let consumer = format!("{{{name}type: {}}}", "T".repeat(kind));
        let pipeline = fpl(
            "x",
            &format!("{SOURCE}\nconsumers: [{consumer}]\nruntime: {{image: 'x:1'}}"),
        );
        problems(&world().plan(&pipeline))
    };
    for (name, kind) in [(Some(1), 1), (Some(63), 128), (None, 128)] {
        assert_eq!(step(name, kind), Vec::<String>::new(), "{name:?} {kind}");
    }
    for (name, kind, words) in [
        (
            Some(64),
            1,
            "spec.consumers[0].name: a name has 1 to 63 printable characters",
        ),
        (
            None,
            129,
            "spec.consumers[0].type: a type has 1 to 128 printable characters",
        ),
    ] {
        let told = step(name, kind);
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }
}
