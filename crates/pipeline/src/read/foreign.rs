//! Files that are something else: other formats of the same world, each refused with what to write instead. Recognised by
//! their top-level keys only.

use crate::diagnostic::Diagnostic;
use crate::node::Node;

use super::SHAPE;

/// Why the document is not a pipeline file, when it is clearly another kind of file.
pub(crate) fn refuse(document: &Node) -> Option<Diagnostic> {
    let entries = document.entries()?;
    let has = |key: &str| document.get(key).is_some();
    let key_at = |names: &[&str]| {
        let found = entries
            .iter()
            .find(|(key, _)| key.text().is_some_and(|text| names.contains(&text)));
        found.map(|(key, _)| key.position)
    };
    let refuse = |keys: &[&str], problem: String, hint: String| {
        let path = entries
            .iter()
            .find_map(|(key, _)| key.text().filter(|text| keys.contains(text)));
        Some(Diagnostic::new(key_at(keys), path.unwrap_or_default(), problem).hint(hint))
    };

    if has("pipelines") || has("pipeline") {
        return None;
    }
    if let Some(version) = document.get("apiVersion") {
        let version = version.text().unwrap_or_default();
        let (problem, hint) = match version.split_once('/') {
            Some(("flowctl", _)) => (
                format!("this is flowctl's own format (apiVersion: {version}), not a pipeline file"),
                format!("write its spec as {SHAPE}, without apiVersion, kind, metadata and spec"),
            ),
            Some(("flowctl.dev", _)) => (
                format!("this is a Kubernetes object (apiVersion: {version}), not a pipeline file"),
                "give it to `kubectl apply -f`; the operator makes the pipeline file from it".to_owned(),
            ),
            _ => (
                format!("this is a Kubernetes manifest (apiVersion: {version}), not a pipeline file"),
                format!("write {SHAPE}"),
            ),
        };
        return refuse(&["apiVersion"], problem, hint);
    }
    if has("process") || has("save_to") {
        return refuse(
            &["process", "save_to"],
            "this is the short spelling of cdp-pipeline-workflow (source, process, save_to), which is not read here"
                .to_owned(),
            format!(
                "write {SHAPE}: process becomes processors, save_to becomes consumers, and each step has type and config"
            ),
        );
    }
    if has("source") && (has("processors") || has("consumers")) {
        return refuse(
            &["source", "processors", "consumers", "name"],
            "source, processors and consumers stand at the top of the file".to_owned(),
            "put `pipeline:` above them and indent them by two spaces".to_owned(),
        );
    }
    None
}
