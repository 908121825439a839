//! The files in `examples/`, read as kubectl reads them, and what changes in them when the ledgers are not the sample.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ledgers::{self, Ledgers};

/// Every object of the YAML files directly in the folder, in the order of their names.
pub(super) fn read(folder: &Path) -> Result<Vec<Value>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut objects = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("cannot read {}", path.display()))?;
        objects.extend(documents);
    }
    ensure!(!objects.is_empty(), "there are no manifests in {}", folder.display());
    Ok(objects)
}

/// One list to be applied. For the sample nothing changes; otherwise the ranges, the network's name and the volume do.
pub(super) fn adjust(mut objects: Vec<Value>, ledgers: &Ledgers) -> Result<Value> {
    if !ledgers.is_sample() {
        for object in objects.iter_mut().filter(|object| object["kind"] == "Pipeline") {
            adjust_pipeline(object, ledgers);
        }
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": objects}))
}

fn adjust_pipeline(object: &mut Value, ledgers: &Ledgers) {
    let (first, last) = ledgers.range();
    let spec = &mut object["spec"];
    spec["source"]["config"]["start_ledger"] = json!(first);
    spec["source"]["config"]["end_ledger"] = json!(last);
    if spec["mode"] != "Batch" {
        // A streaming pipeline follows the folder.
        if let Some(config) = spec["source"]["config"].as_object_mut() {
            config.shift_remove("end_ledger");
        }
    }
    if let Some(processors) = spec["processors"].as_array_mut() {
        for processor in processors.iter_mut().filter(|step| step["type"] == "LedgerReader") {
            // Which network it is, the messages need not say; the sample's name would be wrong.
            if let Some(config) = processor["config"].as_object_mut() {
                config.shift_remove("network");
            }
        }
    }
    if ledgers.needs_volume()
        && let Some(volumes) = spec["runtime"]["volumes"].as_array_mut()
    {
        for volume in volumes.iter_mut().filter(|volume| volume["name"] == ledgers::NAME) {
            *volume = json!({
                "name": ledgers::NAME,
                "persistentVolumeClaim": {"claimName": ledgers::NAME, "readOnly": true},
            });
        }
    }
}
