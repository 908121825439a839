//! What the operator may do: the rules that each part declares beside the code that needs them, put together for the
//! chart. A request that no rule here allows is a bug, and so is a rule that nothing needs. Nothing here or elsewhere
//! may name Secrets (invariant R10).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

/// Where rules are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Where the objects are: a ClusterRole, or a Role in each namespace of a restricted operator.
    Objects,
    /// A Role in the operator's own namespace: the lease of this name, and events about it.
    Own {
        /// The lease's name.
        lease: &'a str,
    },
}

/// Verbs on resources of one API group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    objects: Objects,
}

/// Which objects of its resources a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Objects {
    All,
    /// The operator's lease alone: others in its namespace are other programs', whose leaders it could depose.
    Lease,
}

// === impl Rule ===

impl Rule {
    pub(crate) const fn new(
        group: &'static str,
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
    ) -> Self {
        Self {
            group,
            resources,
            verbs,
            objects: Objects::All,
        }
    }

    /// The same rule for the operator's lease alone. Not for `create`: who creates something has no name to show.
    pub(crate) const fn of_the_lease(self) -> Self {
        Self {
            objects: Objects::Lease,
            ..self
        }
    }
}

/// The rules of a scope: one for each set of verbs on the same objects in an API group, sorted, so that the same code gives the same text.
#[must_use]
pub fn rules(scope: Scope<'_>) -> Vec<PolicyRule> {
    let parts: &[&[Rule]] = match scope {
        Scope::Objects => &[
            crate::caches::RULES,
            crate::write::RULES,
            crate::publish::RULES,
            crate::events::RULES,
            crate::undecodable::RULES,
        ],
        Scope::Own { .. } => &[crate::leader::RULES, crate::events::RULES],
    };
    let mut verbs: BTreeMap<(&str, Objects, &str), BTreeSet<&str>> = BTreeMap::new();
    for rule in parts.iter().copied().flatten() {
        for resource in rule.resources {
            let key = (rule.group, rule.objects, *resource);
            verbs.entry(key).or_default().extend(rule.verbs);
        }
    }
    let mut merged: BTreeMap<(&str, Objects, BTreeSet<&str>), Vec<String>> = BTreeMap::new();
    for ((group, objects, resource), verbs) in verbs {
        merged
            .entry((group, objects, verbs))
            .or_default()
            .push(resource.to_owned());
    }
    merged
        .into_iter()
        .map(|((group, objects, verbs), resources)| PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(resources),
            resource_names: match (objects, scope) {
                (Objects::Lease, Scope::Own { lease }) => Some(vec![lease.to_owned()]),
                (Objects::All, _) | (_, Scope::Objects) => None,
            },
            verbs: verbs.into_iter().map(str::to_owned).collect(),
            ..PolicyRule::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Scope<'_> = Scope::Own { lease: "ours" };

    fn resources(rules: &[PolicyRule]) -> Vec<&str> {
        rules
            .iter()
            .flat_map(|rule| rule.resources.iter().flatten())
            .map(String::as_str)
            .collect()
    }

    // Whoever can make the operator run code of theirs must not find secrets or wildcards in its role.
    #[test]
    fn no_secrets_no_wildcards_no_escalation() {
        for scope in [Scope::Objects, OWN] {
            for rule in rules(scope) {
                let words = rule
                    .resources
                    .iter()
                    .flatten()
                    .chain(&rule.verbs)
                    .chain(rule.api_groups.iter().flatten());
                for word in words {
                    let refused = ["secrets", "*", "impersonate", "escalate", "bind", "finalizers"];
                    assert!(!refused.iter().any(|refused| word.contains(refused)), "{rule:?}");
                    // exec, attach, portforward, proxy, ephemeralcontainers, token, eviction, …
                    assert!(
                        word.split_once('/').is_none_or(|(_, below)| below == "status"),
                        "{rule:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_resource_stands_in_one_rule() {
        let rules = rules(Scope::Objects);
        let names = resources(&rules);
        let different: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), different.len(), "{names:?}");
    }

    // Whoever takes the operator over could otherwise take the lease of any other program in its namespace.
    #[test]
    fn of_all_leases_only_ours_may_be_read_and_changed() {
        let rules = rules(OWN);
        assert_eq!(resources(&rules), ["leases", "leases", "events"]);
        for rule in &rules[..2] {
            let only_ours = rule.resource_names == Some(vec!["ours".to_owned()]);
            assert_eq!(only_ours, rule.verbs != ["create"], "{rule:?}");
        }
    }
}
