//! Calling a webhook: where it may lead, how a call is signed, and what became of it. What the other side answers is never
//! shown to anybody but its status: an alert must not become a way to read other servers through this one.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use sha2::Sha256;
use tokio::time::timeout;
use tower::Service;

/// Carries `sha256=` and the hex HMAC-SHA256 of the timestamp, a dot and the body.
pub const SIGNATURE_HEADER: &str = "x-flowctl-signature";
/// Seconds since 1970 at which the call was made: a receiver refuses old ones, so that a call cannot be played again.
pub const TIMESTAMP_HEADER: &str = "x-flowctl-timestamp";
/// The same for every attempt to tell one thing, so that a receiver can tell a repetition.
pub const DELIVERY_HEADER: &str = "x-flowctl-delivery";

/// For one call, the connection included.
const CALL: Duration = Duration::from_secs(10);
/// Characters of the longest address.
const LONGEST: usize = 2048;

/// An address that may be called.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook(Uri);

/// Why an address may not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// No absolute `http://` or `https://` address.
    #[error(
        "the webhook is not an address; write http://host/path or https://host/path, with at most {LONGEST} characters"
    )]
    Form,
    /// Credentials would be shown to whoever lists alerts.
    #[error("the webhook has a user name or password in it; use a secret path, or check the signature instead")]
    Credentials,
    /// Link-local addresses serve the credentials of the machine in most clouds.
    #[error("the webhook leads to {0}, an address of the machine's own services, which is never called")]
    Forbidden(IpAddr),
}

/// Why a call failed. Short, and free of what the other side said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: no such host, nobody there, or no trust.
    Connect,
    /// No answer in time.
    TimedOut,
    /// Another answer than 2xx; redirects are not followed.
    Status(StatusCode),
}

/// Signs calls.
#[derive(Clone)]
pub struct Secret(String);

/// Makes calls, shared by clones.
#[derive(Clone)]
pub(crate) struct Caller {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
}

/// The system's resolver without addresses that are never called. Names are checked after they were resolved, and what
/// was checked is dialled: a name cannot mean one thing here and another there.
#[derive(Clone)]
struct Resolver(GaiResolver);

// === impl Webhook ===

impl FromStr for Webhook {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        if text.len() > LONGEST {
            return Err(WebhookError::Form);
        }
        let uri: Uri = text.trim().parse().map_err(|_| WebhookError::Form)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri
            .host()
            .filter(|host| is_http && !host.is_empty())
            .ok_or(WebhookError::Form)?;
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(WebhookError::Credentials);
        }
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) if is_forbidden(address) => Err(WebhookError::Forbidden(address)),
            _ => Ok(Self(uri)),
        }
    }
}

impl Webhook {
    /// For the store, and nobody else.
    pub(crate) fn reveal(&self) -> String {
        self.0.to_string()
    }
}

/// Without path and query, which are the secret of many webhooks.
impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        let rest = match self.0.path_and_query().map_or("", |rest| rest.as_str()) {
            "" | "/" => "",
            _ => "/…",
        };
        write!(f, "{scheme}://{authority}{rest}")
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({self})")
    }
}

/// Addresses at which clouds tell a machine its credentials, besides the link-local ones: of AWS by IPv6, Alibaba, Oracle, Azure.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

fn is_forbidden(address: IpAddr) -> bool {
    let address = address.to_canonical();
    METADATA.contains(&address)
        || match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast(),
            IpAddr::V6(v6) => {
                v6.is_unicast_link_local()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || inside(v6).is_some_and(|v4| is_forbidden(v4.into()))
            }
        }
}

/// The IPv4 address that an IPv6 one is only another way to: by NAT64 (RFC 6052, 2.1) or by 6to4 (RFC 3056, 2).
fn inside(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("no connection"),
            Self::TimedOut => write!(f, "no answer within {} s", CALL.as_secs()),
            Self::Status(status) => write!(f, "answered {}", status.as_u16()),
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Any text; an empty one signs nothing.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// For the store, and nobody else.
    pub(crate) fn reveal(&self) -> String {
        self.0.clone()
    }

    /// The value of [`SIGNATURE_HEADER`].
    #[must_use]
    pub fn sign(&self, timestamp: u64, body: &[u8]) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            return String::new();
        };
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        let digest = mac.finalize().into_bytes();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={hex}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === impl Caller ===

impl Caller {
    /// Trusts the system's authorities, and where it has none, those that came with the program.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            // A small image has none of its own.
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CALL));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// One attempt.
    pub(crate) async fn call(
        &self,
        webhook: &Webhook,
        secret: Option<&Secret>,
        delivery: &str,
        body: Bytes,
    ) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.map_or(0, |now| now.as_secs());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(webhook.0.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("flowctl/", env!("CARGO_PKG_VERSION")))
            .header(DELIVERY_HEADER, delivery)
            .header(TIMESTAMP_HEADER, timestamp);
        if let Some(secret) = secret {
            request = request.header(SIGNATURE_HEADER, secret.sign(timestamp, &body));
        }
        // Every part was checked: an error here would be a mistake of ours, and is shown as one that is tried again.
        let request = request.body(Full::new(body)).map_err(|_| Failure::Connect)?;
        match timeout(CALL, self.client.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(Failure::Status(answer.status())),
            Ok(Err(error)) => {
                tracing::debug!(%error, source = ?std::error::Error::source(&error), "a webhook cannot be called");
                Err(Failure::Connect)
            }
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

// === impl Resolver ===

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move {
            let allowed: Vec<_> = found.await?.filter(|address| !is_forbidden(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "no address that may be called",
                ));
            }
            Ok(allowed.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Receivers in other languages check this: RFC 4231's second case, with the timestamp before it.
    #[test]
    fn the_signature_is_hmac_sha256_of_timestamp_dot_body() {
        let secret = Secret::new("Jefe").expect("not empty");
        assert_eq!(
            secret.sign(1_700_000_000, b"what do ya want for nothing?"),
            "sha256=1cdd0650c8be1cb0974b1788d458b1e781206cfef59b85faafc582d2e182c57e"
        );
        assert!(Secret::new("").is_none());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    // Reading alerts is free for everybody, and the path of a webhook is often all that protects it.
    #[test]
    fn paths_are_shown_to_nobody() {
        for (given, shown) in [
            (
                "https://hooks.example.com/services/T0/secret?x=1",
                "https://hooks.example.com/…",
            ),
            ("http://127.0.0.1:8080/?key=secret", "http://127.0.0.1:8080/…"),
            ("http://[::1]:1/", "http://[::1]:1"),
        ] {
            let webhook: Webhook = given.parse().expect("an address");
            assert_eq!(webhook.to_string(), shown);
            assert_eq!(webhook.reveal(), given);
            assert!(!format!("{webhook:?}").contains("secret"));
        }
    }

    // An alert must not be a way to the machine's credentials, nor show a password to whoever lists alerts.
    #[test]
    fn only_plain_addresses_are_called() {
        for good in [
            "http://127.0.0.1:8080/x",
            "https://alerts.example.com/webhook",
            "http://[::1]:1/",
        ] {
            assert!(good.parse::<Webhook>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "alerts.example.com/webhook",
            "/webhook",
            "ftp://host/",
            "file:///etc/passwd",
            "http://user:password@host/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://0.0.0.0/",
            "http://100.100.100.200/latest/meta-data",
            "http://168.63.129.16/machine",
            "http://[fd00:ec2::254]/latest/meta-data",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
        ] {
            assert!(bad.parse::<Webhook>().is_err(), "{bad}");
        }
        assert!(
            format!("http://host/{}", "x".repeat(LONGEST))
                .parse::<Webhook>()
                .is_err()
        );
    }
}
