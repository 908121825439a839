//! Watches that go wrong in every way we know (`docs/reliability.md` lists them): afterwards, and mostly meanwhile, a
//! change is acted on within a bound, with exactly the writes that it needs and no more lists than one of each kind.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use flowctl_api::ExternalProcessor;
use flowctl_faults::{Action, Answer, Proxy, Rule, Seen, Verb, WatchFault};
use flowctl_operator::Options;
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Config, ResourceExt as _};
use serde_json::json;

use crate::{
    objects::{payments, processor},
    probes::{ask, free_address},
    support::{LIMIT, Operator, Place, TestResult, in_namespace, settings},
};

/// The kinds that are watched.
const KINDS: [&str; 10] = [
    "configmaps",
    "controllerrevisions.apps",
    "deployments.apps",
    "externalprocessors.flowctl.dev",
    "jobs.batch",
    "pipelines.flowctl.dev",
    "poddisruptionbudgets.policy",
    "pods",
    "replicasets.apps",
    "services",
];
/// What a change may take when nothing has to be waited for.
const SOON: Duration = Duration::from_secs(5);

/// An operator behind a proxy, and converged objects.
struct Scene {
    place: Place,
    proxy: Proxy,
    operator: Operator,
    address: SocketAddr,
    replicas: i32,
}

/// What a fault may cost.
struct Cost {
    /// Until a change that is made when the fault begins is acted on.
    within: Duration,
    /// Lists of all kinds together.
    lists: usize,
}

// === impl Scene ===

impl Scene {
    async fn new(place: Place) -> Result<Self, Error> {
        let proxy = Proxy::start(place.config().await?).await?;
        let config = proxy.config()?;
        Self::with(place, proxy, config).await
    }

    async fn with(place: Place, proxy: Proxy, config: Config) -> Result<Self, Error> {
        let address = free_address().await?;
        let options = Options {
            admin: Some(address),
            ..place.options()
        };
        let operator = Operator::start(config, options, settings());
        payments(&place).await?;
        let mut scene = Self {
            place,
            proxy,
            operator,
            address,
            replicas: 1,
        };
        scene.change(2).await?;
        scene.acted_on(LIMIT).await?;
        scene.place.settled().await?;
        Ok(scene)
    }

    /// Asks for another number of copies: one write to one child.
    async fn change(&mut self, replicas: i32) -> TestResult {
        self.replicas = replicas;
        let patch = json!({"spec": {"workload": {"replicas": replicas}}});
        self.place.merge::<ExternalProcessor>("ttp", patch).await
    }

    async fn acted_on(&self, within: Duration) -> TestResult {
        wait::until("the Deployment wants as many", within, async || {
            let live: Deployment = self.place.get("ttp-processor").await?;
            Ok((live.spec.and_then(|spec| spec.replicas) == Some(self.replicas)).then_some(()))
        })
        .await
    }

    /// A change that is made right after `fault` is acted on, and nothing else is written.
    async fn survives(&mut self, what: &str, cost: Cost, fault: impl FnOnce(&Proxy)) -> TestResult {
        let writes = self.place.child_writes()?.len();
        self.proxy.arm([]);
        fault(&self.proxy);
        let begun = Instant::now();
        self.change(if self.replicas == 2 { 3 } else { 2 }).await?;
        self.acted_on(cost.within).await?;
        let took = begun.elapsed();
        self.place.ready::<ExternalProcessor>("ttp").await?;
        self.place.settled().await?;
        let lists = self.lists().len();
        println!("{what}: acted on after {took:?}, {lists} lists");
        assert!(lists <= cost.lists, "{what}: {:#?}", self.lists());
        assert_eq!(
            self.place.child_writes()?.split_off(writes),
            ["patch deployments ttp-processor"],
            "{what}"
        );
        self.proxy.disarm();
        Ok(())
    }

    fn lists(&self) -> Vec<Seen> {
        let mut seen = self.proxy.seen();
        seen.retain(|seen| seen.signature.verb == Verb::List);
        seen
    }

    async fn end(self) -> TestResult {
        self.operator.stop().await?;
        assert_eq!(self.place.forbidden()?, Vec::<String>::new());
        Ok(())
    }
}

fn disturb(fault: WatchFault) -> impl FnOnce(&Proxy) {
    move |proxy| assert_eq!(proxy.disturb(&pattern("watch *"), fault), KINDS.len())
}

fn pattern(text: &str) -> flowctl_faults::Pattern {
    text.parse().expect("a pattern")
}

/// Ends all watches, and answers the next `times` attempts of each kind with this.
fn refuse(answer: Answer, times: u32) -> impl FnOnce(&Proxy) {
    move |proxy| {
        let rules = KINDS.map(|kind| Rule {
            times,
            ..Rule::first(pattern(&format!("watch {kind}")), Action::Answer(answer.clone()))
        });
        proxy.arm(rules);
        disturb(WatchFault::End)(proxy);
    }
}

fn text(code: u16, text: &str) -> Answer {
    Answer {
        text: Some(text.to_owned()),
        ..Answer::code(code)
    }
}

const NO_LISTS: Cost = Cost { within: SOON, lists: 0 };
const ONE_LIST_EACH: Cost = Cost {
    within: SOON,
    lists: KINDS.len(),
};

// A watch that ends, however it ends, must not cost a change, a needless write, or a list of everything.
#[test]
fn a_watch_may_end_in_any_way() {
    in_namespace("watch-ends", async |place| {
        let mut scene = Scene::new(place).await?;
        scene
            .survives("a regular end", NO_LISTS, disturb(WatchFault::End))
            .await?;
        scene.survives("a reset", NO_LISTS, disturb(WatchFault::Reset)).await?;
        scene
            .survives("an end within an event", NO_LISTS, disturb(WatchFault::Cut))
            .await?;
        scene
            .survives("410 as an event", ONE_LIST_EACH, disturb(WatchFault::Gone))
            .await?;
        scene.end().await
    });
}

// A watch that cannot begin must be tried again with patience, and begin with a list only when its version is too old.
#[test]
fn a_watch_may_be_refused_in_any_way() {
    in_namespace("watch-starts", async |place| {
        let mut scene = Scene::new(place).await?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
            "message": "too old resource version"});
        let pretty = serde_json::to_string_pretty(&status).map_err(|error| Error::impossible(error.to_string()))?;
        scene
            .survives("410", ONE_LIST_EACH, refuse(Answer::code(410), 1))
            .await?;
        scene
            .survives("410 in several lines", ONE_LIST_EACH, refuse(text(410, &pretty), 1))
            .await?;
        scene
            .survives("500 twice", NO_LISTS, refuse(Answer::code(500), 2))
            .await?;
        let page = "<html>\n<h1>502 Bad Gateway</h1>\n</html>\n";
        scene
            .survives("a load balancer's page", NO_LISTS, refuse(text(502, page), 1))
            .await?;
        scene.survives("401", NO_LISTS, refuse(Answer::code(401), 1)).await?;
        scene.end().await
    });
}

// An apiserver that asks for time must get it from every watch, or it never recovers.
#[test]
fn a_watch_that_is_asked_to_wait_waits() {
    in_namespace("watch-waits", async |place| {
        let mut scene = Scene::new(place).await?;
        let cost = Cost {
            within: Duration::from_secs(15),
            lists: 0,
        };
        scene
            .survives(
                "429 with Retry-After",
                cost,
                refuse(Answer::code(429).retry_after(4), 1),
            )
            .await?;
        let seen = scene.proxy.seen();
        for kind in KINDS {
            let name = format!("watch {kind}");
            let tries: Vec<_> = seen.iter().filter(|seen| seen.signature.to_string() == name).collect();
            let [refused, next, ..] = tries.as_slice() else {
                panic!("{kind}: {tries:?}")
            };
            assert!(next.at - refused.at >= Duration::from_secs(4), "{kind}: {tries:?}");
        }
        scene.end().await
    });
}

// Events may come twice, late, or only the last of several; the end is the same.
#[test]
fn events_may_come_twice_late_or_squeezed_together() {
    in_namespace("watch-events", async |place| {
        let late = || Cost {
            within: SOON + Duration::from_secs(3),
            lists: 0,
        };
        let mut scene = Scene::new(place).await?;
        scene
            .survives("events come late", late(), disturb(WatchFault::Hold(3000)))
            .await?;
        scene
            .survives("only the last of several", late(), disturb(WatchFault::Coalesce(3000)))
            .await?;
        scene
            .survives("every event twice", NO_LISTS, disturb(WatchFault::Duplicate))
            .await?;
        disturb(WatchFault::Resume)(&scene.proxy);
        let spoil = |proxy: &Proxy| {
            assert_eq!(
                proxy.disturb(&pattern("watch deployments.apps"), WatchFault::Undecodable),
                1
            );
        };
        scene
            .survives("a child that cannot be decoded", NO_LISTS, spoil)
            .await?;
        scene.end().await
    });
}

// An object that is deleted and made again while nothing of it is heard has children of its predecessor: they must be
// replaced, and what the predecessor lost must not be made again and again meanwhile.
#[test]
fn an_object_that_is_made_again_unheard_gets_its_own_children() {
    in_namespace("watch-again", async |place| {
        let scene = Scene::new(place.clone()).await?;
        let on = pattern("watch externalprocessors.flowctl.dev");
        assert_eq!(scene.proxy.disturb(&on, WatchFault::Coalesce(0)), 1);
        let before = place.child_writes()?.len();
        place.delete::<ExternalProcessor>("ttp").await?;
        // What must not happen has no end to wait for.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let meanwhile = place.child_writes()?.split_off(before);
        println!("{} writes while its end was not heard: {meanwhile:?}", meanwhile.len());
        assert!(meanwhile.is_empty(), "made for an object that is gone: {meanwhile:?}");
        place.apply(processor("ttp", "Processor")).await?;
        let uid = place.get::<ExternalProcessor>("ttp").await?.uid();
        scene.proxy.disturb(&on, WatchFault::Resume);
        place.ready::<ExternalProcessor>("ttp").await?;
        let live: Deployment = place.get("ttp-processor").await?;
        assert_eq!(
            live.owner_references()
                .iter()
                .map(|owner| Some(owner.uid.clone()))
                .collect::<Vec<_>>(),
            [uid]
        );
        place.settled().await?;
        scene.end().await
    });
}

// A load balancer that forgets a connection says nothing; a cache that never hears of it is frozen for ever.
#[test]
fn silence_on_all_watches_ends_within_75_seconds() {
    in_namespace("watch-silence", async |place| {
        let mut scene = Scene::new(place).await?;
        let cost = Cost {
            within: Duration::from_secs(75),
            lists: 0,
        };
        scene.survives("silence", cost, disturb(WatchFault::Silence)).await?;
        scene.end().await
    });
}

// A request that never gets an answer must not hold its object for ever, and not be sent twice at the same time.
#[test]
fn a_read_and_a_write_without_an_answer_are_given_up() {
    in_namespace("no-answer", async |place| {
        let mut scene = Scene::new(place).await?;
        let hang = |on: &'static str| move |proxy: &Proxy| proxy.arm([Rule::first(pattern(on), Action::Hang)]);
        let cost = Cost {
            within: Duration::from_secs(25),
            lists: 0,
        };
        scene
            .survives("a write hangs", cost, hang("apply deployments.apps ttp-processor"))
            .await?;

        hang("get services ttp-processor-pods")(&scene.proxy);
        let begun = Instant::now();
        scene
            .place
            .delete::<k8s_openapi::api::core::v1::Service>("ttp-processor-pods")
            .await?;
        wait::until("the Service is back", Duration::from_secs(25), async || {
            let back = scene
                .place
                .api::<k8s_openapi::api::core::v1::Service>()
                .get_opt("ttp-processor-pods")
                .await;
            Ok(back.map_err(Error::kube("read"))?.map(|_| ()))
        })
        .await?;
        println!("a read hangs: mended after {:?}", begun.elapsed());
        scene.end().await
    });
}

// A write that is refused for a while because of load must be kept for that while, and sent once then.
#[test]
fn a_write_that_is_asked_to_wait_waits() {
    in_namespace("write-waits", async |place| {
        let mut scene = Scene::new(place).await?;
        let cost = Cost {
            within: Duration::from_secs(15),
            lists: 0,
        };
        let on = "apply deployments.apps ttp-processor";
        let busy = Rule::first(pattern(on), Action::Answer(Answer::code(429).retry_after(4)));
        scene
            .survives("429 to a write", cost, |proxy| proxy.arm([busy]))
            .await?;
        let mut seen = scene.proxy.seen();
        seen.retain(|seen| seen.signature.verb.is_write());
        let refused = seen
            .iter()
            .position(|seen| seen.struck.is_some())
            .expect("one was refused");
        let next = &seen[refused + 1];
        assert!(next.at - seen[refused].at >= Duration::from_secs(4), "{seen:#?}");
        scene.end().await
    });
}

// Tokens of service accounts are exchanged while the operator runs: it must read the file again.
#[test]
fn a_token_that_was_exchanged_is_read_again() {
    in_namespace("token", async |place| {
        let file = tempfile::NamedTempFile::new().map_err(Error::io("make a file"))?;
        let write = |token: &str| std::fs::write(file.path(), token).map_err(Error::file("write", file.path()));
        write("one")?;
        let proxy = Proxy::start(place.config().await?).await?;
        proxy.require_token(Some("one"));
        let mut config = proxy.config()?;
        config.auth_info.token_file = Some(file.path().display().to_string());
        let mut scene = Scene::with(place, proxy, config).await?;
        write("two")?;
        let cost = Cost {
            within: Duration::from_secs(75),
            lists: KINDS.len(),
        };
        let exchange = |proxy: &Proxy| proxy.require_token(Some("two"));
        scene.survives("an old token answers 401", cost, exchange).await?;
        let answer = ask(scene.address, "/readyz").await.map_err(Error::io("ask"))?;
        assert!(answer.contains("200 OK"), "{answer}");
        scene.end().await
    });
}
