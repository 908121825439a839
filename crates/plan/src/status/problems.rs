//! The conditions that the plan alone decides: `Accepted` and `ResolvedRefs`.

use flowctl_api::{ConditionType, Reason};

use super::verdict::{Truth, Verdict};
use crate::{Plan, Problem, Severity};

/// The condition `Accepted`.
pub(super) fn accepted(plan: &Plan) -> Verdict {
    verdict(plan, ConditionType::Accepted).unwrap_or_else(|| Verdict::good(Reason::Accepted, "the spec is valid"))
}

/// The condition `ResolvedRefs`; `refers_to` says in words what was found.
pub(super) fn resolved(plan: &Plan, accepted: &Verdict, refers_to: &str) -> Verdict {
    if let Some(bad) = verdict(plan, ConditionType::ResolvedRefs) {
        return bad;
    }
    let looked_up = plan.wiring.steps.iter().all(|step| step.endpoint.is_some());
    if accepted.truth == Truth::True || looked_up {
        return Verdict::good(Reason::Resolved, refers_to);
    }
    Verdict::unknown(Reason::Blocked, "references are not looked up before the spec is valid")
}

/// All problems of one condition; the first one gives the reason.
fn verdict(plan: &Plan, condition: ConditionType) -> Option<Verdict> {
    let mut problems: Vec<&Problem> = plan
        .problems
        .iter()
        .filter(|problem| problem.condition == condition)
        .collect();
    // What waiting cannot cure comes first (the sort keeps the order of the fields): a person must look at it.
    problems.sort_by_key(|problem| problem.severity != Severity::Person);
    let decisive = problems.first()?;
    let message: Vec<String> = problems.iter().map(|problem| in_words(problem)).collect();
    let verdict = Verdict::bad(decisive.reason, message.join("; "));
    Some(Verdict {
        severity: decisive.severity,
        ..verdict
    })
}

fn in_words(problem: &Problem) -> String {
    if problem.field.is_empty() {
        return problem.message.clone();
    }
    format!("{}: {}", problem.field, problem.message)
}
