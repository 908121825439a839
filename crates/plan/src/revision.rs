//! Revisions: what a workload runs, as it was rendered at one moment, in objects that never change. A pass looks the hash
//! of the inputs up: what is stored is wanted as it is stored, however an operator of today would render it; only what is
//! not stored is rendered. Pruning keeps what runs, what is wanted, what ran before, and the newest five.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowctl_api::labels;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::body::Owner;
use crate::{Child, ChildKind, ChildRef, Children, RevisionPlan, names, pod};

/// Revisions that are kept although nothing runs them.
const KEPT: usize = 5;

/// What is stored of a revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// The pod template.
    pub(crate) template: Value,
    /// Injected variables that the user set instead.
    pub(crate) taken_by_user: Vec<String>,
    /// Batch: the parts of the Job beside the template that cannot change while it exists.
    pub(crate) job: Option<Value>,
}

/// A revision as it is rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rendered {
    pub(crate) content: Content,
    /// Files for the ConfigMap; empty: there is none.
    pub(crate) files: BTreeMap<String, String>,
}

/// The revision that is wanted, with the objects that hold it.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) hash: String,
    pub(crate) content: Content,
    pub(crate) children: Vec<Child>,
    /// Objects of ours that bear the revision's name and can neither be used nor changed. While there are any, `children` is
    /// empty: they go in this pass, and the revision is made in the next one.
    pub(crate) in_the_way: Vec<ChildRef>,
}

/// The wanted revision: the stored one, or else what `render` gives, which is `None` when it found problems.
pub(crate) fn choose(
    owner: &Owner,
    hash: String,
    children: &Children,
    render: impl FnOnce() -> Option<Rendered>,
) -> Option<Chosen> {
    let name = names::revision(&owner.name, &hash);
    let labels = owner.revision_labels(&hash);
    let revision = find(&children.revisions, &name);
    let stored = revision.and_then(|revision| Some((revision.revision, stored(revision)?)));
    let live_files = find(&children.config_maps, &name).map(|live| live.data.clone().unwrap_or_default());
    let mut in_the_way = Vec::new();
    let (number, content, files) = match (stored, live_files) {
        (Some((number, content)), Some(files)) => (number, content, files),
        // Nothing of it is mounted, so nothing is missing.
        (Some((number, content)), None) if !mounts_files(&content, &name) => (number, content, BTreeMap::new()),
        (Some((number, content)), None) => (number, content, render()?.files),
        // Files without a revision beside them are of a pass that ended between the two, of a revision that somebody deleted,
        // or of somebody who knew the name.
        (None, live) => {
            let rendered = render()?;
            let unreadable = revision.map(|_| ChildKind::ControllerRevision);
            let (files, unfit) = match live {
                // What runs keeps its files. A template that looks for others is rolled out anyway.
                Some(live) if runs(children, &hash) && live.keys().eq(rendered.files.keys()) => (live, None),
                Some(live) if live != rendered.files => (rendered.files, Some(ChildKind::ConfigMap)),
                Some(_) | None => (rendered.files, None),
            };
            in_the_way.extend(unreadable.into_iter().chain(unfit).map(|kind| ChildRef {
                kind,
                name: name.clone(),
            }));
            (next_number(&children.revisions), rendered.content, files)
        }
    };
    if !in_the_way.is_empty() {
        return Some(Chosen {
            hash,
            content,
            children: Vec::new(),
            in_the_way,
        });
    }
    let mut made = Vec::new();
    if !files.is_empty() {
        let body = Map::from_iter([
            ("immutable".to_owned(), Value::Bool(true)),
            ("data".to_owned(), json!(files)),
        ]);
        made.push(owner.child(ChildKind::ConfigMap, name.clone(), labels.clone(), body));
    }
    let body = Map::from_iter([
        ("data".to_owned(), content.to_data()),
        ("revision".to_owned(), Value::from(number)),
    ]);
    made.push(owner.child(ChildKind::ControllerRevision, name, labels, body));
    Some(Chosen {
        hash,
        content,
        children: made,
        in_the_way,
    })
}

/// What is stored under a hash.
pub(crate) fn content(owner: &Owner, hash: &str, children: &Children) -> Option<Content> {
    stored(find(&children.revisions, &names::revision(&owner.name, hash))?)
}

/// What the plan tells about the chosen revision.
pub(crate) fn told(chosen: &Chosen, previous: Option<String>) -> RevisionPlan {
    RevisionPlan {
        current: chosen.hash.clone(),
        previous,
        taken_by_user: chosen.content.taken_by_user.clone(),
        image: chosen.content.image(),
    }
}

/// The revision that ran before the wanted one: as it was published, or else the newest other one. Only one that is still
/// stored.
pub(crate) fn previous(
    wanted: &str,
    published: Option<&flowctl_api::status::RevisionStatus>,
    children: &Children,
) -> Option<String> {
    let stored = |hash: &String| {
        children
            .revisions
            .iter()
            .any(|live| label(&live.metadata) == Some(hash))
    };
    match published.filter(|published| !published.current.is_empty()) {
        Some(published) if published.current == wanted => published.previous.clone().filter(stored),
        Some(published) => Some(published.current.clone()).filter(stored),
        None => {
            let others = children
                .revisions
                .iter()
                .filter(|live| label(&live.metadata) != Some(wanted));
            let newest = others.max_by_key(|live| (live.revision, live.metadata.name.clone()))?;
            label(&newest.metadata).map(str::to_owned)
        }
    }
}

/// Stored revisions that nothing needs any more, and the finished Jobs that ran them.
pub(crate) fn prunable(children: &Children, keep: &[&str]) -> Vec<ChildRef> {
    let mut kept: BTreeSet<&str> = keep.iter().copied().collect();
    kept.extend(in_use(children));
    let mut newest: Vec<_> = children.revisions.iter().collect();
    newest.sort_by_key(|live| (std::cmp::Reverse(live.revision), live.metadata.name.clone()));
    kept.extend(newest.iter().take(KEPT).filter_map(|live| label(&live.metadata)));
    let old = |kind: ChildKind, metadata: &ObjectMeta| {
        let hash = label(metadata)?;
        let name = metadata.name.clone()?;
        (!kept.contains(hash)).then_some(ChildRef { kind, name })
    };
    let jobs = children
        .jobs
        .iter()
        .filter_map(|live| old(ChildKind::Job, &live.metadata));
    let revisions = children
        .revisions
        .iter()
        .filter_map(|live| old(ChildKind::ControllerRevision, &live.metadata));
    let files = children
        .config_maps
        .iter()
        .filter_map(|live| old(ChildKind::ConfigMap, &live.metadata));
    let mut all: Vec<_> = jobs.chain(revisions).chain(files).collect();
    all.sort();
    all
}

/// The revision on an object's label.
pub(crate) fn label(metadata: &ObjectMeta) -> Option<&str> {
    metadata.labels.as_ref()?.get(labels::REVISION).map(String::as_str)
}

/// Whether a Job has ended, one way or the other.
pub(crate) fn finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

/// Whether a pod has ended for good.
pub(crate) fn ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn in_use(children: &Children) -> impl Iterator<Item = &str> {
    let pods = children
        .pods
        .iter()
        .filter(|pod| !ended(pod))
        .filter_map(|pod| label(&pod.metadata));
    run_by_workloads(children).chain(pods)
}

/// Whether a workload of ours runs that revision. Pods do not count: theirs are labels that others can set.
fn runs(children: &Children, hash: &str) -> bool {
    run_by_workloads(children).any(|run| run == hash)
}

fn run_by_workloads(children: &Children) -> impl Iterator<Item = &str> {
    let sets = children.replica_sets.iter().filter(|live| {
        let wanted = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let running = live.status.as_ref().map_or(0, |status| status.replicas);
        wanted > 0 || running > 0
    });
    let sets = sets.filter_map(|live| label(&live.metadata));
    let deployments = children
        .deployments
        .iter()
        .filter_map(|live| label(live.spec.as_ref()?.template.metadata.as_ref()?));
    let jobs = children
        .jobs
        .iter()
        .filter(|job| !finished(job))
        .filter_map(|job| label(&job.metadata));
    sets.chain(deployments).chain(jobs)
}

trait Named {
    fn name(&self) -> Option<&str>;
}

impl Named for ControllerRevision {
    fn name(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }
}

impl Named for ConfigMap {
    fn name(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }
}

fn find<'a, T: Named>(items: &'a [Arc<T>], name: &str) -> Option<&'a T> {
    items.iter().find(|item| item.name() == Some(name)).map(Arc::as_ref)
}

/// What is stored; `None` when it is nothing that we wrote.
fn stored(revision: &ControllerRevision) -> Option<Content> {
    Content::from_data(&revision.data.as_ref()?.0)
}

fn next_number(revisions: &[Arc<ControllerRevision>]) -> i64 {
    revisions
        .iter()
        .map(|revision| revision.revision)
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

fn mounts_files(content: &Content, name: &str) -> bool {
    let volumes = content.template["spec"]["volumes"].as_array();
    let sources = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["projected"]["sources"].as_array());
    sources.flatten().any(|source| source["configMap"]["name"] == name)
}

// === impl Content ===

impl Content {
    /// The image of our container.
    pub(crate) fn image(&self) -> Option<String> {
        let containers = self.template["spec"]["containers"].as_array()?;
        let main = containers.iter().find(|container| container["name"] == pod::MAIN)?;
        main["image"].as_str().map(str::to_owned)
    }

    fn to_data(&self) -> Value {
        let mut data = Map::from_iter([("template".to_owned(), self.template.clone())]);
        if !self.taken_by_user.is_empty() {
            data.insert("takenByUser".to_owned(), json!(self.taken_by_user));
        }
        if let Some(job) = &self.job {
            data.insert("job".to_owned(), job.clone());
        }
        Value::Object(data)
    }

    fn from_data(data: &Value) -> Option<Self> {
        let template = data["template"].as_object()?.clone();
        let taken = data["takenByUser"].as_array();
        let taken = taken.into_iter().flatten().filter_map(Value::as_str);
        Some(Self {
            template: Value::Object(template),
            taken_by_user: taken.map(str::to_owned).collect(),
            job: data.get("job").cloned(),
        })
    }
}
