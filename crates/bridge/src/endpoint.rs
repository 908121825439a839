//! Where an external step listens: `host:port`, or a URL whose scheme says whether TLS is used.

use std::fmt;

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/2 without TLS.
    Plain,
    /// HTTP/2 over TLS.
    Tls,
}

/// A parsed endpoint. All addresses behind the host name are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    scheme: Scheme,
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an endpoint: {problem}; write host:port, or https://host:port for TLS")]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads `host:port`, `http://host:port` or `https://host:port` (443 when the port is left
    /// out). IPv6 addresses stand in brackets.
    ///
    /// # Errors
    /// When the scheme is another one, the host is empty, the port is missing or not a number
    /// from 1 to 65535, or a path follows.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let refuse = |problem| EndpointError {
            text: text.to_owned(),
            problem,
        };
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Plain, text),
            Some(("http" | "grpc", rest)) => (Scheme::Plain, rest),
            Some(("https" | "grpcs", rest)) => (Scheme::Tls, rest),
            Some(_) => return Err(refuse("the scheme must be http or https")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(refuse("nothing may follow the port"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(refuse("the host is missing"));
        }
        let port = match (port, scheme) {
            (Some(port), _) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| refuse("the port must be a number from 1 to 65535"))?,
            (None, Scheme::Tls) => 443,
            (None, Scheme::Plain) => return Err(refuse("the port is missing")),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            scheme,
        })
    }

    /// The host: a name or an IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is used.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The same place, over TLS.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.scheme = Scheme::Tls;
        self
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Tls {
            f.write_str("https://")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_people_write_are_understood() {
        for (text, shown) in [
            ("ttp-processor:50051", "ttp-processor:50051"),
            ("http://ttp:50051", "ttp:50051"),
            ("https://risk.example.com", "https://risk.example.com:443"),
            ("https://risk.example.com:8443/", "https://risk.example.com:8443"),
            ("[::1]:50051", "[::1]:50051"),
            ("10.0.0.7:9002", "10.0.0.7:9002"),
        ] {
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!(endpoint.to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_the_reason() {
        for (text, reason) in [
            ("ttp-processor", "the port is missing"),
            (":50051", "the host is missing"),
            ("ttp:0", "the port must be"),
            ("ttp:http", "the port must be"),
            ("ftp://ttp:1", "the scheme must be"),
            ("ttp:1/path", "nothing may follow"),
        ] {
            let error = Endpoint::parse(text).expect_err(text);
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
