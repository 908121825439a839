//! PEM bundles that are handed to callers: certificates, and nothing else. A bundle ends up in a ConfigMap.

use flowctl_api::external_processor::ServerTls;

use super::Problems;

/// Checks `spec.tls` of an ExternalProcessor.
pub(super) fn check(tls: &ServerTls, problems: &mut Problems) {
    if tls.secret_name.is_none() && tls.ca_bundle.is_none() {
        problems.invalid(
            "spec.tls",
            "set secretName (the server's certificate) or caBundle (how callers trust it), or leave tls out",
        );
    }
    if let Some(bundle) = &tls.ca_bundle {
        check_bundle(bundle, "spec.tls.caBundle", problems);
    }
}

/// Checks a bundle of certificates.
pub(super) fn check_bundle(bundle: &str, field: &str, problems: &mut Problems) {
    if bundle.contains("PRIVATE KEY-----") {
        problems.invalid(
            field,
            "holds a private key, which would be published in a ConfigMap; keep the certificates only",
        );
    } else if !bundle.contains("-----BEGIN CERTIFICATE-----") {
        problems.invalid(field, "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)");
    }
}
