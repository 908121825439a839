//! Endpoints that a service registers without saying where it is (":50051" of flowctl-sdk, "http://:8088/health"):
//! completed with the address that its call came from. One that names a host, even localhost, is left as it is.

use std::net::IpAddr;

/// The endpoint with a host, if there is one to be had.
pub(super) fn complete(endpoint: &str, peer: Option<IpAddr>) -> String {
    let (Some(peer), false) = (peer, endpoint.is_empty()) else {
        return endpoint.to_owned();
    };
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), endpoint),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let port = ["0.0.0.0:", "[::]:", ":"]
        .iter()
        .find_map(|host| authority.strip_prefix(host));
    let port = port.or((scheme.is_empty() && path.is_empty()).then_some(authority));
    match port.filter(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(port) => {
            let host = match peer.to_canonical() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            format!("{scheme}{host}:{port}{path}")
        }
        None => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ":50051" read in another pod is that pod itself: whoever discovers the service would dial the wrong one.
    #[test]
    fn the_peer_completes_what_has_no_host() {
        let peer = "10.1.2.3".parse().ok();
        for (given, wanted) in [
            (":50051", "10.1.2.3:50051"),
            ("50051", "10.1.2.3:50051"),
            ("0.0.0.0:50051", "10.1.2.3:50051"),
            ("[::]:50051", "10.1.2.3:50051"),
            ("http://:8088/health", "http://10.1.2.3:8088/health"),
            ("", ""),
            (":", ":"),
            ("localhost:50051", "localhost:50051"),
            ("http://localhost:8088/health", "http://localhost:8088/health"),
            ("pod.shop.svc:50051", "pod.shop.svc:50051"),
            ("/health", "/health"),
            (":grpc", ":grpc"),
        ] {
            assert_eq!(complete(given, peer), wanted, "{given}");
        }
        assert_eq!(complete(":1", "fd00::7".parse().ok()), "[fd00::7]:1");
        assert_eq!(complete(":1", "::ffff:10.0.0.1".parse().ok()), "10.0.0.1:1");
        assert_eq!(complete(":1", None), ":1");
    }
}
