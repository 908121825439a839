//! What a token says about itself, before anybody is asked whether it is true: a token that is not meant for us, or is
//! over, need not cost the apiserver a review.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The claims that are looked at (RFC 7519, 4.1).
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    aud: Audiences,
    /// Seconds since 1970.
    exp: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

// === impl Claims ===

impl Claims {
    /// `None` when it is no JSON Web Token. The signature is not checked.
    pub(super) fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audiences::One(one) => one == audience,
            Audiences::Many(many) => many.iter().any(|one| one == audience),
        }
    }

    /// Seconds that are left; `None` without an end, zero when it is over.
    pub(super) fn seconds_left(&self, now: f64) -> Option<f64> {
        self.exp.map(|exp| (exp - now).max(0.0))
    }
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}
