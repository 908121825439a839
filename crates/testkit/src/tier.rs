//! Which tests run: the tiers of the project's tests, chosen by `FLOWCTL_TIER` (a comma list). Without it only plain
//! tests run, so that a bare `cargo test` never starts a cluster; `cargo xtask test` sets it.

use std::fmt;

use crate::{Error, Result, preflight};

/// The environment variable that lists the tiers to run: `plain,api,node` or `all`.
pub const VARIABLE: &str = "FLOWCTL_TIER";

/// How much of Kubernetes a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// No cluster.
    Plain,
    /// etcd, kube-apiserver and controller manager: no node, nothing runs.
    Api,
    /// A whole cluster of one node. Needs root.
    Node,
}

/// Leave to run a test of this tier. Only [`require`] gives it.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    tier: Tier,
}

// === impl Tier ===

impl Tier {
    /// All tiers, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Api, Self::Node];

    /// Its name in [`VARIABLE`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Api => "api",
            Self::Node => "node",
        }
    }

    /// Reads a comma list of names; `all` is every tier.
    ///
    /// # Errors
    /// When a name is none of ours.
    pub fn parse_list(list: &str) -> Result<Vec<Self>> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut tiers = Vec::new();
        for name in names {
            match Self::ALL.into_iter().find(|tier| tier.name() == name) {
                Some(tier) => tiers.push(tier),
                None if name == "all" => tiers.extend(Self::ALL),
                None => {
                    return Err(Error::impossible(format!(
                        "unknown tier {name:?}; use plain, api, node or all"
                    )));
                }
            }
        }
        tiers.sort_unstable();
        tiers.dedup();
        Ok(tiers)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

// === impl Granted ===

impl Granted {
    /// The tier that was granted.
    pub const fn tier(self) -> Tier {
        self.tier
    }
}

/// Asks for leave to run a test of this tier. `None`, with a printed reason, means: return, the test is skipped.
///
/// # Panics
/// When the tier was asked for, cannot run here, and `CI=true`: there a skipped test would look like a passed one.
/// Also when [`VARIABLE`] holds something else than tiers.
pub fn require(tier: Tier) -> Option<Granted> {
    let list = std::env::var(VARIABLE).unwrap_or_else(|_| Tier::Plain.name().to_owned());
    let chosen = match Tier::parse_list(&list) {
        Ok(chosen) => chosen,
        Err(error) => panic!("{VARIABLE}: {error}"),
    };
    if !chosen.contains(&tier) {
        eprintln!("skipped: needs the {tier} tier; run with {VARIABLE}={tier}, or use `cargo xtask test`");
        return None;
    }
    or_skip(preflight::can_run(tier)).map(|()| Granted { tier })
}

/// What a test needs beyond its tier. `None`, with a printed reason, means: return, the test is skipped.
///
/// # Panics
/// When it is not there and `CI=true`, as [`require`].
pub fn or_skip<T>(needed: Result<T>) -> Option<T> {
    match needed {
        Ok(needed) => Some(needed),
        Err(reason) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("this test was asked for and cannot run here: {reason}")
        }
        Err(reason) => {
            eprintln!("skipped: this test cannot run here: {reason}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_tier_is_refused_instead_of_running_nothing() {
        assert_eq!(Tier::parse_list("node, api").expect("valid"), [Tier::Api, Tier::Node]);
        assert_eq!(Tier::parse_list("all").expect("valid"), Tier::ALL);
        assert!(Tier::parse_list("apis").is_err());
    }
}
