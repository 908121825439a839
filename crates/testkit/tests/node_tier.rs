//! The node tier as its users need it: pods run and find each other, pod security holds, nothing is left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flowctl_testkit::cluster::{Cluster, Loaded, NODE_NAME, Options};
use flowctl_testkit::image::Image;
use flowctl_testkit::{Error, Result, Tier, prepare, tier, wait};
use tokio::sync::Mutex;

const LIMIT: Duration = Duration::from_secs(60);
/// Another process may have the machine's only place for up to ten minutes; then the cluster starts.
const START: Duration = Duration::from_secs(900);
const HOLD: &str = "FLOWCTL_TEST_HOLD";

/// These tests look at the whole machine, so they take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// Serves one line on port 8080, or connects to HOST PORT and repeats what it reads.
const PROGRAM: &str = r#"
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **arguments) {
    setvbuf(stdout, 0, _IOLBF, 0);
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = 0;
    if (count == 2) {
        FILE *file = fopen(arguments[1], "r");
        char line[100] = "nothing";
        if (!file || !fgets(line, sizeof line, file)) return 5;
        puts(line);
        return 0;
    }
    if (count == 3) {
        int problem = getaddrinfo(arguments[1], arguments[2], &hints, &found);
        if (problem) { fprintf(stderr, "resolve: %s\n", gai_strerror(problem)); return 2; }
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, found->ai_addr, found->ai_addrlen)) { perror("connect"); return 3; }
        char line[100] = {0};
        if (strcmp(arguments[2], "443") && read(client, line, sizeof line - 1) < 1) return 4;
        printf("connected: %s\n", line);
        return 0;
    }
    hints.ai_flags = AI_PASSIVE;
    if (getaddrinfo(0, "8080", &hints, &found)) return 2;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server, found->ai_addr, found->ai_addrlen) || listen(server, 8)) { perror("listen"); return 3; }
    signal(SIGTERM, _exit);
    for (;;) {
        int client = accept(server, 0, 0);
        if (write(client, "hello", 5) != 5) perror("write");
        close(client);
    }
}
"#;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: strict}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: data}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadOnlyMany]
  storageClassName: data
  local: {path: DATA}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [NODE]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: strict}
spec: {accessModes: [ReadOnlyMany], storageClassName: data, resources: {requests: {storage: 1Mi}}}
"#;

fn pod(name: &str, arguments: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: strict, labels: {{app: {name}}}}}
spec:
  restartPolicy: OnFailure
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: main
      image: netprobe:dev
      imagePullPolicy: Never
      args: {arguments}
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
      volumeMounts: [{{name: data, mountPath: /data, readOnly: true}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"#
    )
}

fn compile(directory: &Path) -> PathBuf {
    let (source, program) = (directory.join("netprobe.c"), directory.join("netprobe"));
    std::fs::write(&source, PROGRAM).expect("written");
    let status = Command::new("cc")
        .args(["-static", "-w", "-o"])
        .arg(&program)
        .arg(&source)
        .status();
    assert!(status.expect("cc runs").success());
    program
}

/// What a cluster could leave on a machine: processes, mounts, devices, rules, cgroups, files.
fn traces() -> Vec<String> {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("proc").flatten().filter_map(|entry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline"))
            .ok()?
            .replace('\0', " ");
        (line.contains("/var/lib/flowctl-local") && entry.file_name() != *own).then_some(format!("process {line}"))
    });
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mounts = mounts
        .lines()
        .filter(|line| line.contains("flowctl-local"))
        .map(|line| format!("mount {line}"));
    let devices = run("ip", &["-o", "link"]);
    let devices = devices
        .lines()
        .filter(|line| line.contains("flowctl0") || line.contains("veth"));
    let tools = ["iptables", "ip6tables"];
    let rules: String = tools
        .map(|tool| {
            ["filter", "nat", "mangle"]
                .map(|table| run(tool, &["-t", table, "-S"]))
                .concat()
        })
        .concat();
    let rules = rules
        .lines()
        .filter(|line| line.contains("KUBE") || line.contains("flowctl0") || line.contains("10.24"));
    let cgroups = run("find", &["/sys/fs/cgroup", "-maxdepth", "2", "-name", "flowctl-local"]);
    let places = [
        "/var/lib/flowctl-local",
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/var/log/containers",
        "/run/containerd",
    ];
    let files = places.into_iter().filter(|path| Path::new(path).exists());
    let shims = std::fs::read_dir("/run/containerd/s").into_iter().flatten().flatten();
    let mut all: Vec<String> = processes.chain(mounts).collect();
    all.extend(
        devices
            .chain(rules)
            .chain(files)
            .chain(cgroups.lines())
            .map(str::to_owned),
    );
    all.extend(shims.map(|entry| entry.path().display().to_string()));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_find_each_other_read_local_data_and_leave_nothing() -> Result<()> {
    let Some(_) = tier::require(Tier::Node) else {
        return Ok(());
    };
    let _turn = TURN.lock().await;
    // Installing containerd may start the distribution's own, which leaves traces that are none of ours.
    prepare(Tier::Node).await?;
    let before = traces();
    let settings = || {
        ["net/ipv4/ip_forward", "kernel/panic", "vm/overcommit_memory"]
            .map(|name| std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default())
    };
    let settings_before = settings();
    let scratch = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let data = scratch.path().join("data");
    std::fs::create_dir(&data).map_err(Error::io("make a directory"))?;
    std::fs::write(data.join("word"), "local data").map_err(Error::io("write"))?;
    let image = Image::of_program("netprobe:dev", &compile(scratch.path())).write(scratch.path())?;

    let cluster = Cluster::start(Tier::Node, Options::default()).await?;
    assert_eq!(cluster.load_image(&image.path).await?, Loaded::Now);
    assert_eq!(cluster.load_image(&image.path).await?, Loaded::Already);
    let objects = OBJECTS
        .replace("DATA", &data.display().to_string())
        .replace("NODE", NODE_NAME);
    cluster.kubectl_input(&["apply", "-f", "-"], &objects).await?;
    let forbidden = [
        "run",
        "--namespace=strict",
        "root",
        "--image=netprobe:dev",
        "--privileged",
    ];
    let refusal = cluster
        .kubectl(&forbidden)
        .await
        .expect_err("pod security is enforced")
        .to_string();
    assert!(refusal.contains("restricted"), "{refusal}");

    // The first pods of a namespace may come before its service account.
    wait::until("the server's pod is made", LIMIT, async || {
        Ok(cluster
            .kubectl_input(&["apply", "-f", "-"], &pod("server", "[]"))
            .await
            .ok())
    })
    .await?;
    let ready = [
        "wait",
        "--namespace=strict",
        "--for=condition=Ready",
        "pod/server",
        "--timeout=60s",
    ];
    cluster.kubectl(&ready).await?;
    for (name, arguments, expected) in [
        ("by-search-domain", "[server, '80']", "connected: hello"),
        (
            "by-full-name",
            "[server.strict.svc.cluster.local, '80']",
            "connected: hello",
        ),
        ("to-the-apiserver", "[kubernetes.default.svc, '443']", "connected:"),
        ("from-disk", "[/data/word]", "local data"),
    ] {
        cluster
            .kubectl_input(&["apply", "-f", "-"], &pod(name, arguments))
            .await?;
        let target = format!("pod/{name}");
        let ended = [
            "wait",
            "--namespace=strict",
            "--for=jsonpath={.status.phase}=Succeeded",
            &target,
        ];
        cluster.kubectl(&[&ended[..], &["--timeout=60s"]].concat()).await?;
        let said = cluster.kubectl(&["logs", "--namespace=strict", name]).await?;
        assert!(said.contains(expected), "{name} said {said:?}");
    }

    cluster.stop().await?;
    assert_eq!(traces(), before, "the cluster leaves the machine as it was");
    assert_eq!(settings(), settings_before);
    Ok(())
}

/// Not a test of its own: the process that the next tests kill.
#[tokio::test(flavor = "multi_thread")]
async fn holder() -> Result<()> {
    let Some(file) = std::env::var_os(HOLD) else {
        return Ok(());
    };
    let cluster = Cluster::start(Tier::Node, Options::default()).await?;
    std::fs::write(file, cluster.directory().display().to_string()).map_err(Error::io("write"))?;
    std::future::pending().await
}

/// A process that has a cluster. It does not outlive its test: it would keep the machine's only place.
struct Holder(Child);

impl Holder {
    fn kill(&mut self) -> Result<()> {
        self.0.kill().map_err(Error::io("kill it"))?;
        self.0.wait().map(drop).map_err(Error::io("reap it"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A failure means that it has ended already.
        let _ = self.kill();
    }
}

/// Starts another process that has a cluster. Everything was prepared, so starting is all it does.
async fn hold(scratch: &Path) -> Result<Holder> {
    let file = scratch.join("directory");
    let holder = Command::new(std::env::current_exe().map_err(Error::io("find myself"))?)
        .args(["--exact", "holder"])
        .env(HOLD, &file)
        .stdout(Stdio::null())
        .spawn()
        .map_err(Error::io("start myself"))?;
    let mut holder = Holder(holder);
    wait::until("the other process has a cluster", START, async || {
        if let Some(status) = holder.0.try_wait().map_err(Error::io("look after it"))? {
            return Err(Error::impossible(format!("the other process ended ({status})")));
        }
        Ok(file.exists().then_some(()))
    })
    .await?;
    Ok(holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_is_killed_leaves_nothing() -> Result<()> {
    let Some(_) = tier::require(Tier::Node) else {
        return Ok(());
    };
    let _turn = TURN.lock().await;
    // Installing containerd may start the distribution's own, which leaves traces that are none of ours.
    prepare(Tier::Node).await?;
    let scratch = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let before = traces();
    hold(scratch.path()).await?.kill()?;
    wait::until_explained("nothing is left of it", LIMIT, async || {
        let left = traces();
        Ok(if left == before { Ok(()) } else { Err(left.join("\n")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_supervisor_leaves_is_removed_by_the_next_command() -> Result<()> {
    let Some(_) = tier::require(Tier::Node) else {
        return Ok(());
    };
    let _turn = TURN.lock().await;
    // Installing containerd may start the distribution's own, which leaves traces that are none of ours.
    prepare(Tier::Node).await?;
    let scratch = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let before = traces();
    let mut holder = hold(scratch.path()).await?;
    let journal = Path::new("/var/lib/flowctl-local").join(flowctl_supervisor::journal::FILE_NAME);
    let supervisor = flowctl_supervisor::journal::living_supervisor(&journal).expect("it lives");
    assert!(supervisor.kill());
    holder.kill()?;
    assert_ne!(traces(), before, "nobody was there to clean up");
    assert!(Cluster::down().await?);
    assert_eq!(traces(), before);
    assert!(!Cluster::down().await?, "there is nothing left to stop");
    Ok(())
}
