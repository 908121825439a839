//! What the environment says about the control plane. Components of different ages read different names for one thing;
//! all of them are read here. A value that cannot be understood is ignored and told, never an error: the integration must
//! not keep its host from starting (seed 002, "graceful degradation").

use std::path::PathBuf;
use std::time::Duration;

use flowctl_bridge::{Endpoint, TlsFiles};
use flowctl_pipeline::duration;

/// Where components look when nothing names a control plane (seed 002, its table of variables).
const DEFAULT_ENDPOINT: &str = "localhost:8080";
/// Time between two heartbeats when nothing says otherwise (seeds 001 and 002).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Shorter intervals are taken as these: `10ms` is a mistake, and a flood for the server.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// Longer ones as these: no control plane waits longer.
const MOST_INTERVAL: Duration = Duration::from_secs(300);

/// The names under which an id is given, the first one that is set counts.
const IDS: [&str; 4] = [
    "FLOWCTL_COMPONENT_ID",
    "FLOWCTL_SERVICE_ID",
    "COMPONENT_ID",
    "SERVICE_ID",
];
/// The names under which the integration is switched on or off.
const SWITCHES: [&str; 2] = ["ENABLE_FLOWCTL", "FLOWCTL_ENABLED"];

/// How to reach a control plane, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Time between two heartbeats.
    pub interval: Duration,
    /// The id to register under; the server makes one when there is none.
    pub id: Option<String>,
    /// TLS files, for an endpoint with TLS.
    pub tls: TlsFiles,
    /// File with a Kubernetes service account token that is sent with every call; read anew each time, since the kubelet
    /// replaces it.
    pub token_file: Option<PathBuf>,
}

/// What switches the integration on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `ENABLE_FLOWCTL=true`; the endpoint has a default (seed 002: components).
    Switch,
    /// An endpoint in `FLOWCTL_ENDPOINT`, or the switch (seed 001: pipelines). A switch that says no wins.
    Endpoint,
}

/// What the environment says.
#[derive(Clone, Debug)]
pub struct Found {
    /// `None`: the integration is off.
    pub settings: Option<Settings>,
    /// Variables whose values were not understood, each with what was done instead.
    pub ignored: Vec<String>,
}

/// Logs what was ignored.
pub fn warn_ignored(ignored: &[String]) {
    for problem in ignored {
        tracing::warn!("{problem}");
    }
}

// === impl Settings ===

impl Settings {
    /// Plaintext to that endpoint every 10 seconds, under an id that the server makes.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            interval: DEFAULT_INTERVAL,
            id: None,
            tls: TlsFiles::default(),
            token_file: None,
        }
    }

    /// Reads `FLOWCTL_ENDPOINT`, `ENABLE_FLOWCTL`, `FLOWCTL_ENABLED`, `FLOWCTL_HEARTBEAT_INTERVAL` (a Go duration),
    /// `HEARTBEAT_INTERVAL_SECONDS`, `FLOWCTL_COMPONENT_ID` and its older names, `FLOWCTL_CONTROL_PLANE_TLS_{CERT,KEY,CA}`
    /// (in a pipeline also seed 001's `FLOWCTL_TLS_{CERT,KEY,CA}`, which in a component are those of its own port), and
    /// `FLOWCTL_TOKEN_FILE`. `lookup` gives the value of a variable.
    pub fn from_env(activation: Activation, lookup: impl Fn(&str) -> Option<String>) -> Found {
        let mut reader = Reader {
            lookup: |name: &str| lookup(name).filter(|value| !value.trim().is_empty()),
            ignored: Vec::new(),
        };
        let settings = reader.settings(activation);
        Found {
            settings,
            ignored: reader.ignored,
        }
    }
}

/// Reads variables and keeps what it could not understand.
struct Reader<L> {
    lookup: L,
    ignored: Vec<String>,
}

// === impl Reader ===

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn settings(&mut self, activation: Activation) -> Option<Settings> {
        let endpoint = (self.lookup)("FLOWCTL_ENDPOINT");
        let switch = self.switch();
        let on = match activation {
            Activation::Switch => switch.unwrap_or(false),
            Activation::Endpoint => switch.unwrap_or(endpoint.is_some()),
        };
        if !on {
            return None;
        }
        let text = endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let endpoint = match Endpoint::parse(text.trim()) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                self.ignore("FLOWCTL_ENDPOINT", &error, "nothing is reported");
                return None;
            }
        };
        let [ca_file, cert_file, key_file] = ["CA", "CERT", "KEY"].map(|which| self.tls_file(which, activation));
        // Whoever gives a certificate means TLS, also for the `host:port` that seed 001 writes beside it.
        let has_file = ca_file.is_some() || cert_file.is_some() || key_file.is_some();
        Some(Settings {
            endpoint: if has_file { endpoint.with_tls() } else { endpoint },
            interval: self.interval(),
            id: IDS.iter().find_map(|name| (self.lookup)(name)),
            tls: TlsFiles {
                ca_file,
                cert_file,
                key_file,
                server_name: None,
            },
            token_file: (self.lookup)("FLOWCTL_TOKEN_FILE").map(PathBuf::from),
        })
    }

    fn switch(&mut self) -> Option<bool> {
        SWITCHES.iter().find_map(|name| {
            let value = (self.lookup)(name)?;
            match value.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" | "t" => Some(true),
                "false" | "0" | "no" | "off" | "f" => Some(false),
                _ => {
                    self.ignore(
                        name,
                        &format!("{value:?} is neither true nor false"),
                        "it counts as not set",
                    );
                    None
                }
            }
        })
    }

    fn interval(&mut self) -> Duration {
        let go = (self.lookup)("FLOWCTL_HEARTBEAT_INTERVAL").and_then(|text| {
            let parsed = duration::parse(text.trim());
            self.or_ignore("FLOWCTL_HEARTBEAT_INTERVAL", parsed)
        });
        let interval = go.or_else(|| {
            let text = (self.lookup)("HEARTBEAT_INTERVAL_SECONDS")?;
            let parsed = text.trim().parse().map(Duration::from_secs);
            self.or_ignore("HEARTBEAT_INTERVAL_SECONDS", parsed)
        });
        match interval {
            Some(interval) if interval.is_zero() => {
                self.ignore("the heartbeat interval", &"it is zero", "10s is used");
                DEFAULT_INTERVAL
            }
            Some(interval) => interval.clamp(LEAST_INTERVAL, MOST_INTERVAL),
            None => DEFAULT_INTERVAL,
        }
    }

    fn tls_file(&self, which: &str, activation: Activation) -> Option<PathBuf> {
        let long = (self.lookup)(&format!("FLOWCTL_CONTROL_PLANE_TLS_{which}"));
        let found = match activation {
            Activation::Switch => long,
            Activation::Endpoint => long.or_else(|| (self.lookup)(&format!("FLOWCTL_TLS_{which}"))),
        };
        found.map(PathBuf::from)
    }

    fn or_ignore<T, E: std::fmt::Display>(&mut self, name: &str, parsed: Result<T, E>) -> Option<T> {
        parsed
            .inspect_err(|error| self.ignore(name, error, "it counts as not set"))
            .ok()
    }

    fn ignore(&mut self, name: &str, problem: &dyn std::fmt::Display, instead: &str) {
        self.ignored.push(format!("cannot use {name}: {problem}; {instead}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flowctl_bridge::Scheme;

    use super::*;

    fn found(activation: Activation, variables: &[(&str, &str)]) -> Found {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Settings::from_env(activation, |name| variables.get(name).map(|value| (*value).to_owned()))
    }

    fn on(activation: Activation, variables: &[(&str, &str)]) -> Settings {
        found(activation, variables).settings.expect("switched on")
    }

    // A component of seed 002 must stay silent until it is told to speak, and a pipeline of seed 001 until it is told where.
    #[test]
    fn each_seed_decides_what_switches_it_on() {
        let endpoint = ("FLOWCTL_ENDPOINT", "flowctl:8080");
        assert!(found(Activation::Switch, &[endpoint]).settings.is_none());
        assert!(found(Activation::Endpoint, &[]).settings.is_none());
        assert!(
            found(Activation::Endpoint, &[("FLOWCTL_ENDPOINT", "")])
                .settings
                .is_none()
        );
        assert!(
            found(Activation::Endpoint, &[endpoint, ("ENABLE_FLOWCTL", "false")])
                .settings
                .is_none()
        );
        let by_switch = on(Activation::Switch, &[("ENABLE_FLOWCTL", "True")]);
        assert_eq!(by_switch.endpoint.to_string(), "localhost:8080");
        assert_eq!(by_switch.interval, Duration::from_secs(10));
        assert_eq!(
            on(Activation::Switch, &[("FLOWCTL_ENABLED", "1"), endpoint])
                .endpoint
                .host(),
            "flowctl"
        );
        assert_eq!(on(Activation::Endpoint, &[endpoint]).endpoint.port(), 8080);
    }

    // What the operator injects into every pod must be understood as it is meant.
    #[test]
    fn what_the_operator_injects_is_read() {
        let settings = on(
            Activation::Endpoint,
            &[
                ("FLOWCTL_COMPONENT_ID", "stellar.payments.payments-0"),
                ("COMPONENT_ID", "other"),
                ("FLOWCTL_ENDPOINT", "flowctl.flowctl-system.svc.cluster.local:8080"),
                ("ENABLE_FLOWCTL", "true"),
                ("FLOWCTL_ENABLED", "true"),
                ("FLOWCTL_HEARTBEAT_INTERVAL", "5s"),
                ("HEARTBEAT_INTERVAL_SECONDS", "7"),
                ("FLOWCTL_CONTROL_PLANE_TLS_CA", "/etc/flowctl/ca.crt"),
            ],
        );
        assert_eq!(settings.id.as_deref(), Some("stellar.payments.payments-0"));
        assert_eq!(settings.interval, Duration::from_secs(5));
        assert_eq!(settings.endpoint.scheme(), Scheme::Tls);
    }

    // FLOWCTL_TLS_* of a component is the certificate of its own port: shown to the control plane it would be refused.
    #[test]
    fn the_short_tls_names_are_a_pipelines() {
        let variables = [
            ("ENABLE_FLOWCTL", "true"),
            ("FLOWCTL_TLS_CERT", "/certs/client.crt"),
            ("FLOWCTL_TLS_KEY", "/certs/client.key"),
        ];
        let pipeline = on(Activation::Endpoint, &variables);
        assert_eq!(pipeline.tls.cert_file, Some("/certs/client.crt".into()));
        assert_eq!(pipeline.endpoint.scheme(), Scheme::Tls);
        assert_eq!(on(Activation::Switch, &variables).endpoint.scheme(), Scheme::Plain);
    }

    // A typo in a variable must cost its effect, not the host.
    #[test]
    fn nonsense_is_told_and_passed_over() {
        let variables = [
            ("ENABLE_FLOWCTL", "true"),
            ("FLOWCTL_HEARTBEAT_INTERVAL", "10"),
            ("HEARTBEAT_INTERVAL_SECONDS", "3"),
        ];
        let found = found(Activation::Switch, &variables);
        assert_eq!(found.ignored.len(), 1, "{:?}", found.ignored);
        assert!(
            found.ignored[0].contains("FLOWCTL_HEARTBEAT_INTERVAL"),
            "{:?}",
            found.ignored
        );
        assert_eq!(found.settings.expect("on").interval, Duration::from_secs(3));

        let found = super::tests::found(Activation::Endpoint, &[("FLOWCTL_ENDPOINT", "flowctl")]);
        assert!(found.settings.is_none() && found.ignored.len() == 1);
        let flood = on(
            Activation::Switch,
            &[("ENABLE_FLOWCTL", "1"), ("FLOWCTL_HEARTBEAT_INTERVAL", "1us")],
        );
        assert_eq!(flood.interval, LEAST_INTERVAL);
    }
}
