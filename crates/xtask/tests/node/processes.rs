//! The processes of pods, as the machine sees them: stopped, continued and killed behind Kubernetes' back.

use std::{fs, time::Duration};

use flowctl_testkit::wait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::scene::Scene;

/// Sends a signal to the program of the only pod of an owner of ours.
pub(crate) async fn signal(scene: &Scene, owner: &str, signal: Signal) {
    let what = format!("{owner} has a process");
    let found = wait::until(&what, Duration::from_secs(60), async || {
        let process = of(scene, owner).await;
        Ok(process.and_then(|pid| kill(pid, signal).ok()))
    });
    if let Err(error) = found.await {
        panic!("{error}");
    }
}

/// The program of the only pod of an owner of ours, while it runs.
pub(crate) async fn of(scene: &Scene, owner: &str) -> Option<Pid> {
    let pods = scene.list("pods", &format!("flowctl.dev/name={owner}")).await;
    let alive = pods.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null())?;
    // Every pod of ours is told its name.
    let name = format!("POD_NAME={}", alive["metadata"]["name"].as_str()?);
    let processes = fs::read_dir("/proc").expect("/proc");
    processes.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let is_it = environment.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
        is_it.then(|| Pid::from_raw(pid))
    })
}
