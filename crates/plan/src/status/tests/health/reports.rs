//! What components say about themselves, where the server writes over it.

use super::super::*;
use super::world::{Dialect, World};
use crate::heartbeat::Reported;

fn every(interval: u64, says: Reported) -> World {
    let mut world = World::new(Dialect::Go);
    let client = &mut world.add("ttp", 1, json!({"intervalSeconds": interval})).pods[0].client;
    client.interval = interval;
    client.says = says;
    world.until("ttp", "True/HeartbeatFresh", 3 * interval + 20);
    world
}

// A component with slow heartbeats that calls itself UNHEALTHY would be told healthy for ever.
#[test]
fn a_slow_component_is_believed_too() {
    for (interval, before) in [
        (15, Reported::Unknown),
        (20, Reported::Unknown),
        (20, Reported::Healthy),
        (45, Reported::Healthy),
        (60, Reported::Healthy),
    ] {
        let mut world = every(interval, before);
        for phase in 0..5 {
            world.run(2 * interval + phase);
            world.of("ttp").pods[0].client.says = Reported::Unhealthy;
            world.until("ttp", "False/ReportedUnhealthy", interval + 10);
            world.is_quiet_for(5 * interval);
            world.of("ttp").pods[0].client.says = Reported::Healthy;
            world.until("ttp", "True/HeartbeatFresh", interval + 10);
        }
    }
}

// Trap c with slow heartbeats: expiry between two of them is no report, however often it happens.
#[test]
fn a_slow_component_that_says_nothing_is_healthy() {
    for (interval, says) in [
        (30, Reported::Unknown),
        (45, Reported::Unknown),
        (60, Reported::Unknown),
        (60, Reported::Healthy),
    ] {
        let mut world = every(interval, says);
        world.is_quiet_for(1_200);
        assert_eq!(world.healthy("ttp"), "True/HeartbeatFresh", "{interval} {says:?}");
    }
}
