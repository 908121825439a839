//! What goes wrong, and with which request. Rules name requests, never times, so that they strike at the same point in
//! every run. All but [`Rewrite`] can be written in a file.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::signature::{Pattern, Verb};

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    pub on: Pattern,
    /// The first of them that it happens to, from 1, counted since the rules were armed.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub nth: u32,
    /// To how many of them, that one included; 0: to all that follow.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub times: u32,
    /// What happens.
    #[serde(rename = "do")]
    pub action: Action,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The client is killed; the apiserver never gets the request.
    KillBefore,
    /// The apiserver gets the request and answers; the client is killed before it hears that.
    KillAfterApply,
    /// The client is killed as soon as the answer has been sent to it.
    KillAfterReply,
    /// The apiserver gets the request and answers; the client's connection is reset instead.
    DropReply,
    /// Another answer than the apiserver's.
    Answer(Answer),
    /// There is no answer, and the apiserver never gets the request.
    Hang,
    /// The apiserver gets the request later, in milliseconds.
    Delay(u64),
    /// The apiserver gets the request and answers; the client hears that later, in milliseconds.
    LateReply(u64),
    /// The answer to a watch goes wrong.
    Watch(WatchRule),
    /// The apiserver's answer is changed: a list, one object, or every event of a watch.
    #[serde(skip)]
    Rewrite(Rewrite),
}

/// An answer that is not the apiserver's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The header `Retry-After`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// The message of the Kubernetes `Status`; without it one is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The apiserver gets the request all the same: done, but reported as failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
    /// This body instead of a Kubernetes `Status`, as a load balancer answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// When something happens to a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchRule {
    /// What happens.
    pub fault: WatchFault,
    /// After this many of its events have been passed on.
    #[serde(default)]
    pub after: u32,
}

/// What happens to a watch that was begun. For an HTTP status instead, use [`Action::Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchFault {
    /// It ends in order, as if its time were over.
    End,
    /// Its connection is reset.
    Reset,
    /// Its connection ends in the middle of the next event.
    Cut,
    /// An `ERROR` event says that the version is too old (410), and it ends.
    Gone,
    /// Nothing more comes, and its connection stays.
    Silence,
    /// Every event comes twice.
    Duplicate,
    /// The next event's object cannot be decoded: its `spec` and `data` are texts.
    Undecodable,
    /// Events wait for so many milliseconds, or until [`WatchFault::Resume`].
    Hold(u64),
    /// As [`WatchFault::Hold`]; then only the last event of each object comes.
    Coalesce(u64),
    /// What was held comes, and what goes on goes on undisturbed.
    Resume,
}

/// A change to the apiserver's answers, for tests.
#[derive(Clone)]
pub struct Rewrite(pub Arc<dyn Fn(&mut Value) + Send + Sync>);

// === impl Rule ===

impl Rule {
    /// Happens to the first such request.
    pub fn first(on: Pattern, action: Action) -> Self {
        Self {
            on,
            nth: 1,
            times: 1,
            action,
        }
    }

    /// Happens to every such request.
    pub fn always(on: Pattern, action: Action) -> Self {
        Self {
            times: 0,
            ..Self::first(on, action)
        }
    }

    /// Whether it strikes at the request with this number among those that it selects, from 1.
    pub(crate) fn strikes(&self, number: u32) -> bool {
        number >= self.nth && (self.times == 0 || number - self.nth < self.times)
    }
}

// === impl Action ===

impl Action {
    /// Whether the client's process dies.
    pub const fn kills(&self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfterApply | Self::KillAfterReply)
    }
}

impl From<WatchFault> for Action {
    fn from(fault: WatchFault) -> Self {
        Self::Watch(WatchRule { fault, after: 0 })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore => f.write_str("kill-before"),
            Self::KillAfterApply => f.write_str("kill-after-apply"),
            Self::KillAfterReply => f.write_str("kill-after-reply"),
            Self::DropReply => f.write_str("drop-reply"),
            Self::Answer(answer) => {
                let done = if answer.forward { "-but-done" } else { "" };
                write!(f, "answer-{}{done}", answer.code)
            }
            Self::Hang => f.write_str("hang"),
            Self::Delay(milliseconds) => write!(f, "delay-{milliseconds}"),
            Self::LateReply(milliseconds) => write!(f, "late-reply-{milliseconds}"),
            Self::Watch(rule) => write!(f, "watch-{:?}-after-{}", rule.fault, rule.after),
            Self::Rewrite(_) => f.write_str("rewrite"),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// An answer with this HTTP status and a Kubernetes `Status`.
    pub fn code(code: u16) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    /// With a `Retry-After` of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// After the apiserver did what was asked.
    #[must_use]
    pub fn but_done(mut self) -> Self {
        self.forward = true;
        self
    }

    /// The body of the answer to a request of this verb.
    pub(crate) fn body(&self, verb: Verb) -> Vec<u8> {
        if let Some(text) = &self.text {
            return text.clone().into_bytes();
        }
        let message = self.message.clone();
        let message = message.unwrap_or_else(|| format!("the fault proxy answers {}", self.code));
        status(self.code, verb, &message, self.retry_after)
            .to_string()
            .into_bytes()
    }
}

/// A Kubernetes `Status` of a failure. Reasons: `StatusReason` in apimachinery's `meta/v1/types.go`.
pub(crate) fn status(code: u16, verb: Verb, message: &str, retry_after: Option<u32>) -> Value {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 if verb == Verb::Create => "AlreadyExists",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    };
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    if let Some(seconds) = retry_after {
        status["details"] = json!({"retryAfterSeconds": seconds});
    }
    status
}

// === impl Rewrite ===

impl Rewrite {
    /// Changes what the apiserver answers with this.
    pub fn with(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Action {
        Action::Rewrite(Self(Arc::new(change)))
    }
}

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewrite").finish_non_exhaustive()
    }
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// How long a fault holds events: `None` for 0, until it is told to go on.
pub(crate) fn held_for(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(number: &u32) -> bool {
    *number == 1
}
