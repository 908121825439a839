//! What the operator may do: the rules that each part declares beside the code that needs them, put together for the
//! chart. A request that no rule here allows is a bug, and so is a rule that nothing needs. Nothing here or elsewhere
//! may name Secrets (invariant R10).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

/// Where rules are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Where the objects are: a ClusterRole, or a Role in each namespace of a restricted operator.
    Objects,
    /// A Role in the operator's own namespace: the lease, and events about it.
    Own,
}

/// Verbs on resources of one API group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
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
        }
    }
}

/// The rules of a scope: one for each set of verbs in an API group, sorted, so that the same code gives the same text.
#[must_use]
pub fn rules(scope: Scope) -> Vec<PolicyRule> {
    let parts: &[&[Rule]] = match scope {
        Scope::Objects => &[
            crate::caches::RULES,
            crate::write::RULES,
            crate::publish::RULES,
            crate::events::RULES,
            crate::undecodable::RULES,
        ],
        Scope::Own => &[crate::leader::RULES, crate::events::RULES],
    };
    let mut verbs: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for rule in parts.iter().copied().flatten() {
        for resource in rule.resources {
            verbs.entry((rule.group, resource)).or_default().extend(rule.verbs);
        }
    }
    let mut merged: BTreeMap<(&str, BTreeSet<&str>), Vec<String>> = BTreeMap::new();
    for ((group, resource), verbs) in verbs {
        merged.entry((group, verbs)).or_default().push(resource.to_owned());
    }
    merged
        .into_iter()
        .map(|((group, verbs), resources)| PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(resources),
            verbs: verbs.into_iter().map(str::to_owned).collect(),
            ..PolicyRule::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for scope in [Scope::Objects, Scope::Own] {
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
        for scope in [Scope::Objects, Scope::Own] {
            let rules = rules(scope);
            let names = resources(&rules);
            let different: BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len(), different.len(), "{names:?}");
        }
        assert_eq!(resources(&rules(Scope::Own)), ["leases", "events"]);
    }
}
